"""Published weights: the original's own numbers, the port's, and whatever is neither."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.config import ModelConfig
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.models import build_model, load_model
from sphereface.models.released import import_released, save_released

from .published import Port, blob, caffemodel, input_layer, layer, sphere_tensors, write_python2_pth

GOLDEN = (Path(__file__).parents[2] / "../shared/golden/caffemodel").resolve()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def run_imported(path: Path, tmp_path: Path, images: torch.Tensor, **options) -> torch.Tensor:
    """The embeddings of the network as a user gets it: imported, saved, loaded."""
    save_released(import_released(path, **options), tmp_path / "out.pt", origin="a test")
    loaded = load_model(tmp_path / "out.pt")
    with torch.no_grad():
        return loaded.model(images)


# ---------------------------------------------------------------- what is read


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the file that Caffe wrote is not on this machine")
def test_the_original_file_gives_the_original_embeddings(tmp_path):
    path = GOLDEN / "sphere20_narrow.caffemodel"
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as golden:
        fc5 = run_imported(path, tmp_path, torch.from_numpy(golden["input"]))
        np.testing.assert_allclose(fc5.numpy(), golden["fc5"], rtol=0, atol=5e-5)
        widths, dim = tuple(golden["widths"].tolist()), int(golden["embedding_dim"])
    released = import_released(path)
    assert released.model == ModelConfig(depth=20, widths=widths, embedding_dim=dim, input_size=(112, 96))
    assert released.notes == ("no fc6 in the file: no head",)  # the size of the pictures is in the file
    assert released.head == {}


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the file that Caffe wrote is not on this machine")
@pytest.mark.parametrize("length", [1, 100, 20_000, 300_000, 681_065])
def test_the_original_file_cut_off(tmp_path, length):
    data = (GOLDEN / "sphere20_narrow.caffemodel").read_bytes()[:length]
    with pytest.raises(BadCheckpoint, match="truncated, damaged or not a .caffemodel"):
        import_released(write(tmp_path / "x.caffemodel", data))


@pytest.mark.parametrize("kind", ["now", "module", "2017", "parameters"])
def test_the_port_gives_its_own_embeddings(tmp_path, kind):
    torch.manual_seed(1)
    port, path = Port(), tmp_path / "sphere20a.pth"
    state = OrderedDict((name, value.detach().clone()) for name, value in port.state_dict().items())
    if kind == "module":
        torch.save(nn.DataParallel(port).state_dict(), path)
    elif kind == "2017":
        write_python2_pth(path, state)
    elif kind == "parameters":
        torch.save(dict(port.named_parameters()), path, _use_new_zipfile_serialization=False)
    else:
        torch.save(state, path)
    images = torch.rand(2, 3, 112, 96) * 2 - 1
    with torch.no_grad():
        expected = port(images)
    torch.testing.assert_close(run_imported(path, tmp_path, images), expected, rtol=0, atol=1e-6)
    released = import_released(path)
    assert released.model == ModelConfig(depth=20, widths=(4, 6, 8, 10), embedding_dim=12, input_size=(112, 96))
    assert released.notes == (
        "the file does not say the size of its pictures: taken as 112x96",
        "head: 7 identities, without their names",
    )
    assert torch.equal(released.head["weight"], state["fc6.weight"].T)  # a row a class
    MarginHead(12, 7, make_margin("a-softmax")).load_state_dict(released.head)


# convolutions a stage by hand from the paper's table
@pytest.mark.parametrize(
    ("depth", "counts"),
    [(4, (1, 1, 1, 1)), (10, (1, 3, 5, 1)), (20, (3, 5, 9, 3)), (36, (5, 9, 17, 5)), (64, (7, 17, 33, 7))],
)
@pytest.mark.parametrize("how", [{}, {"old": True, "v1": True}, {"old": True, "single": True}])
def test_every_depth_and_every_tensor_in_its_place(tmp_path, depth, counts, how):
    tensors = sphere_tensors(counts)
    released = import_released(write(tmp_path / "x", caffemodel(tensors, **how)))
    assert (released.model.depth, released.model.widths, released.model.embedding_dim) == (depth, (2, 3, 4, 5), 6)
    net = build_model(released.model)
    net.load_state_dict(released.weights)
    layers = dict(net.named_layers())
    for name, values in tensors.items():
        layer_name, kind = name.split(".")
        np.testing.assert_array_equal(getattr(layers[layer_name], kind).detach().numpy(), values)


@pytest.mark.parametrize(
    ("places", "asked", "stated", "size"),
    [
        (42, None, None, (112, 96)),
        (49, None, None, (112, 112)),
        (42, (105, 90), None, (105, 90)),
        (42, None, (100, 82), (100, 82)),
        (42, (112, 96), (100, 82), (112, 96)),
        (4, None, (32, 32), (32, 32)),
        (6, (33, 20), None, (33, 20)),
    ],
)
def test_the_size_of_the_pictures(tmp_path, places, asked, stated, size):
    start = input_layer((1, 3, *stated)) if stated else input_layer((64, 512))  # the latter is no picture
    path = write(tmp_path / "x", caffemodel(sphere_tensors(places=places), start=start))
    released = import_released(path, input_size=asked)
    assert released.model.input_size == size
    assert any("taken as" in note for note in released.notes) == (asked is None and stated is None)
    assert build_model(released.model)(torch.zeros(1, 3, *size)).shape == (1, 6)


def test_doubles_and_halves_become_float32(tmp_path):
    tensors = sphere_tensors()
    from_doubles = import_released(write(tmp_path / "x", caffemodel(tensors, double=True)))
    halves = {name: torch.from_numpy(value).half() for name, value in tensors.items()}
    torch.save(halves, tmp_path / "x.pth")
    from_halves = import_released(tmp_path / "x.pth")
    assert {value.dtype for value in (*from_doubles.weights.values(), *from_halves.weights.values())} == {torch.float32}
    np.testing.assert_array_equal(from_doubles.weights["fc5.weight"].numpy(), tensors["fc5.weight"])
    assert torch.equal(from_halves.weights["fc5.weight"], halves["fc5.weight"].float())


def test_rgb_weights_read_bgr(tmp_path):
    torch.manual_seed(2)
    port = Port()
    torch.save(port.state_dict(), tmp_path / "x.pth")
    images = torch.rand(1, 3, 112, 96)
    with torch.no_grad():
        expected = port(images)
    turned = run_imported(tmp_path / "x.pth", tmp_path, images[:, [2, 1, 0]], rgb=True)
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(turned, run_imported(tmp_path / "x.pth", tmp_path, images[:, [2, 1, 0]]), atol=1e-3)


# ---------------------------------------------------------------- the head


@pytest.mark.parametrize("old", [False, True])
def test_the_head_of_a_caffemodel(tmp_path, old):
    weight = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)  # as many identities as numbers
    tensors = {**sphere_tensors(), "fc6.weight": weight}
    released = import_released(write(tmp_path / "x", caffemodel(tensors, old=old)))
    np.testing.assert_array_equal(released.head["weight"].numpy(), weight)
    assert released.notes[-1] == "head: 6 identities, without their names"
    save_released(released, tmp_path / "x.pt", origin="here")
    assert torch.equal(load_checkpoint(tmp_path / "x.pt")["head"]["weight"], torch.from_numpy(weight))


def test_a_head_with_biases_is_that_of_softmax(tmp_path):
    tensors = {
        **sphere_tensors(),
        "fc6.weight": np.ones((9, 6), np.float32),
        "fc6.bias": np.arange(9, dtype=np.float32),
    }
    released = import_released(write(tmp_path / "x", caffemodel(tensors)))
    MarginHead(6, 9, make_margin("softmax")).load_state_dict(released.head)
    assert released.head["bias"].tolist() == list(range(9))


@pytest.mark.parametrize(
    "head",
    [
        {"fc6.weight": np.ones((9, 5), np.float32)},
        {"fc6.weight": np.ones(6, np.float32)},
        {"fc6.weight": np.full((9, 6), np.nan, np.float32)},
        {"fc6.weight": np.ones((9, 6), np.float32), "fc6.bias": np.ones(8, np.float32)},
    ],
)
def test_a_head_that_does_not_fit_is_left_out_aloud(tmp_path, head):
    released = import_released(write(tmp_path / "x", caffemodel({**sphere_tensors(), **head})))
    assert released.head == {}
    assert released.notes[-1].startswith("fc6 left out: it is no head on 6 numbers (weight (")
    save_released(released, tmp_path / "x.pt", origin="here")
    assert "head" not in load_checkpoint(tmp_path / "x.pt")


def test_what_the_checkpoint_says_of_itself(tmp_path):
    released = import_released(write(tmp_path / "x", caffemodel(sphere_tensors())))
    save_released(released, tmp_path / "x.pt", origin="imported from x")
    meta = load_model(tmp_path / "x.pt").meta
    assert meta["run"] == "imported from x"
    assert "step" not in meta
    assert '"taken as' not in (text := (tmp_path / "x.json").read_text())
    assert "taken as 112x96" in text


# ---------------------------------------------------------------- what is refused


def without(*names: str):
    return lambda tensors: [tensors.pop(name) for name in names]


def shaped(name: str, *shape: int):
    return lambda tensors: tensors.__setitem__(name, np.ones(shape, np.float32))


def holding(name: str, value: float):
    return lambda tensors: tensors[name].flat.__setitem__(3, value)


REFUSED = [
    (without("fc5.weight", "fc5.bias"), r"fc5.weight: missing · allowed: the layers conv1_1 … conv4_\*, relu\*"),
    (without("conv3_1.weight", "conv3_1.bias"), "conv3_1.weight: missing"),
    (without("relu3_5.weight"), r"relu3_5.weight: got nothing · allowed: \(4,\)"),
    (without("conv3_5.weight", "conv3_5.bias"), r"conv3_5.weight: got nothing · allowed: \(4, 4, 3, 3\)"),
    (without("fc5.bias"), r"fc5.bias: got nothing · allowed: \(6,\)"),
    (without("conv4_3.weight", "conv4_3.bias"), r"got stages of 3, 5, 9, 2 convolutions · allowed: 1, 1, 1, 1 \("),
    (shaped("conv2_3.weight", 3, 3, 1, 1), r"conv2_3.weight: got \(3, 3, 1, 1\) · allowed: \(3, 3, 3, 3\)"),
    (shaped("conv1_1.weight", 2, 1, 3, 3), r"conv1_1.weight: got \(2, 1, 3, 3\) · allowed: \(2, 3, 3, 3\)"),
    (shaped("conv1_1.weight", 2, 27), r"conv1_1.weight: got \(2, 27\) · allowed: the layers"),
    (shaped("conv1_1.bias", 2, 1), r"conv1_1.bias: got \(2, 1\) · allowed: \(2,\)"),
    (shaped("relu2_2.weight", 1), r"relu2_2.weight: got \(1,\) · allowed: \(3,\)"),
    (shaped("fc5.weight", 6, 5 * 30), "fc5 reads 30 places of the last map, .* give --input-size HxW"),
    (shaped("fc5.weight", 6, 211), r"112x96 give fc5 210 numbers, its weights are for 211"),
    (shaped("fc5.weight", 1, 210), r"model.embedding_dim: got 1 · allowed: an integer of at least 2"),
    (shaped("bn1_1.weight", 2), "has bn1_1.weight besides, which a Sphere CNN has not"),
    (shaped("conv3_33x.weight", 2), "has conv3_33x.weight besides"),
    (holding("conv3_4.weight", float("nan")), "conv3_4.weight: holds other than finite real numbers"),
    (holding("fc5.weight", float("inf")), "fc5.weight: holds other than finite"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
@pytest.mark.parametrize("kind", ["caffemodel", "pth"])
def test_other_networks_are_refused_in_one_line(tmp_path, kind, change, message):
    tensors, path = sphere_tensors((3, 5, 9, 3)), tmp_path / f"x.{kind}"
    change(tensors)
    if kind == "caffemodel":
        path.write_bytes(caffemodel(tensors))
    else:
        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    with pytest.raises(BadCheckpoint, match=message) as raised:
        import_released(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_third_blob_is_refused(tmp_path):
    tensors = sphere_tensors()
    data = caffemodel(tensors) + layer("bn", [blob(np.ones(3, np.float32))] * 3)
    with pytest.raises(BadCheckpoint, match=r"has bn.2, bn.bias, bn.weight besides"):
        import_released(write(tmp_path / "x", data))


@pytest.mark.parametrize(
    ("asked", "stated", "message"),
    [
        ((112, 112), None, "pictures of 112x112 give fc5 245 numbers, its weights are for 210"),
        (None, (64, 64), "pictures of 64x64 give fc5 80 numbers"),
        (None, (0, 2**50), "give fc5 0 numbers"),
    ],
)
def test_a_size_that_does_not_fit(tmp_path, asked, stated, message):
    start = input_layer((1, 3, *stated)) if stated else b""
    path = write(tmp_path / "x", caffemodel(sphere_tensors(), start=start))
    with pytest.raises(BadCheckpoint, match=message):
        import_released(path, input_size=asked)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive · unpack it first"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"Rar!\x1a\x07", "a rar archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file · allowed: the binary .caffemodel"),
        (b"<!DOCTYPE html>", "a web page in place of the file"),
        (b"\x80\x02garbage", "truncated, damaged or not a .pth"),
        (b"PK\x03\x04garbage", "truncated, damaged or not a .pth"),
        (b"layer {}", "truncated, damaged or not a .caffemodel"),
    ],
)
def test_other_files_are_named(tmp_path, data, message):
    with pytest.raises(BadCheckpoint, match=message):
        import_released(write(tmp_path / "x", data))


def test_a_file_that_cannot_be_read(tmp_path):
    for path, reason in ((tmp_path / "none.pth", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(BadCheckpoint, match=f"cannot be read: {reason}"):
            import_released(path)


# ---------------------------------------------------------------- hostile .pth files


class _Opens:
    """What a pickle that carries code looks like: reading it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("content", ["call", "network"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(tmp_path, content, zipped):
    path, proof = tmp_path / "x.pth", tmp_path / "proof"
    holder = Port() if content == "network" else {"fc5.weight": _Opens(str(proof))}
    torch.save(holder, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadCheckpoint, match=r"refused: holds objects other than tensors, which could run code"):
        import_released(path)
    assert not proof.exists()


def test_a_bare_pickle_that_carries_code(tmp_path):
    proof = tmp_path / "proof"
    with pytest.raises(BadCheckpoint, match="refused|truncated, damaged or not a .pth"):
        import_released(write(tmp_path / "x.pth", pickle.dumps({"fc5.weight": _Opens(str(proof))}, protocol=2)))
    assert not proof.exists()


@pytest.mark.parametrize("state", [{}, [torch.ones(2)], {"epoch": 3, "state": torch.ones(2)}, torch.ones(3)])
def test_other_contents_are_refused(tmp_path, state):
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match="holds no state dict"):
        import_released(tmp_path / "x.pth")


@pytest.mark.parametrize("device", ["meta", "sparse", "int"])
def test_tensors_that_are_no_plain_numbers(tmp_path, device):
    state = {name: torch.from_numpy(value) for name, value in sphere_tensors().items()}
    made = {"meta": lambda t: t.to("meta"), "sparse": lambda t: t.to_sparse(), "int": lambda t: t.to(torch.int32)}
    state["fc5.weight"] = made[device](state["fc5.weight"])
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match="holds no state dict|fc5.weight: holds other than finite real numbers"):
        import_released(tmp_path / "x.pth")


