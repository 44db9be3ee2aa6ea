"""Somebody else's ONNX file and the table of its embeddings: LFW, suite, IJB and compare, as the docs show."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest

from eval_lfw import main

from ..models.onnx_files import by_formula, crops_of, write_onnx

SIZE = (112, 112)
SPEC = {"order": "rgb", "mean": 127.5, "std": 127.5}  # --spec arcface


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A foreign network; crops as LFW, as two .bin files and as IJB; the network's embeddings by plain numpy."""
    folder = tmp_path_factory.mktemp("foreign")
    write_onnx(folder / "foreign.onnx", size=SIZE, dim=16)
    write_onnx(folder / "other.onnx", size=SIZE, dim=16, seed=1)
    rng = np.random.default_rng(0)
    people = [crops_of(1, SIZE, seed=person)[0] for person in range(24)]
    images = {}
    for person, face in enumerate(people):
        for number in (1, 2, 3, 4):
            mixed = (0.35 * face + 0.65 * rng.integers(0, 256, face.shape)).astype(np.uint8)
            images[f"P{person}/P{person}_{number:04d}.png"] = mixed
    for name, image in images.items():
        (folder / "crops" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "crops" / name), image)
    lines = ["2\t12"]
    for fold in (0, 12):
        lines += [f"P{p}\t1\t2" for p in range(fold, fold + 12)]
        lines += [f"P{p}\t3\tP{fold + (p + 1 - fold) % 12}\t4" for p in range(fold, fold + 12)]
    (folder / "crops" / "pairs.txt").write_text("\n".join(lines), encoding="utf-8")
    for number, name in enumerate(("lfw", "cfp_fp")):
        names = rng.permutation(sorted(images))[:80]
        encoded = [cv2.imencode(".png", images[image])[1].tobytes() for image in names]
        same = [a.split("/")[0] == b.split("/")[0] for a, b in zip(names[::2], names[1::2], strict=True)]
        same[number] = True
        (folder / "bins").mkdir(exist_ok=True)
        (folder / "bins" / f"{name}.bin").write_bytes(pickle.dumps((encoded, same), 4))
    write_ijb(folder, sorted(images))
    stacked = np.stack([images[name] for name in sorted(images)])
    np.savez(
        folder / "mine.npz",
        names=np.array(sorted(images)),
        embeddings=by_formula(stacked, **SPEC, dim=16),
        mirror=by_formula(stacked[:, :, ::-1], **SPEC, dim=16),
    )
    return folder


def write_ijb(folder, names):
    """Templates of two images; the first two images of a person and the others."""
    ijb = folder / "ijb"
    ijb.mkdir()
    person = [int(name.split("/")[0][1:]) for name in names]
    template = [2 * who + 1 + (int(name[-5]) > 2) for who, name in zip(person, names, strict=True)]
    media = "".join(f"{name} {t} {k}\n" for k, (name, t) in enumerate(zip(names, template, strict=True)))
    (ijb / "ijbb_face_tid_mid.txt").write_text(media, encoding="utf-8")
    pairs = "".join(f"{2 * a + 1} {2 * b + 2} {int(a == b)}\n" for a in range(24) for b in range(24))
    (ijb / "ijbb_template_pair_label.txt").write_text(pairs, encoding="utf-8")


def run(work, out, *options, code=0):
    assert main([str(option) for option in (*options, "--output", out)]) == code


SOURCE = {"input", "output", "notes", "table", "mirror_inside", "embedded_by_checkpoint", "set_digest"}


def figures(path):
    """Everything but where the embeddings come from. A table has no images for a digest."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return {key: found[key] for key in found.keys() - SOURCE if "onnx" not in key and "embeddings" not in key}


def nearly(a, b):
    """The same figures, up to the rounding of float32."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(nearly(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(nearly, a, b))
    return a == pytest.approx(b, abs=2e-4) if isinstance(a, float) and isinstance(b, float) else a == b


LFW = ["--lfw", "{work}/crops", "--pairs", "{work}/crops/pairs.txt"]


