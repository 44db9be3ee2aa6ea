"""The examples of docs/extend.md: a backbone and a margin from outside go through every command."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.cli import main
from sphereface.config import load_config
from sphereface.data import sources
from sphereface.data.identities import Labels
from sphereface.errors import UserError
from sphereface.evaluation import embed_files
from sphereface.evaluation.calibration import Calibration, Threshold
from sphereface.evaluation.protocols import PROTOCOLS
from sphereface.evaluation.write import json_text
from sphereface.export.formats import onnx_runner
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES, Resized, load_model
from sphereface.places import FORMS
from sphereface.plugins import OTHER_CODE, code_of, load_plugins
from sphereface.training.learner import Learner

from .images import make_pairs, make_training_set

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
SETTINGS = [
    *("data.train=train", "data.workers=0", "eval.sets={mine: pairs}", "eval.select=mine", "log.tensorboard=false"),
    *("train.batch_size=10", "train.epochs=null", "train.steps=6", "train.max_minutes=null"),
    *("checkpoint.every_steps=2", "checkpoint.keep=9", "eval.every_steps=3"),
]


def block(start: str) -> str:
    """The code block of the page that holds a text."""
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if start in text and ">>>" not in text]
    return found


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder with the page's files, the current one; what they register is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    before = [(registry, dict(registry)) for registry in (BACKBONES, MARGINS, PROTOCOLS, FORMS, sources._FILES)]
    (tmp_path / "my_net.py").write_text(block("class MyNet("), encoding="utf-8")
    (tmp_path / "my_margin.py").write_text(block("class MyMargin("), encoding="utf-8")
    (tmp_path / "my_protocol.py").write_text(block("class TripletSet("), encoding="utf-8")
    (tmp_path / "my_source.py").write_text(block("class SqliteSource"), encoding="utf-8")
    (tmp_path / "my.yaml").write_text(block("extends: demo.yaml"), encoding="utf-8")
    make_training_set(tmp_path / "train", 5, 4)
    make_pairs(tmp_path / "pairs", folds=2, each=3)
    monkeypatch.setenv("SPHEREFACE_PLUGINS", "my_net.py,my_margin.py")
    yield tmp_path
    for registry, names in before:
        registry.clear()
        registry.update(names)
    for name in ("my_net", "my_margin", "my_protocol", "my_source"):
        sys.modules.pop(name, None)


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def train(*more: str) -> Path:
    settings = [argument for value in (*SETTINGS, *more) for argument in ("--set", value)]
    run("train", "--config", "my.yaml", *settings)
    return max(Path("runs/my-run").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)


def test_a_backbone_from_outside_goes_through_every_command(outside, capsys):
    folder = train("train.stages=[{until: 0.5, input_size: [56, 48]}]")
    state = load_checkpoint(folder / "last.pt")
    assert state["meta"]["config"]["model"]["name"] == "my-net"
    assert state["model"]["head.weight"].shape == (32, 8 * 14 * 12)
    best = folder / "best.pt"
    run("eval", "--ckpt", best, "--lfw", "pairs", "--pairs", "pairs/pairs.txt", "--no-cache")
    run("export", best, "--format", "onnx", "--output", "my.onnx")
    images = sorted(Path("pairs").rglob("*.png"))[:2]
    crops = np.stack([cv2.imread(str(path)) for path in images])
    wanted = embed_files(load_model(best).model, images, device="cpu", flip=False)
    np.testing.assert_allclose(onnx_runner(Path("my.onnx"))(crops), wanted, rtol=1e-4, atol=1e-5)
    run("verify", *images, "--ckpt", best, "--aligned")
    run("embed", "pairs", "gallery.npz", "--ckpt", best, "--aligned")
    capsys.readouterr()
    run("search", "gallery.npz", images[0], "--ckpt", best, "--aligned")
    assert "Anna_0" in capsys.readouterr().out


def edit(module: str, old: str, new: str) -> None:
    """Change the code of a plugin, as between two commands."""
    text = Path(f"{module}.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    Path(f"{module}.py").write_text(text.replace(old, new), encoding="utf-8")
    sys.modules.pop(module)
    {"my_net": BACKBONES, "my_margin": MARGINS}[module].pop(module.replace("_", "-"))
    load_plugins()


def calibrate(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a calibration that an evaluation of enough pairs would learn."""

    def learnt(cosines: object, same: object, **options: Any) -> Calibration:
        options.pop("num_repeated")
        options["flip"] = True
        return Calibration(**options, slope=1.0, offset=0.0, prior=0.5, thresholds=(Threshold(0.1, 0.5, 0.9, 100),))

    with monkeypatch.context() as patched:
        patched.setattr("sphereface.commands.eval_calibration.fit_calibration", learnt)
        run("eval", "--ckpt", checkpoint, "--lfw", "pairs", "--pairs", "pairs/pairs.txt", "--calibrate")


