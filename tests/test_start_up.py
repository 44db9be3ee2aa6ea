"""What a command imports: nothing large for ``--help`` and wrong options, for ``verify`` nothing that draws."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sphereface import cli
from sphereface.choices import PUBLISHERS
from sphereface.cli import COMMANDS
from sphereface.evaluation.protocols import PROTOCOLS
from sphereface.models.published import ADAPTERS
from sphereface.places import FORMS

from .evaluation.checkpoints import write_checkpoint
from .evaluation.crops import noise, write_image

ROOT = Path(__file__).parents[1]
LARGE = {"torch", "torchvision", "cv2", "numpy", "sklearn", "scipy", "matplotlib", "tensorboard", "jinja2", "PIL"}
NOT_TO_VERIFY = {"torchvision", "sklearn", "scipy", "matplotlib", "tensorboard", "jinja2", "torch._dynamo", "sympy"}
SCRIPTS = {
    "train.py": "train",
    "eval_lfw.py": "eval",
    "scripts/align_faces.py": "align",
    "scripts/check_faces.py": "check",
    "scripts/compare_runs.py": "compare-runs",
    "scripts/import_weights.py": "import",
    "scripts/join_networks.py": "join",
    "scripts/make_pairs.py": "make-pairs",
    "scripts/pack_faces.py": "pack",
    "scripts/plot_margins.py": "plot-margins",
}


def run(*arguments: object) -> tuple[int, str, str, set[str]]:
    """Run Python in a process; return its exit code, its output, its errors and the modules that it imported."""
    command = [sys.executable, "-X", "importtime", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = "\n".join(line for line in lines if not line.startswith("import time:"))
    assert "sphereface.errors" in imported, said
    return done.returncode, done.stdout, said, imported


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_large(name):
    code, text, _, imported = run("-m", "sphereface", name, "--help")
    assert (code, imported & LARGE) == (0, set())
    assert text.startswith(f"usage: sphereface {name}")


@pytest.mark.parametrize(("script", "name"), SCRIPTS.items())
def test_a_script_is_a_command_under_its_own_name(script, name):
    code, text, _, imported = run(script, "--help")
    assert (code, imported & LARGE) == (0, set())
    assert text.startswith(f"usage: python {script}")
    assert f"  python {script} " in text
    assert f"sphereface {name} " not in text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["verfy"], "error: sphereface: got 'verfy'"),
        (["verify", "a.jpg", "b.jpg", "--fare", "1"], "unrecognized arguments: --fare"),
        (["align", "photographs", "crops", "--detector", "rcnn"], "invalid choice: 'rcnn'"),
        (["import", "a.pth", "b.pt", "--publisher", "nobody"], "invalid choice: 'nobody'"),
        (["train"], "error: --config: missing"),
        (["train", "--config", "sphere21"], "error: --config: no file 'sphere21' here or in configs/"),
        (["train", "--config", "demo", "--resume", ""], "error: --resume: got an empty text"),
        (["embed", "", "album.npz"], "error: argument 1: got an empty text · allowed: a value, such as a path"),
        (
            ["align", "photographs", "crops", "--landmarks", ""],
            "error: --landmarks: got an empty text · allowed: a value",
        ),
        (["export", "docs", "--format", "onnx"], "error: --ckpt: got 'docs': no checkpoint in this folder"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_large_is_imported(arguments, error):
    code, text, said, imported = run("-m", "sphereface", *arguments)
    assert (code, text, imported & LARGE) == (2, "", set())
    assert error in said


def test_two_images_are_compared_without_what_draws_and_evaluates(tmp_path):
    write_checkpoint(tmp_path / "best.pt", input_size=(112, 96), depth=10)  # with weights that normal_ draws
    images = [tmp_path / f"{person}.png" for person in range(2)]
    for person, path in enumerate(images):
        write_image(path, noise(person, 112, 96))
    options = ["--ckpt", tmp_path / "best.pt", "--device", "cpu", "--aligned"]
    code, text, said, imported = run("-m", "sphereface", "verify", *images, *options)
    assert (code, said) == (0, "")
    assert text.startswith("cosine ")
    assert "torch" in imported
    assert imported & NOT_TO_VERIFY == set()


def test_every_command_has_both_its_modules():
    for name in COMMANDS:
        assert callable(cli.parser_of(name).add_options)
        assert callable(cli.command_of(name).run)


def test_the_names_in_the_help_are_those_of_the_code():
    assert list(dict.fromkeys(adapter.publisher for adapter in ADAPTERS)) == list(PUBLISHERS)
    assert {kind: protocol.form for kind, protocol in PROTOCOLS.items()} == FORMS


def test_train_without_a_config_lists_them(capsys):
    assert cli.main(["train"]) == 2
    text = capsys.readouterr()
    first, *rest = text.err.splitlines()
    assert first == "error: --config: missing · allowed: a path to a YAML file, or one of these in configs/:"
    assert [line.split()[0] for line in rest] == sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
    assert rest[0].split(maxsplit=1)[1].startswith("The demo: 30 people of the AT&T/ORL faces")
    assert all(len(line.split()) > 5 for line in rest)