@pytest.mark.parametrize(
    ("what", "file"), [(LFW, "verification.json"), (["--ijb", "{work}/ijb,{work}/crops"], "ijb/result.json")]
)
def test_the_file_and_its_table_give_the_same_figures(work, tmp_path, what, file):
    options = [option.format(work=work) for option in what]
    run(work, tmp_path / "onnx", "--onnx", work / "foreign.onnx", "--spec", "arcface", *options)
    run(work, tmp_path / "table", "--embeddings", work / "mine.npz", "--mirror", "add", *options)
    a, b = figures(tmp_path / "onnx" / file), figures(tmp_path / "table" / file)
    assert nearly(a, b)
    assert (a["mirror"] if "mirror" in a else a["mode"]) in ("add", "N1D0F2")


def test_suite(work, tmp_path, capsys):
    run(work, tmp_path, "--onnx", work / "foreign.onnx", "--spec", "arcface", "--suite", work / "bins", "--html")
    assert "mean of all 2" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "suite.json").read_text(encoding="utf-8"))["sets"]) == ["lfw", "cfp_fp"]
    assert (tmp_path / "report.html").is_file()


def test_a_table_of_several_bins_goes_through_the_suite(work, tmp_path):
    """NAME/ before the six digits says which .bin an embedding is of."""
    rows = {}
    for name in ("lfw", "cfp_fp"):
        encoded, _ = pickle.loads((work / "bins" / f"{name}.bin").read_bytes())
        images = np.stack([cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in encoded])
        own = by_formula(images, **SPEC, dim=16), by_formula(images[:, :, ::-1], **SPEC, dim=16)
        rows |= {f"{name}/{k:06d}": pair for k, pair in enumerate(zip(*own, strict=True))}
    image, mirror = (np.stack(part) for part in zip(*rows.values(), strict=True))
    np.savez(tmp_path / "bins.npz", names=np.array(list(rows)), embeddings=image, mirror=mirror)
    run(work, tmp_path / "t", "--embeddings", tmp_path / "bins.npz", "--mirror", "add", "--suite", work / "bins")
    run(work, tmp_path / "o", "--onnx", work / "foreign.onnx", "--spec", "arcface", "--suite", work / "bins")
    table, onnx = (figures(tmp_path / way / "suite.json") for way in "to")
    assert nearly(table, onnx)
    assert 0 < table["sets"]["lfw"]["accuracy"] <= 1


def test_compare_a_file_with_a_table(work, tmp_path, capsys):
    sets = [option.format(work=work) for option in LFW]
    base = ["--spec", "arcface", *sets]
    run(work, tmp_path, "--compare", work / "foreign.onnx", work / "mine.npz", *base)
    printed = capsys.readouterr().out  # the table's mirror images are joined, as in this project
    assert "A: embeddings of image and mirror image, added\nB: embeddings of image and mirror image, joined" in printed
    base += ["--mirror", "add"]
    run(work, tmp_path, "--compare", work / "foreign.onnx", work / "mine.npz", *base)
    assert "noise" in (printed := capsys.readouterr().out)
    assert "added" not in printed
    outcome = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert outcome["accuracy_a"] == outcome["accuracy_b"]
    run(work, tmp_path, "--compare", work / "other.onnx", work / "mine.npz", *base)
    assert json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))["only_a"] > 0


def test_calibration_lies_beside_the_table(work, tmp_path):
    chosen = [(a, b) for a in range(24) for b in range(24) if a == b or (a + b) % 3 == 0]
    lines = [
        f"P{a}/P{a}_{i:04d}.png P{b}/P{b}_{j:04d}.png {int(a == b)}" for a, b in chosen for i, j in ((1, 2), (3, 4))
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    run(work, tmp_path / "out", "--embeddings", work / "mine.npz", "--calibrate", "--pairs", tmp_path / "list.txt")
    calibration = json.loads((work / "mine.npz.calibration.json").read_text(encoding="utf-8"))
    assert calibration["slope"] > 0