def said_by(*more: str, resume: str | None = None, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a training writes to stderr."""
    settings = [argument for value in (*SETTINGS, *more) for argument in ("--set", value)]
    capsys.readouterr()
    run("train", "--config", "my.yaml", *settings, *(["--resume", resume] if resume else []))
    return capsys.readouterr().err


def test_changed_code_of_each_part_of_a_run_is_told(outside, capsys):
    """Of the network, also where its weights start a run, teach one, or are joined; and of the loss."""
    first = train("seed=5")
    teacher = [
        "name=taught",
        "loss.name=my-margin",
        f"train.teacher={{checkpoint: {first}/last.pt, losses: {{cosine: 1}}, label_weight: 0}}",
    ]
    said_by(*teacher, "train.steps=6", capsys=capsys)
    line = "the code of the plugin of the {} changed since step "
    changed = [line.format(part) for part in ("network", "loss", "teacher")]
    for module, old, new, expected in (
        ("my_net", "self.body(images)", "self.body(images)", []),
        ("my_margin", "class MyMargin(ScaledMargin):", "class MyMargin(ScaledMargin):  # other", ["loss"]),
        ("my_net", "self.body(images)", "self.body(images.relu())", ["network", "loss", "teacher"]),
    ):
        edit(module, old, new)
        said = said_by(*teacher, "train.steps=8", resume=str(max(Path("runs/taught").iterdir())), capsys=capsys)
        assert [each for each in changed if each in said] == [line.format(part) for part in expected]
    said = said_by("name=from", f"train.init_from={first}/last.pt", capsys=capsys)
    assert f"train.init_from: {first}/last.pt {OTHER_CODE}: its weights fit but may mean something else" in said
    second = train("seed=6")
    capsys.readouterr()
    run("join", first / "last.pt", second / "last.pt", "--output", "both.pt")
    assert f"{second}/last.pt {OTHER_CODE} than {first}/last.pt: one of them" in capsys.readouterr().err
    older = load_checkpoint(first / "last.pt")
    del older["meta"]["versions"]["plugin of the network"]
    save_checkpoint(Path("older.pt"), older, {})
    run("join", "older.pt", second / "last.pt", "--output", "unknown.pt")
    assert OTHER_CODE not in capsys.readouterr().err
    third = train("seed=7")
    capsys.readouterr()
    run("join", second / "last.pt", third / "last.pt", "--output", "two.pt")
    load_model(Path("two.pt"))
    assert OTHER_CODE not in capsys.readouterr().err
    run("export", second / "last.pt", "--format", "checkpoint", "--output", "small.pt")
    load_model(Path("small.pt"))
    assert OTHER_CODE not in capsys.readouterr().err
    edit("my_net", "self.body(images.relu())", "self.body(images)")
    for name in ("two.pt", "both.pt", "small.pt"):  # of other code, of both, of other code
        load_model(Path(name))
        assert capsys.readouterr().err.count(f"{name} {OTHER_CODE}") == 1


def test_finished_networks_of_other_code_are_told(outside, capsys):
    """The margin is that of a stage: its code counts as that of the whole run."""
    two = ["name=two", "model.networks=2", "train.stages=[{until: 0.5, loss: {name: my-margin, s: 30}}]"]
    said_by(*two, capsys=capsys)
    line = "was trained with other code of the plugin of the {} · to train with that of today, start without --resume"
    for module, old, new, expected in (
        ("my_margin", "class MyMargin(ScaledMargin):", "class MyMargin(ScaledMargin):", (0, 0)),
        ("my_margin", "class MyMargin(ScaledMargin):", "class MyMargin(ScaledMargin):  # other", (0, 2)),
        ("my_net", "self.body(images)", "self.body(images.relu())", (2, 2)),
    ):
        edit(module, old, new)
        said = said_by(*two, resume="auto", capsys=capsys)
        assert tuple(said.count(line.format(part)) for part in ("network", "loss")) == expected


def test_changed_code_is_another_network(outside, capsys, monkeypatch):
    """Neither cached embeddings nor a gallery of the earlier code are used, and a resume tells it."""
    folder = train()
    evaluate = ("eval", "--ckpt", folder / "best.pt", "--lfw", "pairs", "--pairs", "pairs/pairs.txt")
    run(*evaluate)
    calibrate(folder / "best.pt", monkeypatch)
    run("embed", "pairs", "gallery", "--ckpt", folder / "best.pt", "--aligned")
    kept = {path.name for path in (folder / "embeddings").iterdir()}
    images = sorted(Path("pairs").rglob("*.png"))
    for times, new in ((0, "self.body(images)"), (1, "self.body(images.relu())")):
        edit("my_net", "self.body(images)", new)
        capsys.readouterr()
        run(*evaluate)
        said = capsys.readouterr().err
        assert said.count(f"best.pt {OTHER_CODE}: its embeddings are not those of its evaluations\n") == times
        assert main([str(part) for part in ("verify", *images[:2], "--ckpt", folder / "best.pt", "--aligned")]) == (
            2 if times else 0
        )
        shown = capsys.readouterr()
        assert ("decision" in shown.out) != bool(times)
        assert ("made with other code of the plugin of the network · make one: " in shown.err) == bool(times)
        assert len({path.name for path in (folder / "embeddings").iterdir()} - kept) == times
        refused = main([str(part) for part in ("embed", "pairs", "gallery", "--ckpt", folder / "best.pt", "--aligned")])
        assert (refused != 0) == bool(times)
        capsys.readouterr()
        settings = [part for value in (*SETTINGS, "train.steps=8") for part in ("--set", value)]
        run("train", "--config", "my.yaml", "--resume", folder, *settings)
        assert capsys.readouterr().err.count("the code of the plugin of the network changed since step ") == times
    assert len(images) > 1


def test_the_code_of_many_files_is_as_short_as_that_of_one(tmp_path, monkeypatch):
    """It is part of a file's name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    objects = []
    for number in range(30):
        (tmp_path / f"layers_{number}.py").write_text(f"class Layer:\n    number = {number}\n")
        objects.append(importlib.import_module(f"layers_{number}").Layer())
    codes = [code_of(objects[:count]) for count in range(31)]
    assert (codes[0], len(set(codes)), {len(code) for code in codes[1:]}) == ("", 31, {12})
    assert code_of([*objects[::-1], torch.nn.ReLU(), load_model, 1]) == codes[-1]


def test_a_resumed_run_of_it_is_the_same_to_the_bit(outside):
    whole = train("train.stages=[{until: 0.5, input_size: [56, 48]}]")
    state = load_checkpoint(whole / "last.pt")
    assert isinstance(load_model(whole / "step-00000002.pt").model, Resized)
    (whole / "last.pt").unlink()
    settings = (*SETTINGS, "train.stages=[{until: 0.5, input_size: [56, 48]}]")
    options = [argument for value in settings for argument in ("--set", value)]
    run("train", "--config", "my.yaml", "--resume", whole / "step-00000002.pt", *options)
    again = load_checkpoint(whole / "last.pt")
    assert all(torch.equal(value, again["model"][name]) for name, value in state["model"].items())


def test_two_of_them_join(outside):
    train("seed=1")
    train("model.networks=2")
    (joined,) = [p for p in Path("runs/my-run").glob("*/last.pt") if "networks" in load_checkpoint(p)["meta"]]
    model = load_model(joined).model
    assert model(torch.zeros(1, 3, 112, 96)).shape == (1, 64)


def test_a_backbone_without_a_feature_map_refuses_smaller_crops_by_name(outside):
    text = (outside / "my_net.py").read_text(encoding="utf-8")
    plain = text.replace("ConvBackbone", "Backbone") + (
        "\n\nMyNet.forward = lambda self, images: self.embed(self.feature_map(images))\n"
    )
    (outside / "my_net.py").write_text(plain, encoding="utf-8")
    load_plugins()
    config = run_config("train.stages=[{until: 0.5, input_size: [56, 48]}]")
    with pytest.raises(UserError, match=r"train.stages\[0\].input_size: got \[56, 48\] · MyNet makes no feature map"):
        Learner(config, 3, torch.device("cpu"))
    Learner(run_config("train.stages=[{until: 0.5, input_size: [112, 96]}]"), 3, torch.device("cpu"))  # its own size


def test_what_the_page_says_one_can_try_alone(outside, monkeypatch):
    monkeypatch.syspath_prepend(str(outside))
    blocks = [
        text for text in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL) if ">>>" in text
    ]
    assert len(blocks) == 2
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "docs/extend.md", "extend.md", 0)
    output: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(examples, out=output.append).failed == 0, "".join(output)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("    def build(", "    def built(", "whose options class has no build"),
        ("@dataclass(frozen=True)\n", "", "MyNetOptions is not a dataclass that extends BackboneOptions"),
        (
            "self.map_size = map_size",
            "self.maps = map_size",
            r"stages\[0\].input_size: got \[56, 48\] · MyNet cannot embed such a crop .AttributeError: .*map_size",
        ),
        ("maps.flatten(1)", "maps.flatten(1)[:, 1:]", r"model.input_size: got \[112, 96\] · MyNet cannot embed"),
        (
            "return self.head(maps.flatten(1))",
            "return maps",
            r"MyNet gives \(1, 16, 14, 12\) for one crop · allowed: \(1, 32",
        ),
    ],
)
def test_a_wrong_backbone_ends_before_the_first_step_in_one_line(outside, before, after, problem):
    text = (outside / "my_net.py").read_text(encoding="utf-8")
    assert before in text
    (outside / "my_net.py").write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(UserError, match=problem) as caught:
        start_training()
    assert "\n" not in str(caught.value)


