"""Each publisher's container, imported: the publisher's own embeddings, its input, its head the right way round."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.input_spec import InputSpec
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.models import load_model
from sphereface.models.published import ADAPTERS, InputOverrides, Published, import_published, save_published

from .golden import Golden, golden, images
from .published import (
    arcface_checkpoint,
    behind,
    hugging_face_folder,
    lightning_checkpoint,
    magface_checkpoint,
    optimizer_state,
)

RGB = InputSpec(112, 112, "rgb", (127.5,), (127.5,))
BGR = InputSpec(112, 112, "bgr", (127.5,), (127.5,))
MAGFACE = InputSpec(112, 112, "bgr", (0.0,), (255.0,))

HEAD = torch.arange(7 * 512, dtype=torch.float32).reshape(7, 512)  # (C, D)


@pytest.fixture(autouse=True)
def no_files_are_left(tmp_path):
    """Each of these files has 50 to 200 MB, and pytest keeps those of three runs."""
    yield
    shutil.rmtree(tmp_path)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def safetensors_file(path: Path, state: dict) -> Path:
    return hugging_face_folder(path.parent / "folder", state, color_space=None) / "model.safetensors"


def cvlface_file(path: Path, state: dict, color_space: str) -> Path:
    path.with_suffix(".yaml").write_text(f"input_size: [3, 112, 112]\ncolor_space: {color_space}\nname: ir18\n")
    return saved(path, behind("net.", state))


Write = Callable[[Path, dict], Path]

# golden network, how its publisher saves it, the input as published, whether HEAD is in the file
FORMS: dict[str, tuple[str, Write, InputSpec, bool]] = {
    "arcface backbone.pth": ("arcface_r18", saved, RGB, False),
    "arcface r50": ("arcface_r50", saved, RGB, False),
    "arcface module.": ("arcface_r18", lambda p, s: saved(p, behind("module.", s)), RGB, False),
    "arcface checkpoint_gpu": ("arcface_r18", lambda p, s: arcface_checkpoint(p, s, HEAD), RGB, True),
    "arcface mbf": ("arcface_mbf", saved, RGB, False),
    "adaface": ("adaface_ir18", lambda p, s: lightning_checkpoint(p, s, HEAD.T), BGR, True),
    "adaface r50": ("adaface_ir50", lambda p, s: lightning_checkpoint(p, s, HEAD.T), BGR, True),
    "adaface old": ("adaface_ir18", lambda p, s: lightning_checkpoint(p, s, HEAD.T, age="1.4"), BGR, True),
    "cvlface model.pt": ("adaface_ir18", lambda p, s: cvlface_file(p, s, "RGB"), RGB, False),
    "cvlface model.pt BGR": ("adaface_ir18", lambda p, s: cvlface_file(p, s, "BGR"), BGR, False),
    "cvlface alone": ("adaface_ir18", lambda p, s: saved(p, behind("net.", s)), RGB, False),
    "cvlface arcface": ("arcface_r18", lambda p, s: saved(p, behind("net.", s)), RGB, False),
    "cvlface folder": ("adaface_ir18", lambda p, s: hugging_face_folder(p, s, color_space="RGB"), RGB, False),
    "cvlface folder BGR": ("adaface_ir18", lambda p, s: hugging_face_folder(p, s, color_space="BGR"), BGR, False),
    "cvlface safetensors": ("adaface_ir18", safetensors_file, RGB, False),
    "magface split": ("magface_iresnet18", lambda p, s: magface_checkpoint(p, s, HEAD, split=True), MAGFACE, True),
    "magface whole": ("magface_iresnet18", lambda p, s: magface_checkpoint(p, s, HEAD.T, split=False), MAGFACE, True),
    "opensphere model_N": (
        "opensphere_sfnet20",
        lambda p, s: saved(p, {"backbone": s, "head": {"w": HEAD}}),
        RGB,
        True,
    ),
    "opensphere ckpt_N": (
        "opensphere_sfnet20",
        lambda p, s: saved(
            p, {"step": 9, "model": {"backbone": s, "head": {"w": HEAD.T}}, "optimizer": optimizer_state(s)}
        ),
        RGB,
        True,
    ),
    "opensphere iresnet": (
        "arcface_r18",
        lambda p, s: saved(p, {"backbone": s, "head": {"w": HEAD, "b": torch.zeros(1)}}),
        RGB,
        True,
    ),
    "yakhyo": ("yakhyo_sphere20", saved, RGB, False),
    "yakhyo checkpoint": ("yakhyo_sphere20", lambda p, s: saved(p, {"epoch": 30, "model": s}), RGB, False),
}


def expected(of: Golden) -> torch.Tensor:
    """AdaFace's network returns unit vectors and their lengths."""
    return of.embedding if of.norm is None else of.embedding * of.norm


