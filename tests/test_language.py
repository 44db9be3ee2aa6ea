"""The prose of the project is plain English: short sentences, short lines, one word for one thing.

`docs/glossary.md` explains the terms. To check one file, run
``pytest tests/test_language.py -k 'docs/data.md'``. ruff checks the line length of comments and
docstrings (``max-doc-length`` in pyproject.toml).
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / folder / "README.md" for folder in ("data", "findings", "tests/golden/ijb")),
    ]
)
FOLDERS_OF_CODE = ("sphereface", "scripts", "benchmarks")
CODE = sorted(path for folder in FOLDERS_OF_CODE for path in (ROOT / folder).rglob("*.py"))
OTHERS = sorted(
    [
        *(ROOT / "configs").glob("*.yaml"),
        *(ROOT / "sphereface").rglob("*.j2"),
        *(ROOT / "sphereface").rglob("*.md"),  # a model card, which a program wrote
    ]
)

MOST_WORDS, MEDIAN_WORDS, MOST_COLUMNS = 32, 17, 100
BANNED = {  # what not to write: what to write
    r"pictures?": "image",
    r"sittings?": "session",
    r"likeness(es)?": "similarity",
    r"(goes|go|going|gone|went) on": "resume, continue",
    r"nobody": "say who does not",
    r"whoever": "the caller, the user",
    r"anew|afresh": "again",
    r"asks? for|asked for|asking for": "requests, needs, sets",
    r"stands? for": "means",
    r"says so|(is|are|was|be) said": "the message names, the command prints",
    r"(is|are|be|was|were) told( apart)?": "receives, is passed, distinguishes",
    r"(is|are|be|been|was|were) met": "occurs",
    r"at hand": "available, given",
    r"rests? on": "is based on, uses",
    r"likes? best": "is fastest on",
    r"broken off": "cancelled",
    r"hence|thus|thereby|therein|thereof|whereof|wherein": "so",
    r"no dearer|dearer": "more expensive, costs more",
    r"comes? to the same": "equals",
}


ANY_BANNED = re.compile(
    "|".join(rf"(?P<w{number}>\b(?:{words})\b)" for number, words in enumerate(BANNED)), re.IGNORECASE
)
INSTEAD = {f"w{number}": instead for number, instead in enumerate(BANNED.values())}


def relative(path):
    return path.relative_to(ROOT).as_posix()


def without_code_blocks(page):
    """The page with its fenced code blocks replaced by empty lines, so that line numbers stay."""
    return re.sub(r"(?ms)^```.*?^```", lambda block: "\n" * block[0].count("\n"), page)


def paragraphs_of_page(text):
    """The prose of a Markdown page: paragraphs and list items, no code, tables and headings."""
    open_tags = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.nesting == 1:
            open_tags.append(token.type)
        elif token.nesting == -1:
            open_tags.pop()
        elif token.type == "inline" and not {"heading_open", "table_open"} & set(open_tags):
            yield "".join(_text(child) for child in token.children)


def _text(token):
    replaced = {"code_inline": "code", "softbreak": " ", "hardbreak": ". ", "image": ""}
    return replaced.get(token.type, token.content)


def paragraphs_of_code(text):
    """The paragraphs of a module's docstrings, without indented examples."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                if not all(line.startswith("    ") for line in paragraph.splitlines()):
                    yield re.sub(r"``?[^`]*``?", "code", paragraph)


def sentences(paragraphs):
    """(number of words, sentence) of each; a colon, a semicolon or a new entry of Args ends one."""
    found = []
    for paragraph in paragraphs:
        parts = re.split(r"(?<=[.!?:;])[\")’”]?\s+|\n\s*(?=\w+: )", paragraph)
        found += [(len(part.split()), " ".join(part.split())) for part in parts]
    return [(words, text) for words, text in found if words > 1]