RANDOM = r"MyNet embeds one crop differently each time, .* allowed: the same .* F.dropout needs training=self.training"
OF_BATCH = r"MyNet embeds a crop differently in a batch than alone, .* needs track_running_stats=True"
UNSTEADY = [
    ("maps.flatten(1)", "nn.functional.dropout(maps.flatten(1), 0.02)", RANDOM),
    ("maps.flatten(1)", "(maps + torch.randn(maps.shape)).flatten(1)", RANDOM),
    ("nn.BatchNorm2d(width),", "nn.BatchNorm2d(width, track_running_stats=False),", OF_BATCH),
    ("maps.flatten(1)", "(maps - maps.mean(0)).flatten(1)", OF_BATCH),
    ("maps.flatten(1)", "maps.reshape(1, -1)", r"MyNet cannot embed one crop or two .RuntimeError: .* of any size"),
]


def spoil(old: str, new: str) -> None:
    text = Path("my_net.py").read_text(encoding="utf-8")
    assert old in text
    Path("my_net.py").write_text("import torch\n" + text.replace(old, new), encoding="utf-8")
    sys.modules.pop("my_net", None)
    BACKBONES.pop("my-net", None)


@pytest.mark.parametrize(("old", "new", "problem"), UNSTEADY)
def test_a_backbone_that_embeds_one_crop_in_several_ways_is_one_line(outside, old, new, problem):
    spoil(old, new)
    with pytest.raises(UserError, match=f"^model.name: {problem}") as caught:
        start_training()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "new", ["nn.functional.dropout(maps.flatten(1), 0.5, self.training)", "maps.flatten(1).bfloat16().float()"]
)
def test_a_backbone_with_dropout_in_training_or_of_low_precision_is_allowed(outside, new):
    spoil("maps.flatten(1)", new)
    start_training()