def tolerance(of: Golden) -> float:
    return 20 * of.float32_error * (1.0 if of.norm is None else float(of.norm.max()))


def embed(published: Published, folder: Path) -> torch.Tensor:
    """The embeddings of the golden input, of the network as a user gets it: imported, saved, loaded."""
    save_published(published, folder / "out.pt", origin="a test")
    with torch.no_grad():
        return load_model(folder / "out.pt").model(images())


def in_their_names(published: Published) -> dict:
    """The weights under the publisher's keys; those that its network lacks must be 0."""
    (row,) = [row for row in ADAPTERS if row.source == published.source]
    theirs = {}
    for key, value in published.weights.items():
        if (name := row.names(key)) is None:
            assert not value.any(), key
        else:
            assert name not in theirs
            theirs[name] = value
    return theirs


@pytest.mark.parametrize("form", FORMS)
def test_every_key_the_input_and_the_head(tmp_path, form):
    name, write, spec, with_head = FORMS[form]
    state = golden(name).state
    published = import_published(write(tmp_path / "weights", state))
    imported = in_their_names(published)
    assert sorted(imported) == sorted(state)
    assert all(torch.equal(imported[key], value) for key, value in state.items())
    assert published.options.input_spec == spec
    about = published.notes[-1].replace(" of one process (--head takes the files of the others)", "")
    assert about == ("head: 7 identities, without their names" if with_head else "no head in the file")
    assert (about != published.notes[-1]) == (form == "arcface checkpoint_gpu")
    assert bool(published.head) == with_head
    if with_head:
        assert torch.equal(published.head["weight"], HEAD)
        MarginHead(512, 7, make_margin("cosface")).load_state_dict(published.head)


@pytest.mark.parametrize(
    "form",
    [
        *("arcface checkpoint_gpu", "arcface mbf", "adaface", "cvlface folder"),
        *("magface split", "opensphere model_N", "yakhyo"),
    ],
)
def test_the_publishers_own_embeddings(tmp_path, form):
    name, write, spec, with_head = FORMS[form]
    of = golden(name)
    published = import_published(write(tmp_path / "weights", of.state))
    torch.testing.assert_close(embed(published, tmp_path), expected(of), rtol=0, atol=tolerance(of))
    loaded = load_model(tmp_path / "out.pt")
    assert (loaded.model.input_spec, loaded.model.embedding_dim) == (spec, 512)
    eps = {layer.eps for layer in loaded.model.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)}
    assert eps <= ({2e-5} if spec == MAGFACE else {1e-5})  # too small a difference for the embeddings to show
    assert load_checkpoint(tmp_path / "out.pt").get("head", {}).keys() == ({"weight"} if with_head else set())


def test_no_code_of_a_folder_is_run_and_no_package_imported(tmp_path):
    lightning_checkpoint(tmp_path / "x.ckpt", golden("adaface_ir18").state, HEAD.T, age="1.4")
    import_published(tmp_path / "x.ckpt")
    folder = hugging_face_folder(tmp_path / "folder", golden("adaface_ir18").state, color_space="RGB")
    import_published(folder)  # its wrapper.py would end the program
    assert not [name for name in sys.modules if name.startswith(("pytorch_lightning", "wrapper"))]


