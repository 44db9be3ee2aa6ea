"""docs/losses.md says what the code does; every page's links lead to what is in the repository."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from sphereface.losses.margins import MARGINS, Margin, make_margin

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "data/README.md", ROOT / "findings/README.md")
)
TEXT = (DOCS / "losses.md").read_text(encoding="utf-8")
COMMON = {field.name for field in dataclasses.fields(Margin)}


def row_of(name):
    """The cells of the table's row."""
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in row.replace(r"\|", "/").strip("|").split("|")]


def written(value):
    return "null" if value is None else f"{value:g}" if isinstance(value, (int, float)) else str(value)


@pytest.mark.parametrize("name", MARGINS)
def test_every_loss_and_each_default_stand_in_the_table(name):
    options = row_of(name)[4]
    for field in dataclasses.fields(MARGINS[name]):
        if field.name in COMMON or (field.name.startswith("lambda_") and field.name != "lambda_g"):
            continue
        given = re.search(rf"`{field.name}`[^`(]*\(([^)]*)\)", options)
        assert given, f"{name}: {field.name} is not among {options}"
        assert given[1] == written(field.default)


@pytest.mark.parametrize("name", ["a-softmax", "l-softmax"])
def test_the_annealing_stands_with_its_defaults(name):
    assert "`lambda_*`" in row_of(name)[4]
    for field in dataclasses.fields(MARGINS[name]):
        if field.name.startswith("lambda_"):
            assert f"`{field.name}` ({written(field.default)})" in TEXT


def test_the_options_of_every_loss_stand_with_their_defaults():
    for field in dataclasses.fields(Margin):
        assert f"`{field.name}` ({written(field.default)})" in TEXT


def test_the_table_names_no_option_and_no_loss_that_is_not_there():
    names = re.findall(r"^\| `([\w-]+)` \|", TEXT, flags=re.MULTILINE)
    assert set(names) == set(MARGINS)
    for name in names:
        known = {field.name for field in dataclasses.fields(MARGINS[name])} | {"lambda_*"}
        assert set(re.findall(r"`([\w*]+)`", row_of(name)[4])) <= known


def test_lambda_is_as_written_at_the_steps_that_are_named():
    margin = make_margin("a-softmax")
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \| ([\d.]+) % \|$", TEXT, flags=re.MULTILINE)
    assert len(rows) >= 5
    for step, lam, share in rows:
        value = margin.lam(int(step.replace(",", "")))
        assert (lam, share) == (f"{value:.1f}", f"{100 / (1 + value):.1f}")


def test_every_image_is_there():
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert len(images) == 4
    assert all((DOCS / image).is_file() for image in images)


def links_of(page):
    """Relative links and images of a page, code left out: (target as a path of the repository, anchor)."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "`", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^()\s]+)\)", text):
        if not re.match(r"\w+:", target):
            path, _, anchor = target.partition("#")
            yield ((ROOT / page).parent / path).resolve() if path else ROOT / page, anchor


def anchors_of(path):
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page):
    for path, anchor in links_of(page):
        assert path.exists(), path
        assert not anchor or anchor in anchors_of(path), f"{path.name}#{anchor}"


def test_git_keeps_what_the_pages_link_to():
    """A file that .gitignore leaves out is there for its author only."""
    paths = {str(path.relative_to(ROOT)) for page in PAGES for path, _ in links_of(page)}
    assert len(paths) >= 30
    try:
        run = subprocess.run(
            ["git", "check-ignore", "--no-index", *sorted(paths)], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if run.returncode == 128:
        pytest.skip(f"not a git checkout: {run.stderr.strip()}")
    assert run.stdout.split() == []


def test_every_finding_is_in_the_list():
    text = (ROOT / "findings/README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[([\w-]+)\]\(([\w-]+)\.sh\)", text, flags=re.MULTILINE)
    assert all(name == file for name, file in listed)
    assert [name for name, _ in listed] == sorted(path.stem for path in (ROOT / "findings").glob("*.sh"))


def test_the_modules_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([a-z_]+/[\w/.-]*)`", text) if "NAME" not in name}
    assert len(named) >= 40
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "sphereface" / name).exists()]
    assert missing == []
