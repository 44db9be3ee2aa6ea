"""Exports give PyTorch's embeddings from plain pixels, in onnxruntime, OpenCV and TorchScript; and their cards."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sphereface.checkpoint import load_checkpoint, save_checkpoint, sha256_of
from sphereface.cli import main, run_command
from sphereface.data.images import decode
from sphereface.errors import UserError
from sphereface.export import formats
from sphereface.export.formats import Export
from sphereface.export.graph import InputFormat, PixelsToEmbedding
from sphereface.models import SphereNet, load_model
from sphereface.small_files import check_replaceable

from .evaluation.checkpoints import write_checkpoint
from .evaluation.crops import noise, write_image


def needs(*modules):
    for module in modules:
        pytest.importorskip(module, reason="pip install '.[export]'")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.pt")


@pytest.fixture(scope="module")
def crops():
    return np.stack([noise(k) for k in range(5)])


@pytest.fixture(scope="module")
def wanted(checkpoint, crops):
    """The embeddings, by the formula: (pixel − 127.5) / 128, BGR, channels first."""
    with torch.inference_mode():
        return load_model(checkpoint).model((torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127.5) / 128).numpy()


@pytest.fixture(scope="module")
def onnx_file(checkpoint, tmp_path_factory):
    """Exported by the command with its defaults, and in 8 bits; ranges from crops much like those tested."""
    needs("onnx", "onnxscript", "onnxruntime")
    folder = tmp_path_factory.mktemp("onnx")
    for k in range(20):
        write_image(folder / "crops" / f"{k}.png", noise(k))
    output = folder / "face.onnx"
    command = ["export", str(checkpoint), "--format", "onnx", "--output", str(output), "--int8", str(folder / "crops")]
    assert main(command) == 0
    return output


def off(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def test_onnxruntime_gives_pytorchs_embeddings_from_bytes(onnx_file, crops, wanted):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [32, 24, 3])
    for count in (1, 5):  # the batch is free
        (found,) = session.run(None, {"images": crops[:count]})
        assert off(found, wanted[:count]) < 1e-4
    about = session.get_modelmeta().custom_metadata_map
    assert about["input"] == "(B, 32, 24, 3) uint8, pixels 0 to 255, BGR"
    assert about["mirror"] == "none"
    assert json.loads(about["model"])["widths"] == [4, 4, 4, 8]


def test_eight_bits_are_near(onnx_file, crops, wanted):
    found = formats.onnx_runner(onnx_file.with_name("face-int8.onnx"))(crops)
    cosines = (found * wanted).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() > 0.98
    assert off(found, wanted) > 1e-4  # it is another network


def with_8_bit_copy(checkpoint: Path, output: Path, crops: Path) -> list[str]:
    return ["export", str(checkpoint), "--format", "onnx", "--output", str(output), "--int8", str(crops)]


@pytest.mark.parametrize("median", [0.951, 0.949])
def test_a_damaged_8_bit_copy_is_a_warning(checkpoint, tmp_path, monkeypatch, caplog, capsys, median):
    needs("onnx", "onnxscript", "onnxruntime")
    write_image(tmp_path / "crops" / "a.png", noise(0))
    cosines = np.array([median, 0.999, 0.321])
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    monkeypatch.setattr(
        "sphereface.commands.export.quantise",
        lambda _, source, to, __: (to.write_bytes(source.read_bytes()), cosines)[1],
    )
    output = tmp_path / "face.onnx"
    command = with_8_bit_copy(checkpoint, output, tmp_path / "crops")
    assert main(command) == 0
    text = f"cosine with PyTorch on these: smallest 0.321, median {median:.3f} · evaluate it before you use it\n"
    assert text in capsys.readouterr().out
    damaged = (
        f"{tmp_path}/face-int8.onnx: the 8-bit copy is damaged: its median cosine with PyTorch is 0.949, usual is 0.95"
    )
    assert any(line.startswith(damaged) for line in caplog.messages) == (median < 0.95)
    assert any("damaged" in line for line in caplog.messages) == (median < 0.95)


def test_opencv_gives_pytorchs_embeddings_from_floats(checkpoint, crops, wanted, tmp_path):
    needs("onnx", "onnxscript", "onnxruntime")
    output = tmp_path / "opencv.onnx"
    form = ["--order", "rgb", "--layout", "nchw", "--dtype", "float32"]
    assert main(["export", str(checkpoint), "--format", "onnx", "--output", str(output), *form]) == 0
    net = cv2.dnn.readNetFromONNX(str(output))
    for count in (5, 1):
        net.setInput(cv2.dnn.blobFromImages(list(crops[:count]), swapRB=True))
        assert off(net.forward(), wanted[:count]) < 1e-4


@pytest.mark.parametrize("order", ["bgr", "rgb"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_input_format_means_what_it_says(checkpoint, crops, wanted, order, layout, dtype):
    pixels = crops[..., ::-1] if order == "rgb" else crops
    pixels = np.moveaxis(pixels, 3, 1) if layout == "nchw" else pixels
    form = InputFormat(order, layout, dtype)
    graph = PixelsToEmbedding(load_model(checkpoint).model, form).eval()
    with torch.inference_mode():
        found = graph(torch.from_numpy(np.ascontiguousarray(pixels).astype(dtype))).numpy()
    assert off(found, wanted) < 1e-6
    np.testing.assert_array_equal(form.feed(crops), pixels)
    assert form.feed(crops).dtype == dtype


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_runs_without_this_package(checkpoint, crops, wanted, tmp_path):
    output = tmp_path / "face.torchscript"
    assert main(["export", str(checkpoint), "--format", "torchscript", "--output", str(output)]) == 0
    extra = {"about.json": ""}
    loaded = torch.jit.load(str(output), _extra_files=extra)
    for count in (1, 5):
        assert off(loaded(torch.from_numpy(crops[:count])).detach().numpy(), wanted[:count]) < 1e-5
    assert json.loads(extra["about.json"])["checkpoint_sha256"] == sha256_of(checkpoint)


def test_safetensors_hold_the_weights_and_what_they_are_of(checkpoint, tmp_path):
    needs("safetensors")
    from safetensors import safe_open

    output = tmp_path / "face.safetensors"
    assert main(["export", str(checkpoint), "--format", "safetensors", "--output", str(output)]) == 0
    with safe_open(str(output), framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata()
    weights = load_model(checkpoint).model.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert json.loads(about["model"])["depth"] == 4
    assert "(pixel - 127.5) / 128, BGR" in about["input"]


def test_a_file_that_gives_other_embeddings_is_refused(checkpoint, tmp_path):
    export = Export(load_model(checkpoint).model)
    graph, path = export.graph(), tmp_path / "wrong.onnx"

    def right(fed):
        return graph(torch.from_numpy(fed)).detach().numpy()

    def wrong_after_the_first_row(fed):
        found = right(fed)
        found[1:] *= 1.001
        return found

    def wrong_alone(fed):
        return right(fed) * (np.nan if len(fed) == 1 else 1)

    def one_row_too_few(fed):
        return right(fed)[1:]

    wrongs = [lambda fed, w=w: right(fed) * w for w in (1.001, np.nan)]
    for wrong in (*wrongs, wrong_after_the_first_row, wrong_alone, one_row_too_few):
        with pytest.raises(UserError, match="gives other embeddings than PyTorch"):
            formats.check(export, wrong, path)
    assert formats.check(export, right, path) < 1e-6
    half = Export(export.model, InputFormat(dtype="float16"))
    with pytest.raises(UserError, match="allowed 2e-02.* not written · export with --dtype float32 instead"):
        formats.check(half, lambda fed: np.full((len(fed), 16), np.inf, np.float32), path)


def test_a_file_that_takes_no_other_batch_is_refused(checkpoint, tmp_path):
    path = tmp_path / "wrong.torchscript"

    def run(_):
        raise RuntimeError("shape '[1, 8]' is invalid\nfor input of size 24")

    with pytest.raises(UserError, match="cannot be run on 3 crops .* with --batch") as caught:
        formats.check(Export(load_model(checkpoint).model), run, path)
    assert "\n" not in str(caught.value)


def test_the_card_says_what_is_known_of_this_checkpoint_alone(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "best.pt")
    arguments = ["export", str(checkpoint), "--format", "torchscript"]
    assert main(arguments) == 0
    card = tmp_path / "best.torchscript.md"
    text = card.read_text(encoding="utf-8")
    assert sha256_of(checkpoint) in text
    for part in ("Input and output", "Training data", "Recipe", "Evaluation", "Intended use", "Limits", "Licence"):
        assert f"\n## {part}\n" in text
    assert "(B, 32, 24, 3) uint8, pixels 0 to 255, BGR" in text
    assert "There is no evaluation beside this checkpoint" in text
    assert "depth: 4" in text
    assert "The owner of these weights has not stated one" in text

    point = {"far": 0.1, "tar": 0.875}
    found = {
        "checkpoint_sha256": sha256_of(checkpoint), "name": "lfw", "pairs": "/home/me/pairs.txt", "num_images": 13233,
        "accuracy": 0.8963, "standard_error": 0.0053, "auc": 0.9632, "eer": 0.102,
        "tar_at_far": [point, {"far": 0.01, "tar": None}],
    }  # fmt: skip
    for name, sha in (("eval-pairs", sha256_of(checkpoint)), ("eval-old", "ab" * 32)):
        (tmp_path / name).mkdir()
        outcome = {**found, "checkpoint_sha256": sha, "name": name}
        (tmp_path / name / "verification.json").write_text(json.dumps(outcome), encoding="utf-8")
    assert main([*arguments, "--licence", "CC BY-NC 4.0"]) == 0
    text = card.read_text(encoding="utf-8")
    assert "| eval-pairs, pairs.txt | 13,233 | 89.63 ± 0.53 % | 0.9632 | 10.20% | 87.50% at 0.1 |" in text
    assert "eval-old" not in text
    assert "/home/me" not in text

    (tmp_path / "eval-pairs" / "verification.json").write_text("[" * 100_000)
    strange: list[dict[str, object]] = [
        {"auc": float("nan")}, {"auc": 1.5}, {"accuracy": True}, {"accuracy": "0.9"}, {"eer": "0.1"}, {"eer": -0.1},
        {"num_images": -1}, {"num_images": 10**400}, {"name": 3}, {"pairs": None}, {"tar_at_far": 5},
        {"tar_at_far": [3]}, {"tar_at_far": [{"far": 0.1}]}, {"tar_at_far": [{"far": 0.1, "tar": 2}]},
        {"standard_error": float("inf")},
    ]  # fmt: skip
    for number, change in enumerate([*strange, {"name": "a|b\nc", "auc": 0.1234}]):
        (tmp_path / f"eval-{number}").mkdir()
        (tmp_path / f"eval-{number}" / "verification.json").write_text(json.dumps({**found, **change, "more": [1]}))
    assert main([*arguments, "--licence", "CC BY-NC 4.0"]) == 0
    text = card.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "pairs.txt" in line]
    assert rows == [r"| 'a¦b\nc', pairs.txt | 13,233 | 89.63 ± 0.53 % | 0.1234 | 10.20% | 87.50% at 0.1 |"]
    assert "## Licence\n\nCC BY-NC 4.0\n" in text
    capsys.readouterr()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "torchscript", "--int8", "crops"], "--int8: got --format torchscript · allowed: onnx"),
        (
            ["--format", "safetensors", "--order", "rgb"],
            "--order, --layout, --dtype, --mirror, --batch: safetensors hold",
        ),
        (
            ["--format", "safetensors", "--batch", "1"],
            "--order, --layout, --dtype, --mirror, --batch: safetensors hold",
        ),
        (["--format", "onnx", "--opset", "16"], "--opset: got 16 · allowed: 17 to 20 · omit it for 17"),
        (["--format", "torchscript", "--opset", "17"], "--opset: got --format torchscript · allowed: onnx"),
        (["--format", "onnx", "--batch", "0"], "--batch: got 0 · allowed: 1 or more"),
        (["--format", "onnx", "--int8", "x", "--dtype", "float16"], "--int8: got --dtype float16 · allowed: uint8,"),
        (
            ["--format", "torchscript", "--output", "face.pt"],
            "--output: got face.pt · allowed: a name that ends in .torchscript",
        ),
        (["--format", "onnx", "--int8", "nowhere"], "--int8: nowhere: cannot be read (No such file"),
        (["--format", "torchscript", "--output", ""], "--output: got an empty text · allowed: a value"),
        (["--format", "onnx", "--batch", "99999999999"], "out of memory (Unable to allocate"),
        (["--format", "onnx", "--output", "photo.jpg"], "--output: got photo.jpg · allowed: a name that ends in .onnx"),
        (["--format", "safetensors", "--output", "x"], "--output: got x · allowed: a name that ends in .safetensors"),
        (["--format", "torchscript", "--output", "/dev/null/x.ts"], "/dev/null/x.ts: cannot be written"),
    ],
)
def test_wrong_arguments_are_one_line(checkpoint, capsys, more, message):
    assert main(["export", str(checkpoint), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_the_card_says_what_to_feed_and_what_comes_back(checkpoint, tmp_path, capsys):
    needs("onnx", "onnxscript", "onnxruntime")
    output = tmp_path / "face.onnx"
    options = ["--order", "rgb", "--layout", "nchw", "--dtype", "float16", "--mirror", "join", "--batch", "2"]
    command = ["export", str(checkpoint), "--format", "onnx", "--output", str(output), "--opset", "19", *options]
    assert main(command) == 0
    assert f"{output}: (2, 3, 32, 24) float16, pixels 0 to 255, RGB\n" in capsys.readouterr().out
    text = (tmp_path / "face.onnx.md").read_text(encoding="utf-8")
    for line in (
        "A `spherenet` network for face recognition",
        "- `images`: (2, 3, 32, 24) float16, pixels 0 to 255, RGB.",
        "- Batch size: 2.",
        "- Channel order: feed RGB; the network was trained on BGR. The graph converts RGB to BGR.",
        "- Scale: (pixel − 127.5) / 128, inside the graph.",
        "- `embedding`: (2, 32) float32, not normalised.",
        "- Weights and arithmetic: float16.",
        "- ONNX opset 19, IR version 9.",
        "The file joins the embeddings of the crop and of its mirror image",
        "aligned by five landmarks to the template of the training crops",
    ):
        assert line in text


def test_the_card_names_the_template_and_the_limits_of_eight_bits(onnx_file, tmp_path):
    text = onnx_file.with_name("face.onnx.md").read_text(encoding="utf-8")
    for line in (
        "- ONNX opset 17, IR version 8.",
        "- Weights and arithmetic: float32.",
        "`face-int8.onnx` is the same network in 8-bit integers",
        "Measure its accuracy on your pairs",
        "compare a batch with single crops there",
    ):
        assert line in text
    for size, name in (((112, 96), "SphereFace's"), ((112, 112), "ArcFace's")):
        checkpoint = write_checkpoint(tmp_path / f"{size[1]}.pt", input_size=size)
        assert main(["export", str(checkpoint), "--format", "torchscript"]) == 0
        text = (tmp_path / f"{size[1]}.torchscript.md").read_text(encoding="utf-8")
        assert f"aligned by five landmarks to {name} template (`sphereface align --size 112x{size[1]}`)" in text
        assert "ONNX opset" not in text


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_the_mirror_image_inside_torchscript(checkpoint, crops, tmp_path):
    with torch.inference_mode():
        images = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127.5) / 128
        model = load_model(checkpoint).model
        wanted = (model(images) + model(images.flip(3))).numpy()
    output = tmp_path / "face.torchscript"
    command = ["export", str(checkpoint), "--format", "torchscript", "--output", str(output), "--mirror", "add"]
    assert main(command) == 0
    loaded = torch.jit.load(str(output))
    for count in (1, 5):
        assert off(loaded(torch.from_numpy(crops[:count])).detach().numpy(), wanted[:count]) < 1e-5


def test_int8_takes_crops_of_the_networks_size_alone(checkpoint, tmp_path, capsys):
    write_image(tmp_path / "a.png", noise(0, 112, 96))
    assert main(["export", str(checkpoint), "--format", "onnx", "--int8", str(tmp_path)]) == 2
    assert "is 112×96 pixels (height × width) · --int8 needs 32×24" in capsys.readouterr().err
    assert decode((tmp_path / "a.png").read_bytes()).shape == (112, 96, 3)


def test_without_the_extra_a_line_says_what_to_install(checkpoint, monkeypatch, capsys, tmp_path):
    for name, file_format in (("onnx", "onnx"), ("safetensors.torch", "safetensors")):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        output = str(tmp_path / f"face.{file_format}")
        assert main(["export", str(checkpoint), "--format", file_format, "--output", output]) == 2
        assert f"--format: {name} is not installed · pip install" in capsys.readouterr().err


@pytest.mark.parametrize("file_format", ["torchscript", "safetensors"])
def test_an_export_replaces_an_export_and_nothing_else(checkpoint, tmp_path, capsys, file_format):
    if file_format == "safetensors":
        needs("safetensors")
    output = tmp_path / f"face.{file_format}"
    card = tmp_path / f"{output.name}.md"
    command = ["export", str(checkpoint), "--format", file_format, "--output", str(output)]
    for _ in range(2):
        assert main(command) == 0
    for path in (output, card):
        ours = path.read_bytes()
        path.write_bytes(b"of somebody else")
        capsys.readouterr()
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --output: got {path}, a file that this command did not write · allowed")
        assert path.read_bytes() == b"of somebody else"
        path.write_bytes(ours)
    output.unlink()
    assert main(command) == 0  # of an earlier export, only the card is left


def test_an_8_bit_copy_of_an_earlier_export_is_named(onnx_file, checkpoint, tmp_path, capsys):
    copy = tmp_path / "face-int8.onnx"
    command = ["export", str(checkpoint), "--output", str(tmp_path / "face.onnx"), "--format", "onnx"]
    assert main(command) == 0
    assert "face-int8" not in capsys.readouterr().out
    copy.write_bytes(onnx_file.with_name("face-int8.onnx").read_bytes())
    assert main(command) == 0
    assert f"\n{copy}: there already, and not of this export · delete it, or give --int8 DIR" in capsys.readouterr().out
    assert copy.is_file()
    assert main([*command, "--int8", str(onnx_file.parent / "crops")]) == 0
    assert "there already" not in capsys.readouterr().out


def test_onnx_files_are_known_again(onnx_file, checkpoint, capsys):
    both = (onnx_file, onnx_file.with_name("face-int8.onnx"))
    for path in both:
        check_replaceable(path, b"checkpoint_sha256", "--output")
    ours = both[1].read_bytes()
    both[1].write_bytes(b"of somebody else")
    command = ["export", str(checkpoint), "--format", "onnx", "--output", str(onnx_file)]
    assert main([*command, "--int8", str(onnx_file.parent / "crops")]) == 2
    assert f"--output: got {both[1]}, a file that this command did not write" in capsys.readouterr().err
    both[1].write_bytes(ours)


def test_a_network_that_saw_smaller_crops_last_keeps_its_names(checkpoint, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors_open = pytest.importorskip("safetensors").safe_open
    state = load_checkpoint(checkpoint)
    small = {key: value for key, value in state.items() if key not in ("format", "id")} | {"seen_size": [16, 12]}
    save_checkpoint(tmp_path / "small.pt", small, {})
    assert run_command("export", [str(tmp_path / "small.pt"), "--format", "safetensors"]) == 0
    file = tmp_path / "small.safetensors"
    assert safetensors.load_file(file).keys() == state["model"].keys()
    with safetensors_open(str(file), framework="pt") as opened:
        assert json.loads(opened.metadata()["seen_size"]) == [[16, 12]]


@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_a_network_that_cannot_be_traced_is_one_line(checkpoint, tmp_path, monkeypatch, file_format):
    needs("onnx", "onnxscript", "onnxruntime")

    embed, calls = SphereNet.embed, []

    def untraceable(self, images):
        if calls:  # the first call checks the embeddings
            raise RuntimeError("a step that depends on a value\nand a long story")
        calls.append(images)
        return embed(self, images)

    monkeypatch.setattr(SphereNet, "embed", untraceable)
    with pytest.raises(UserError, match="PyTorch cannot trace this network") as caught:
        run_command(
            "export", [str(checkpoint), "--format", file_format, "--output", str(tmp_path / f"x.{file_format}")]
        )
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file_format", ["onnx", "torchscript", "safetensors"])
@pytest.mark.parametrize(("number", "what"), [(0.0, "all zero"), (3e38, "not finite")])
def test_a_network_that_tells_nothing_is_not_exported(checkpoint, tmp_path, capsys, recwarn, file_format, number, what):
    state = {key: value for key, value in load_checkpoint(checkpoint).items() if key not in ("format", "id")}
    state["model"] = {name: torch.full_like(value, number) for name, value in state["model"].items()}
    save_checkpoint(tmp_path / "dead.pt", state, {})
    assert main(["export", str(tmp_path / "dead.pt"), "--format", file_format]) == 2
    assert f"dead.pt: its embeddings of 3 crops are {what} · allowed" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dead.json", "dead.pt"]
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def spoilt(checkpoint, path):
    """A network whose activations exceed float16, so an export in half precision fails its check."""
    state = {key: value for key, value in load_checkpoint(checkpoint).items() if key not in ("format", "id")}
    state["model"] = {
        name: value * (3e5 if ".conv." in name else 1e-5 if name == "fc5.weight" else 1)
        for name, value in state["model"].items()
    }
    save_checkpoint(path, state, {})
    return path


def test_an_export_that_fails_leaves_the_earlier_file_and_its_card(checkpoint, tmp_path, capsys):
    output = tmp_path / "face.torchscript"
    command = ["--format", "torchscript", "--output", str(output)]
    assert main(["export", str(checkpoint), *command]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"face.torchscript", "face.torchscript.md"}
    bad = spoilt(checkpoint, tmp_path / "bad.pt")
    assert main(["export", str(bad), *command, "--dtype", "float16"]) == 2
    error = capsys.readouterr().err
    assert f"error: {output}: gives other embeddings than PyTorch" in error
    assert error.count("\n") == 1
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.stem != "bad"}
    assert after == before


def test_an_8_bit_copy_that_fails_leaves_all_earlier_files(checkpoint, tmp_path, monkeypatch, capsys):
    needs("onnx", "onnxscript", "onnxruntime")
    write_image(tmp_path / "crops" / "a.png", noise(0))
    output = tmp_path / "face.onnx"
    command = with_8_bit_copy(checkpoint, output, tmp_path / "crops")
    assert main(command) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("face*")}
    assert before.keys() == {"face.onnx", "face-int8.onnx", "face.onnx.md"}
    monkeypatch.setattr("sphereface.export.quantise._SAME_ROW", -1.0)
    assert main(["export", str(write_checkpoint(tmp_path / "b.pt", seed=1)), *command[2:]]) == 2
    assert f"error: {tmp_path}/face-int8.onnx: a crop gives other embeddings" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.glob("face*")} == before
    assert not list(tmp_path.glob(".*"))


def test_two_exports_to_one_file_at_once(checkpoint, tmp_path, capsys):
    output = tmp_path / "a.torchscript"
    lock = tmp_path / ".a.torchscript.lck"
    other = subprocess.Popen(
        [sys.executable, "-c", "import sys, pathlib; from sphereface.files import lock_file; "
         "lock = lock_file(pathlib.Path(sys.argv[1])); print(flush=True); sys.stdin.read()", str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with other:
        other.stdout.readline()
        assert main(["export", str(checkpoint), "--format", "torchscript", "--output", str(output)]) == 2
        assert "another process is writing it · wait for it" in capsys.readouterr().err
        assert not output.exists()
        other.stdin.close()