def test_magface_takes_its_eps_and_no_other_publisher_does(tmp_path):
    path = magface_checkpoint(tmp_path / "x", golden("magface_iresnet18").state, HEAD, split=True)
    assert import_published(path).options.batch_norm.eps == 2e-5
    bare = saved(tmp_path / "y", golden("magface_iresnet18").state)
    assert import_published(bare).options.batch_norm.eps is None  # the names are ArcFace's
    told = import_published(bare, publisher="magface")
    assert (told.options.batch_norm.eps, told.options.input_spec) == (2e-5, MAGFACE)


# ---------------------------------------------------------------- the names that several publishers use


def test_bare_ir_names_need_the_publisher(tmp_path):
    path = saved(tmp_path / "x", golden("adaface_ir18").state)
    with pytest.raises(Exception, match="several publishers use · give --publisher adaface or cvlface"):
        import_published(path)
    assert import_published(path, publisher="adaface").options.input_order == "bgr"
    assert import_published(path, publisher="cvlface").options.input_order == "rgb"


def test_opensphere_before_2023_has_two_networks_of_one_naming(tmp_path):
    """Its sfnet20_deprecated adds after the last ReLU of a unit, its sfnet20 before; all keys are the same."""
    of = golden("opensphere_sfnet20")
    path = saved(tmp_path / "backbone_70000.pth", behind("module.", of.state))
    with pytest.raises(Exception, match="give --publisher opensphere or opensphere-deprecated"):
        import_published(path)
    new = import_published(path, publisher="opensphere")
    torch.testing.assert_close(embed(new, tmp_path), of.embedding, rtol=0, atol=tolerance(of))
    old = import_published(path, publisher="opensphere-deprecated")
    assert old.options.name == "spherenet"
    torch.testing.assert_close(embed(old, tmp_path), deprecated_sfnet20(of.state, images()), rtol=0, atol=tolerance(of))


def deprecated_sfnet20(state: dict, x: torch.Tensor) -> torch.Tensor:
    """An independent forward pass: x + relu(conv2(relu(conv1(x))))."""

    def convolved(x: torch.Tensor, key: str, stride: int) -> torch.Tensor:
        return F.relu(F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], stride, 1))

    for stage, units in ((1, 1), (2, 2), (3, 4), (4, 1)):
        x = convolved(x, f"layer{stage}.0.conv1", 2)
        for unit in range(1, units + 1):
            x = x + convolved(convolved(x, f"layer{stage}.{unit}.conv1", 1), f"layer{stage}.{unit}.conv2", 1)
    return F.linear(x.flatten(1), state["fc.weight"], state["fc.bias"])


def test_the_order_that_cvlface_states_twice(tmp_path):
    """Its wrapper takes pretrained_model/model.yaml, whatever config.json says."""
    folder = hugging_face_folder(tmp_path / "x", golden("adaface_ir18").state, color_space="BGR")
    (folder / "pretrained_model").mkdir()
    (folder / "pretrained_model" / "model.yaml").write_text("color_space: RGB\n")
    published = import_published(folder)
    assert published.options.input_order == "rgb"
    assert published.notes[0] == (
        "channel order: RGB, as model.yaml says; config.json says BGR · "
        "compare --order rgb with --order bgr on your own pairs"
    )
    asked = import_published(folder, overrides=InputOverrides(order="bgr"))
    assert (asked.options.input_order, asked.notes) == ("bgr", ("no head in the file",))