@pytest.mark.parametrize(("old", "new", "problem"), UNSTEADY[::2])
def test_a_checkpoint_that_embeds_one_crop_in_several_ways_is_one_line(outside, capsys, old, new, problem):
    best = train("train.steps=2", "checkpoint.every_steps=2") / "last.pt"
    if "BatchNorm" in old:
        new = "type('Norm', (nn.BatchNorm2d,), {'forward': lambda self, x: x / x.std()})(width),"
    spoil(old, new)
    load_plugins()
    capsys.readouterr()
    for command in (["verify", *sorted(Path("pairs").rglob("*.png"))[:2], "--aligned"], ["eval", "--lfw", "pairs"]):
        assert main([*map(str, command), "--ckpt", str(best)]) == 2
        assert re.search(f"last.pt: {problem}", capsys.readouterr().err)


@pytest.mark.parametrize("logit", ["self.s", "cos[:1]", "None"])
def test_a_wrong_margin_is_one_line(outside, logit):
    text = (outside / "my_margin.py").read_text(encoding="utf-8")
    changed = re.sub(
        r"logit=.*,\n", f"logit=torch.as_tensor({logit}),\n" if logit != "None" else "logit=cos.sum(),\n", text
    )
    (outside / "my_margin.py").write_text(changed.replace("from torch import", "import torch\nfrom torch import"))
    load_plugins()
    head = MarginHead(4, 3, MARGINS["my-margin"]())
    with pytest.raises(UserError, match="'my-margin': target.. returned .* allowed: a Target"):
        head(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))