def prose(path):
    """(line number, text) of what people read: the lines of a page; code's strings and comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        page = re.sub(r"`[^`\n]*`|\]\([^)\n]*\)", "", without_code_blocks(text))
        return [(1, page)]
    if path.suffix != ".py":
        return [(1, text)]
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    strings = ((token.start[0], token.string) for token in tokens if token.type in kinds)
    return [(line, re.sub(r"``[^`]*``|\b\w*_\w*\b|--[\w-]+", "", string)) for line, string in strings]


def banned_words(path):
    return [
        f"line {line + text[: match.start()].count(chr(10))}: {match[0]!r} (write: {INSTEAD[match.lastgroup]})"
        for line, text in prose(path)
        for match in ANY_BANNED.finditer(text)
    ]


def long_lines(page):
    """Their numbers. Tables, code and lone links cannot be wrapped."""
    unbroken = ("|", "    ", "![", "[")
    return [
        number
        for number, line in enumerate(without_code_blocks(page).splitlines(), 1)
        if len(line) > MOST_COLUMNS and not line.startswith(unbroken) and " " in line[:MOST_COLUMNS]
    ]


@pytest.mark.parametrize("path", [*PAGES, *CODE, *OTHERS], ids=relative)
def test_no_word_that_readers_stumble_over(path):
    found = banned_words(path)
    assert not found, f"{relative(path)}: {', '.join(found[:20])}"


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_no_long_line_in_a_page(path):
    long = long_lines(path.read_text(encoding="utf-8"))
    assert not long, f"{relative(path)}: lines {long[:20]} have more than {MOST_COLUMNS} columns"


@pytest.mark.parametrize("path", [*PAGES, *CODE], ids=relative)
def test_sentences_are_short(path):
    text = path.read_text(encoding="utf-8")
    found = sentences(paragraphs_of_code(text) if path.suffix == ".py" else paragraphs_of_page(text))
    long = [f"{words} words: {text[:90]}" for words, text in found if words > MOST_WORDS]
    assert len(long) <= 0.05 * len(found), f"{relative(path)}: {len(long)} of {len(found)}: {long[:10]}"
    if len(found) >= 5:
        median = statistics.median(words for words, _ in found)
        longest = sorted(found)[-1][1]
        message = f"{relative(path)}: the median sentence has {median} words; the longest: {longest}"
        assert median <= MEDIAN_WORDS, message


def test_spelling():
    """By codespell's list of misspellings; pyproject.toml holds the words that it takes wrongly."""
    files = [relative(path) for path in (*PAGES, *CODE, *OTHERS)]
    command = [sys.executable, "-m", "codespell_lib", *files]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_check_of_sentences():
    page = (
        "# A heading of a page\n\nOne sentence here. Another\none; and a third.\n\n"
        "    code is not prose\n\n| a cell | of a table |\n|--|--|\n"
    )
    assert [words for words, _ in sentences(paragraphs_of_page(page))] == [3, 2, 3]
    code = '"""One line of words.\n\n    an example\n\nArgs:\n    path: where the file lies.\n"""'
    assert [words for words, _ in sentences(paragraphs_of_code(code))] == [4, 4]


def test_the_check_of_lines():
    long = "word " * 21
    page = f"short\n{long}\n```\n{long}\n```\n| {long} |\n    {long}\n{'x' * 120}\n{long}\n"
    assert long_lines(page) == [2, 9]


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("page.md", "an image\n\na Picture `picture`\n```\nnobody\n```\n[see](whoever.md) it", ["3"]),
        (
            "code.py",
            '"""First.\n\nIt goes on."""\npicture = 1  # a ``sitting``\nx = f"at hand {name}"  # anew\n',
            ["3", "5", "5"],
        ),
        ("a.yaml", "lr: 0.1  # hence\n", ["1"]),
    ],
)
def test_the_check_of_words(tmp_path, name, text, lines):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [re.match(r"line (\d+): ", found)[1] for found in banned_words(tmp_path / name)] == lines