def test_a_configuration_of_another_program_beside_the_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"color_space": "BGR"}))
    assert import_published(saved(tmp_path / "x", golden("arcface_r18").state)).options.input_order == "rgb"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("config.json", '{"conf": {"color_space": "BGR"}', "cannot be understood"),
        ("config.json", '{"conf": {"color_space": "BGR "}}', "color_space: got 'BGR ' · allowed: BGR, RGB"),
        ("config.json", '{"conf": {"color_space": "GRAY"}}', "color_space: got 'GRAY' · allowed: BGR, RGB"),
        ("config.json", '{"conf": {"color_space": null}}', "color_space: got None · allowed: BGR, RGB"),
        (
            "config.json",
            json.dumps({"conf": {"color_space": "BGR", "x": "y" * 20_000}}),
            r"cannot be understood \(has more than 16,384 bytes\)",
        ),
        ("config.json", "[]", r"got \[\] · allowed: a mapping"),
        ("config.json", '{"conf": "BGR"}', "got 'BGR' · allowed: a mapping"),
        ("pretrained_model/model.yaml", "color_space: BGR\nsize: !!python/tuple [3, 112]\n", "cannot be understood"),
        ("pretrained_model/model.yaml", "color_space: [BGR\n", "cannot be understood"),
    ],
)
def test_a_configuration_that_cannot_be_understood_is_an_error(tmp_path, name, text, why):
    folder = hugging_face_folder(tmp_path / "x", golden("adaface_ir18").state, color_space="RGB")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    message = f"the channel order is not known: .*{name}: {why}.* · download that file again, or give --order rgb"
    with pytest.raises(BadCheckpoint, match=message):
        import_published(folder)
    assert import_published(folder, overrides=InputOverrides(order="bgr")).options.input_order == "bgr"


def test_a_configuration_that_is_damaged_does_not_concern_other_publishers(tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert import_published(saved(tmp_path / "x", golden("arcface_r18").state)).options.input_order == "rgb"


def test_a_channel_order_that_no_file_states_is_said(tmp_path):
    published = import_published(saved(tmp_path / "x", behind("net.", golden("adaface_ir18").state)))
    assert published.notes[0].startswith(
        "channel order: RGB, because no config.json or model.yaml beside the file states"
    )


def test_the_configuration_of_a_folder_with_a_model_pt(tmp_path):
    """Both files beside it count, and config.json lies one folder above."""
    folder = hugging_face_folder(tmp_path / "x", golden("adaface_ir18").state, color_space="BGR")
    (folder / "pretrained_model").mkdir()
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pretrained_model/model.pt")
    for path in (folder, folder / "pretrained_model/model.pt"):
        assert import_published(path).options.input_order == "bgr"


def test_bare_names_of_an_iresnet_are_said_to_be_those_of_magface_too(tmp_path):
    path = saved(tmp_path / "x", golden("arcface_r18").state)
    note = "its key names are also those of magface, whose networks read another input"
    assert any(line.startswith(note) for line in import_published(path).notes)
    assert not any("magface" in line for line in import_published(path, publisher="arcface").notes)
    whole = arcface_checkpoint(tmp_path / "y", golden("arcface_r18").state, HEAD)
    assert not any("magface" in line for line in import_published(whole).notes)


def test_overrides_of_the_input(tmp_path):
    path = saved(tmp_path / "x", golden("arcface_r18").state)
    asked = InputOverrides(order="bgr", mean=(0.0,), std=(58.4, 57.1, 57.4))
    published = import_published(path, overrides=asked)
    assert published.options.input_spec == InputSpec(112, 112, "bgr", (0.0,), (58.4, 57.1, 57.4))
    save_published(published, tmp_path / "out.pt", origin="a test")
    assert load_model(tmp_path / "out.pt").model.input_spec == published.options.input_spec
    first = load_checkpoint(tmp_path / "out.pt")["model"]["conv1.weight"]
    assert torch.equal(first, golden("arcface_r18").state["conv1.weight"])  # no channel is flipped


def test_the_table():
    assert len({row.source for row in ADAPTERS}) == len(ADAPTERS)
    for row in ADAPTERS:
        assert row.marks
        assert row.prefixes or row.bare
