"""What ``--ckpt`` may name beside a file: a run folder, a folder of runs, ``latest``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sphereface.commands import checkpoint_option, face_options
from sphereface.commands.checkpoint_option import checkpoint_path
from sphereface.commands.parser import new_parser, parse
from sphereface.commands.parsers import eval as evaluation
from sphereface.commands.parsers import export, join
from sphereface.errors import UserError
from sphereface.weights import CARD, CHECKPOINT, DEFAULT


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(folder: str, started: str | None, *names: str) -> Path:
    path = Path(folder)
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"checkpoint")
    if started is not None:
        (path / "run.json").write_text(json.dumps({"started": started, "status": "finished"}))
    return path


def three_runs() -> None:
    """The newest of ``a`` is named as if it were older, and started in another time zone."""
    make_run("runs/a/20260101-120000", "2026-01-01T12:00:00+0000", "best.pt", "last.pt", "step-00000010.pt")
    make_run("runs/a/20260101-080000", "2026-01-01T08:00:00-0500", "last.pt")  # 13:00 in Greenwich
    make_run("runs/b/20260101-150000", "2026-01-01T15:00:00+0500", "best.pt")  # 10:00
    make_run("runs/b/20260102-000000", "2026-01-02T00:00:00+0000")  # no checkpoint yet
    make_run("runs/b-profile", None)


@pytest.mark.parametrize(
    ("text", "found", "newer"),
    [
        ("latest", "runs/a/20260101-080000/last.pt", True),
        ("runs", "runs/a/20260101-080000/last.pt", True),
        ("runs/a", "runs/a/20260101-080000/last.pt", False),
        ("runs/b/", "runs/b/20260101-150000/best.pt", True),
        ("runs/a/20260101-120000", "runs/a/20260101-120000/best.pt", False),
    ],
)
def test_which_is_taken_and_said(text, found, newer, capsys):
    three_runs()
    make_run("runs/b/20251231-000000", "2025-12-31T00:00:00+0000")
    assert checkpoint_path(text) == Path(found)
    skipped = "note: runs/b/20260102-000000: skipped, a newer run without best.pt or last.pt\n"
    assert capsys.readouterr().err == f"{skipped * newer}note: {text}: using the checkpoint {found}\n"


@pytest.mark.parametrize(
    ("own", "copied", "found"),
    [
        (8, 4, "20260103-000000"),
        (4, 8, "20260103-000000-backup"),
        (8, 8, "20260103-000000"),
        (8, 10, "20260103-000000-backup"),
    ],
)
def test_of_a_run_and_its_copy_the_one_with_the_most_steps_is_taken(own, copied, found, capsys):
    three_runs()
    run, copy = "runs/c/20260103-000000", "runs/c/20260103-000000-backup"
    for path, step in ((run, own), (copy, copied)):
        make_run(path, "2026-01-03T00:00:00+0000", "last.pt", "step-00000002.pt", f"step-{step:08d}.pt")
    assert checkpoint_path("latest") == Path("runs/c", found, "last.pt")
    other = copy if run.endswith(found) else run
    assert capsys.readouterr().err == (
        f"note: runs/c/{found}/last.pt: this run started at the same time as {other}/last.pt, so one may be a copy · "
        f"to use another one, give its path\nnote: latest: using the checkpoint runs/c/{found}/last.pt\n"
    )


@pytest.mark.parametrize("name", ["casia/new", "casia/of/may/new"])
@pytest.mark.parametrize("text", ["latest", "runs", "runs/casia", "runs/{name}"])
def test_a_name_with_slashes_is_found_and_what_a_run_set_aside_is_not(name, text, capsys):
    three_runs()
    run = make_run(f"runs/{name}/20260103-120000", "2026-01-03T12:00:00+0000", "last.pt")
    make_run(f"{run}/abandoned", None, "best.pt")
    make_run(f"{run.parent}/20260104-120000/abandoned", None, "best.pt")
    (run.parent / "20260104-120000" / "run.json").write_text('{"started": "2026-01-04T12:00:00+0000"}')
    text = text.format(name=name)
    assert checkpoint_path(text) == run / "last.pt"
    newer = f"note: {run.parent}/20260104-120000: skipped, a newer run without best.pt or last.pt\n"
    assert capsys.readouterr().err == f"{newer}note: {text}: using the checkpoint {run / 'last.pt'}\n"


def test_a_file_is_taken_as_it_is(capsys):
    three_runs()
    Path("latest").write_bytes(b"a checkpoint of that name")
    for text in ("latest", "runs/a/20260101-120000/last.pt", "not/there.pt", "x" * 200 + ".pt"):
        assert checkpoint_path(text) == Path(text)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["latest", "runs/c", "runs/c/1"])
def test_nothing_there(text):
    make_run("runs/c/1", "2026-01-01T12:00:00+0000", "config.yaml")
    with pytest.raises(
        UserError, match=f"^--ckpt: got '{text}': no .* · allowed: a checkpoint file, a run folder with"
    ):
        checkpoint_path(text)


@pytest.mark.parametrize("damage", ["[" * 100_000, "{", "[]", '{"started": 7}', "{}", '{"started": "soon"}', None])
@pytest.mark.parametrize("text", ["latest", "runs/a"])
def test_a_run_that_does_not_say_when_it_started_is_named(damage, text, capsys):
    path = make_run("runs/a/2", None, "last.pt")
    if damage is not None:
        (path / "run.json").write_text(damage)
    with pytest.raises(UserError, match=f"got '{text}': no "):
        checkpoint_path(text)
    older = make_run("runs/a/1", "2026-01-01T12:00:00+0000", "best.pt")
    make_run("runs/a/3", None)  # no run, or one without a checkpoint yet
    capsys.readouterr()
    assert checkpoint_path(text) == older / "best.pt"
    note, used = capsys.readouterr().err.splitlines()
    assert note.startswith(f"note: {path}: skipped, since its run.json has no valid start time (")
    assert note.endswith(" · to use this run, give the path of its last.pt")
    assert used == f"note: {text}: using the checkpoint {older / 'best.pt'}"
    assert checkpoint_path(str(path)) == path / "last.pt"


def test_a_closed_folder_of_runs_is_one_line(monkeypatch):
    three_runs()
    real = Path.iterdir

    def closed(path: Path) -> object:
        if path.name == "b":
            raise PermissionError(13, os.strerror(13))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(UserError, match=r"--ckpt: latest: cannot be read \(Permission denied\)"):
        checkpoint_path("latest")


def test_a_name_too_long_or_a_folder_that_may_not_be_read_is_one_line(monkeypatch):
    with pytest.raises(UserError, match="--ckpt: x+: cannot be read"):
        checkpoint_path("x" * 5000)
    three_runs()

    def closed(*_: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(checkpoint_option, "_newest", closed)
    with pytest.raises(UserError, match=r"--ckpt: runs/a: cannot be read \(Permission denied\)"):
        checkpoint_path("runs/a")


def test_every_command_that_takes_a_checkpoint(capsys):
    three_runs()
    found = Path("runs/a/20260101-080000/last.pt")
    assert parse(evaluation, "eval", ["--ckpt", "latest"], "sphereface eval").ckpt == found
    compared = parse(evaluation, "eval", ["--compare", "runs/a", "latest"], "sphereface eval").compare
    assert compared == [found, found]
    faces = new_parser("", "verify", "sphereface verify")  # which embed and search share
    face_options.add_face_options(faces)
    assert faces.parse_args(["--ckpt", "latest"]).ckpt == found
    assert parse(export, "export", ["latest", "--format", "onnx"], "sphereface export").checkpoint == found
    joined = parse(join, "join", ["runs/a", "runs/b", "--output", "x.pt"], "sphereface join").checkpoints
    assert joined == [found, Path("runs/b/20260101-150000/best.pt")]


def test_the_network_that_ships_is_the_default_where_faces_are_compared_and_is_said(capsys):
    faces = new_parser("", "verify", "sphereface verify")  # which embed and search share
    face_options.add_face_options(faces)
    said = f"note: using {DEFAULT}, the network that ships with this package · its limits: {CARD}\n"
    for given in ([], ["--ckpt", DEFAULT]):
        assert faces.parse_args(given).ckpt == CHECKPOINT
        assert capsys.readouterr().err == said
    assert faces.parse_args(["--ckpt", "mine.pt"]).ckpt == Path("mine.pt")
    assert capsys.readouterr().err == ""
    assert DEFAULT in faces.format_help()
    make_run(DEFAULT, None, "last.pt")  # a folder of that name
    assert checkpoint_path(DEFAULT) == Path(DEFAULT, "last.pt")


def test_an_empty_name_is_not_this_folder():
    three_runs()
    with pytest.raises(UserError, match="^--ckpt: got an empty name · allowed: a checkpoint file, a run folder"):
        checkpoint_path("")