def test_a_margin_may_work_in_place(outside):
    """The reported angles and lengths stay those of the embeddings."""
    text = (outside / "my_margin.py").read_text(encoding="utf-8")
    line = "        norm.clamp_(10, 110)\n        cos, _ = cos.clone(), cos.zero_()\n"
    (outside / "my_margin.py").write_text(text.replace("        slope =", f"{line}        slope ="))
    load_plugins()
    head, features, labels = MarginHead(4, 3, MARGINS["my-margin"]()), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    output = head(features, labels)
    assert torch.allclose(output.norms, features.norm(dim=1))
    assert torch.allclose(output.cosines, torch.cosine_similarity(features, head.weight[labels]), atol=1e-6)


def test_a_margin_from_outside_trains(outside):
    folder = train("loss.name=my-margin", "loss.s=30")
    assert load_checkpoint(folder / "last.pt")["meta"]["config"]["loss"] == {
        **load_checkpoint(folder / "last.pt")["meta"]["config"]["loss"], "name": "my-margin", "m": 0.2, "s": 30.0,
    }  # fmt: skip


def test_a_protocol_from_outside_reports_and_selects(outside, monkeypatch, capsys):
    monkeypatch.setenv("SPHEREFACE_PLUGINS", "my_net.py,my_protocol.py")
    images = sorted(path.relative_to("pairs").as_posix() for path in Path("pairs").rglob("*.png"))
    lines = [f"{images[k]} {images[k]} {images[-1 - k]}" for k in range(4)]  # an image is nearest to itself
    Path("triplets.txt").write_text("\n".join(lines), encoding="utf-8")
    folder = train("eval.sets={mine: 'triplets:pairs,triplets.txt'}")
    assert "mine triplet accuracy 100.00 %" in (folder / "train.log").read_text(encoding="utf-8")
    assert load_checkpoint(folder / "best.pt")["meta"]["best"] == 1.0
    capsys.readouterr()
    sets = ["--sets", "mine=triplets:pairs,triplets.txt"]
    run("eval", "--ckpt", folder / "best.pt", *sets, "--html", "--output", "out")
    printed = capsys.readouterr().out
    assert re.search(r"accuracy +100.00% +of 4 triplets", printed)
    assert json.loads(Path("out/mine/result.json").read_text(encoding="utf-8"))["num_triplets"] == 4
    assert "of 4 triplets" in Path("out/report.html").read_text(encoding="utf-8")
    np.savez("table.npz", names=np.array(images), embeddings=-np.eye(len(images)))  # no image is read
    for path in Path("pairs").rglob("*.png"):
        path.unlink()
    run("eval", "--embeddings", "table.npz", *sets, "--output", "out")
    assert "100.00%" in capsys.readouterr().out