def test_our_own_checkpoint_needs_no_import(tmp_path):
    save_released(import_released(write(tmp_path / "x", caffemodel(sphere_tensors()))), tmp_path / "x.pt", origin="x")
    with pytest.raises(BadCheckpoint, match="a checkpoint of this program already · use it as it is"):
        import_released(tmp_path / "x.pt")


def test_a_few_bytes_that_pose_as_many(tmp_path):
    state = {name: torch.from_numpy(value) for name, value in sphere_tensors().items()}
    state["conv1_1.weight"] = torch.zeros(1).as_strided((10**12, 3, 3, 3), (0, 0, 0, 0))
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match="its tensors claim 108,000,000,00.*more than the file has"):
        import_released(tmp_path / "x.pth")


def test_wide_openers_allocate_nothing(tmp_path):
    """A million channels cost 100 MB in conv1_1 alone, but 36 TB where two such layers meet."""
    tensors = sphere_tensors((3, 5, 9, 3))
    tensors["conv1_1.weight"] = np.zeros((1_000_000, 3, 3, 3), np.float32)
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match=r"conv1_1.bias: got \(2,\) · allowed: \(1000000,\)"):
        import_released(tmp_path / "x.pth")


def test_a_zip_that_unpacks_to_more_than_itself(tmp_path):
    good = io.BytesIO()
    torch.save({"fc5.weight": torch.zeros(1_000_000)}, good)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    with pytest.raises(BadCheckpoint, match=r"refused: would unpack to 4,0.* bytes, more than the file has"):
        import_released(tmp_path / "x.pth")


def test_an_old_file_that_declares_more_than_it_has(tmp_path):
    state = {"fc5.weight": torch.ones(3)}
    with pytest.raises(BadCheckpoint, match="truncated, damaged or not a .pth"):
        import_released(write_python2_pth(tmp_path / "x.pth", state, numel=2**44))


def test_a_pth_cut_off_anywhere(tmp_path):
    torch.save({name: torch.from_numpy(value) for name, value in sphere_tensors().items()}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    old = write_python2_pth(tmp_path / "y", {n: torch.from_numpy(v) for n, v in sphere_tensors().items()}).read_bytes()
    for whole in (data, old):  # cut within the name of a function, it is one that is not allowed
        for length in range(8, len(whole), len(whole) // 40):
            with pytest.raises(BadCheckpoint, match="truncated, damaged or not a .pth|refused: holds objects"):
                import_released(write(tmp_path / "z.pth", whole[:length]))