def with_triplets(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Write triplets whose accuracy is 1, and change the code of the page's protocol."""
    monkeypatch.setenv("SPHEREFACE_PLUGINS", "my_net.py,my_protocol.py")
    images = sorted(path.relative_to("pairs").as_posix() for path in Path("pairs").rglob("*.png"))
    lines = [f"{images[k]} {images[k]} {images[-1 - k]}" for k in range(4)]
    Path("triplets.txt").write_text("\n".join(lines), encoding="utf-8")
    text = Path("my_protocol.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    Path("my_protocol.py").write_text("import torch\n" + text.replace(old, new), encoding="utf-8")


TRIPLETS = "eval.sets={mine: 'triplets:pairs,triplets.txt'}"


@pytest.mark.parametrize(
    "figure", ["right.mean()", "np.float32(right.mean())", "torch.tensor(right).float().mean()", "int(right.all())"]
)
def test_a_figure_of_numpy_or_torch_is_a_number_in_checkpoints_and_logs(outside, monkeypatch, figure):
    with_triplets(monkeypatch, "float(right.mean())", figure)
    folder = train(TRIPLETS)
    assert load_checkpoint(folder / "best.pt")["meta"]["best"] == 1.0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["eval/mine/triplet_accuracy"] for line in lines if "eval/mine/triplet_accuracy" in line] == [1.0, 1.0]


def test_figures_of_numpy_are_written_as_json(outside, monkeypatch, capsys):
    with_triplets(monkeypatch, "float(right.mean()), len(right)", "right.mean(), right.sum()")
    folder = train("eval.sets={}", "eval.select=null")
    sets = ["--sets", "mine=triplets:pairs,triplets.txt"]
    run("eval", "--ckpt", folder / "last.pt", *sets, "--html", "--output", "out")
    values = {np.int64(2): torch.tensor(0.5), "a": np.longdouble(2), "b": np.arange(2), "c": np.float32("nan")}
    assert json.loads(json_text(values)) == {"2": 0.5, "a": 2.0, "b": [0, 1], "c": None}
    written = json.loads(Path("out/mine/result.json").read_text(encoding="utf-8"))
    assert (written["accuracy"], written["num_triplets"]) == (1.0, 4)
    assert "100.00" in Path("out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("figure", "got"),
    [
        ("100 * right.mean()", "np.float64(100.0)"),
        ("-2500.0", "-2500.0"),
        ("float('inf')", "inf"),
        ("'95 %'", "'95 %'"),
        ("None", "None"),
        ("right", "array"),
        ("10**400", "1000"),
        ("1 / 0", None),
    ],
)
def test_a_figure_that_is_no_fraction_ends_a_run_after_saving_it(outside, monkeypatch, capsys, figure, got):
    right = "TripletResult(float(right.mean()), "
    with_triplets(monkeypatch, right, f"TripletResult({figure}, ")
    settings = [argument for value in (*SETTINGS, TRIPLETS) for argument in ("--set", value)]
    settings += ["--set", "checkpoint.every_steps=100"]
    if got is None:
        with pytest.raises(ZeroDivisionError):
            main(["train", "--config", "my.yaml", *settings])
    else:
        assert main(["train", "--config", "my.yaml", *settings]) == 2
        error = capsys.readouterr().err
        assert f"TripletResult.headline: got ('triplet accuracy', {got}" in error
        assert "allowed: a name, and a fraction of at most 1 that is higher for a better recogniser" in error
    (folder,) = Path("runs/my-run").iterdir()
    assert load_checkpoint(folder / "last.pt")["meta"]["step"] == 3
    with_triplets(monkeypatch, f"TripletResult({figure}, ", right)
    sys.modules.pop("my_protocol")
    PROTOCOLS.pop("triplets")
    run("train", "--config", "my.yaml", "--resume", folder, *settings)
    assert (
        load_checkpoint(folder / "best.pt")["meta"] | {"best": 1.0, "best_step": 3}
        == (load_checkpoint(folder / "best.pt")["meta"])
    )


@pytest.mark.parametrize(
    ("state", "got"),
    [
        ("np.float64(1)", "model._extra_state: got a numpy.float64 · allowed: tensors, numbers, texts, lists"),
        ("7", "its weights are not tensors with names"),
        ("torch.zeros(2, dtype=torch.complex64)", "_extra_state: got a tensor of torch.complex64 · allowed: plain"),
    ],
)
def test_a_network_whose_state_no_checkpoint_holds_is_refused_before_training(outside, capsys, state, got):
    text = Path("my_net.py").read_text(encoding="utf-8")
    methods = ["def get_extra_state(self):", f"    return {state}", "def set_extra_state(self, state):", "    pass"]
    more = "".join(f"    {line}\n" for line in methods)
    where = "    def feature_map("
    text = "import numpy as np\nimport torch\n" + text.replace(where, more + where)
    Path("my_net.py").write_text(text, encoding="utf-8")
    settings = [argument for value in SETTINGS for argument in ("--set", value)]
    assert main(["train", "--config", "my.yaml", *settings]) == 2
    assert f"the run cannot be saved: {got}" in capsys.readouterr().err
    assert not any(Path("runs").rglob("*.pt"))


@pytest.fixture
def table(outside, monkeypatch):
    """The page's source, and a table of the training images in another order."""
    monkeypatch.setenv("SPHEREFACE_PLUGINS", "my_net.py,my_source.py")
    with closing(sqlite3.connect(outside / "faces.sqlite")) as made, made:
        made.execute("CREATE TABLE faces (person TEXT, image BLOB)")
        for path in sorted(Path("train").glob("*/*.png"), key=lambda path: (path.name, path.parent.name)):
            made.execute("INSERT INTO faces VALUES (?, ?)", (path.parent.name, path.read_bytes()))
    return Path("faces.sqlite")


def test_a_source_from_outside_is_checked_packed_and_trained_on(table, capsys):
    run("check", table, "--output", "report", "--workers", "1")
    assert "20  clean images, of 5 identities" in capsys.readouterr().out
    run("pack", table, "packed.rec")
    folder, packed = sources.open_path(Path("train")), sources.open_path(Path("packed.rec"))
    assert [packed.read(row) for row in range(20)] == [folder.read(row) for row in range(20)]
    assert packed.labels.firsts.tolist() == folder.labels.firsts.tolist()

    def losses(*settings: str) -> list[float]:
        lines = (train(*settings) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row]

    wanted = losses("log.every_steps=1")
    assert len(wanted) == 6
    assert losses("log.every_steps=1", f"data.train={table}", "data.workers=2") == wanted
    with pytest.raises(UserError, match=r"register_source: got '.sqlite' · allowed: a suffix such as"):
        sources.register_source(".sqlite")
    for suffix in ("sqlite", ".SQL", ".txt", ".tar"):
        with pytest.raises(UserError, match="register_source: got"):
            sources.register_source(suffix)


@pytest.mark.parametrize(
    ("labels", "names", "problem"),
    [
        (np.array([0, 1, 0, 1]), "ab", "labels of type ndarray"),
        (Labels.of_counts([2, 3]), "ab", "4 images with 5 labels"),
        (Labels.of_counts([2, 2]), "a", "1 names of identities, and labels with 2"),
        (Labels.of_counts([4, 0]), "ab", "2 names of identities, and labels with 1"),
        (Labels.of_counts([2, 2]), [0, 1], "a name of type int in class_names, '0'"),
        (Labels.of_counts([2, 2]), np.array(["a", "b"]), "a name of type str_ in class_names"),
        (Labels.of_counts([1, 2, 1]), "aba", "several identities named 'a'"),
    ],
)
def test_a_source_from_outside_must_agree_with_itself(tmp_path, monkeypatch, labels, names, problem):
    """Labels that were not sorted gave other identities in silence."""
    monkeypatch.setattr(sources, "_FILES", dict(sources._FILES))

    class Own:
        named, mapped = True, True

        def __init__(self, path):
            self.labels, self.class_names = labels, names

        def __len__(self):
            return 4

    sources.register_source(".own")(Own)
    (tmp_path / "x.own").touch()
    with pytest.raises(UserError, match=f"x.own: its source, a plugin, has {problem}.* · allowed: images in the order"):
        sources.open_path(tmp_path / "x.own")


@pytest.mark.parametrize("key", ["named", "mapped"])
def test_a_source_from_outside_must_say_what_it_is(table, key):
    """Without it, training ended in a traceback."""
    text = Path("my_source.py").read_text(encoding="utf-8")
    Path("my_source.py").write_text(text.replace(f"    {key} = ", f"    {key}_ = "), encoding="utf-8")
    load_plugins()
    with pytest.raises(UserError, match=f"faces.sqlite: its source, a plugin, has no {key} that is True or False"):
        sources.open_path(table)


READ_EACH = """
    def read_each(self, indices):
        ids = ",".join(str(self._rowids[k]) for k in indices)
        rows = dict(self._query(f"SELECT rowid, image FROM faces WHERE rowid IN ({ids})"))
        YIELDS

    def name("""


def with_read_each(yields: str) -> None:
    text = Path("my_source.py").read_text(encoding="utf-8")
    text = text.replace("\n    def name(", READ_EACH.replace("YIELDS", yields))
    Path("my_source.py").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("yields", "problem"),
    [
        ("yield from rows.values()", r"another image than read\([0-9]+\) for the indices \[2, 8, "),
        ("return [rows[self._rowids[k]] for k in dict.fromkeys(indices)]", "its read_each yields 8 for 9 indices"),
        (
            "yield from [rows[self._rowids[k]] for k in sorted(indices)]",
            r"another image than read\(2\) for the indices",
        ),
        ("yield from [*rows.values(), *rows.values()]", r"another image than read\("),
        ("yield from [rows[self._rowids[k]] for k in [*indices, 0]]", "its read_each yields more than 9 for 9 indices"),
        ("raise OSError('locked')", r"its read_each raises OSError \(locked\)"),
    ],
)
def test_a_read_each_that_differs_from_read_is_refused(table, yields, problem):
    """A query has its own order: training learnt the labels of other images in silence."""
    with_read_each(yields)
    load_plugins()
    with pytest.raises(UserError, match=rf"{problem}.* · allowed: for each index, in the given order, the image"):
        sources.open_path(table)


@pytest.mark.parametrize(
    "yields",
    [
        "yield from [rows[self._rowids[k]] for k in indices]",
        "return [rows[self._rowids[k]] for k in indices]",
        "yield from [OSError('locked') if k == 2 else rows[self._rowids[k]] for k in indices]",
        "yield from [rows[self._rowids[k]] + b'%d' % np.random.randint(9**9) for k in indices]",
    ],
)
def test_a_read_each_that_agrees_with_read_is_read(table, yields):
    """The last source encodes each time, and differently; only the others' bytes can be compared."""
    with_read_each(yields)
    if "randint" in yields:
        text = (
            Path("my_source.py")
            .read_text(encoding="utf-8")
            .replace("[0][0]", "[0][0] + b'%d' % np.random.randint(9**9)")
        )
        Path("my_source.py").write_text(text, encoding="utf-8")
    load_plugins()
    assert len(sources.open_path(table)) == 20


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("places", "problem"), [("[1:]", "yields"), ("*2", "yields more than")])
def test_a_read_each_of_another_number_later_is_one_line(table, capsys, mapped, workers, places, problem):
    """It keeps the number for the few images that are compared at the start."""
    with_read_each(
        f"yield from [rows[self._rowids[k]] for k in (indices if indices[:2] == [2, 8] else indices{places})]"
    )
    text = Path("my_source.py").read_text(encoding="utf-8")
    Path("my_source.py").write_text(text.replace("mapped = False", f"mapped = {mapped}"), encoding="utf-8")
    settings = [*SETTINGS, f"data.train={table}", "data.keep_mb=0", f"data.workers={workers}", "train.steps=3"]
    assert main(["train", "--config", "my.yaml", *(part for value in settings for part in ("--set", value))]) == 2
    said = capsys.readouterr().err
    assert re.search(
        f"error: SqliteSource, a plugin: its read_each {problem} [0-9]+ for [0-9]+ indices · allowed: for", said
    )
    assert "Traceback" not in said


@pytest.mark.parametrize(("content", "problem"), [(b"", "no such table: faces"), (b"x" * 100, "not a database")])
def test_a_damaged_file_of_a_source_from_outside_is_one_line(table, content, problem, capsys):
    table.write_bytes(content)
    assert main(["check", str(table)]) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert "Traceback" not in said


def test_without_the_plugin_the_checkpoint_says_what_is_missing(outside, monkeypatch, capsys):
    folder = train()
    del BACKBONES["my-net"]
    monkeypatch.setenv("SPHEREFACE_PLUGINS", "")
    assert main(["export", str(folder / "last.pt"), "--format", "safetensors"]) == 2
    said = capsys.readouterr().err
    assert "model.name: got 'my-net'" in said
    assert "SPHEREFACE_PLUGINS" in said


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("none.py", "none.py: no such file"),
        ("no_such_module", "no_such_module: cannot be imported"),
        ("broken.py", r"broken.py: cannot be imported \(ZeroDivisionError"),
        ("json.py", "a module named json is imported already"),
        ("again.py", "a backbone named 'spherenet' is registered already · give yours another name"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line(outside, value, problem):
    (outside / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    (outside / "json.py").write_text("\n", encoding="utf-8")
    again = (outside / "my_net.py").read_text(encoding="utf-8").replace('"my-net"', '"spherenet"')
    (outside / "again.py").write_text(again, encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        load_plugins(value)


def test_a_key_of_another_backbone_is_refused(outside):
    load_plugins()
    with pytest.raises(UserError, match="model.widht: unknown key · did you mean 'width'"):
        run_config("model={name: my-net, widht: 4}")
    with pytest.raises(UserError, match="model.depth: unknown key"):
        run_config("model={name: my-net, depth: 20}")


def start_training() -> None:
    load_plugins()
    model = "model={name: my-net, embedding_dim: 32, input_size: [112, 96]}"
    Learner(run_config(model, "train.stages=[{until: 0.5, input_size: [56, 48]}]"), 3, torch.device("cpu"))


def run_config(*overrides: str):
    return load_config("my.yaml", overrides, losses=MARGINS, backbones=BACKBONES)
