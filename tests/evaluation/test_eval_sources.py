"""One network as a checkpoint, as ONNX files and as tables: the same figures from each, in every protocol."""

import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eval_lfw import main
from sphereface.cli import main as console
from sphereface.data.pairs import read_pairs
from sphereface.evaluation import calibration
from sphereface.evaluation import embedder as embedder_module
from sphereface.evaluation.embed import embed_files
from sphereface.models import load_model

from .checkpoints import write_checkpoint
from .crops import noise, write_image, write_set

SIZE = (32, 24)
PLAIN = ["--order", "bgr", "--mean", "127.5", "--std", "128"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a tiny network, its ONNX files, its tables, and a set of crops."""
    pytest.importorskip("onnx", reason="pip install '.[export]'")
    pytest.importorskip("onnxruntime", reason="pip install '.[export]'")
    folder = tmp_path_factory.mktemp("sources")
    crops = write_set(folder / "crops", people=36)
    for number, file in enumerate(sorted(crops.rglob("*.jpg"))):  # so much noise that pairs are hard to tell apart
        face = noise(int(file.parent.name[1:]), *SIZE).astype(np.float64)
        write_image(file, (0.3 * face + 0.7 * noise(100 + number, *SIZE)).astype(np.uint8))
    write_image(crops / "Alone" / "Alone_0001.jpg", noise(99, *SIZE))  # of a person to be unknown
    checkpoint = write_checkpoint(folder / "best.pt", input_size=SIZE)
    write_checkpoint(folder / "other.pt", input_size=SIZE, seed=1)
    model = load_model(checkpoint).model.eval()
    torch.onnx.export(
        model, (torch.zeros(2, 3, *SIZE),), folder / "plain.onnx", input_names=["x"], output_names=["y"],
        dynamo=True, external_data=False, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    for name, options in {
        "own": [],
        "own1": ["--batch", "1", "--layout", "nchw", "--dtype", "float32", "--order", "rgb"],
        "joined": ["--mirror", "join"],
    }.items():
        argv = ["export", str(checkpoint), "--format", "onnx", "--output", str(folder / f"{name}.onnx"), *options]
        assert console(argv) == 0
    files = sorted(crops.rglob("*.jpg"))
    features = embed_files(model, files, device="cpu", flip=True)
    image, mirror = np.split(features, 2, axis=1)
    names = np.array([str(file.relative_to(crops)) for file in files])
    np.savez(folder / "table.npz", names=names, embeddings=image, mirror=mirror)
    np.savez(folder / "alone.npz", names=names, embeddings=image.astype(np.float64))
    return folder


def evaluate(work, out, *options, pairs="pairs.txt", code=0):
    argv = [*options, "--lfw", work / "crops", "--pairs", work / "crops" / pairs, "--output", out]
    assert main([str(part) for part in argv]) == code
    return json.loads((out / "verification.json").read_text(encoding="utf-8")) if code == 0 else None


def by_hand(work, mirror):
    """Fold accuracies and scores of the LFW protocol, in plain float64 from the network's own embeddings."""
    model = load_model(work / "best.pt").model
    pairs = read_pairs(work / "crops" / "pairs.txt")
    files = [work / "crops" / name for name in pairs.names]
    image, flipped = np.split(embed_files(model, files, device="cpu", flip=True).astype(np.float64), 2, axis=1)
    features = {"join": np.hstack([image, flipped]), "add": image + flipped, "none": image}[mirror]
    accuracies = []
    for fold in (1, 2):
        test, train = pairs.fold == fold, pairs.fold != fold
        used = np.concatenate([pairs.left[train], pairs.right[train]])
        centred = features - features[used].mean(axis=0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        scores = (centred[pairs.left] * centred[pairs.right]).sum(axis=1)
        limits = np.arange(-10000, 10001) / 10000
        right = np.mean((scores[train] > limits[:, None]) == pairs.same[train], axis=1)
        best = limits[np.flatnonzero(right == right.max())].mean()
        accuracies.append(np.mean((scores[test] > best) == pairs.same[test]))
    return accuracies


SOURCES = {
    "best.pt": [],
    "own.onnx": [],
    "own1.onnx": [],
    "plain.onnx": PLAIN,
    "table.npz": [],
}


def option_of(name):
    return {".pt": "--ckpt", ".onnx": "--onnx", ".npz": "--embeddings"}[Path(name).suffix]


@pytest.mark.parametrize("mirror", ["join", "add", "none"])
def test_every_source_gives_the_same_figures(work, tmp_path, capsys, mirror):
    results = {}
    for name, options in SOURCES.items():
        results[name] = evaluate(work, tmp_path / name, option_of(name), work / name, *options, "--mirror", mirror)
    alone = evaluate(work, tmp_path / "alone", "--embeddings", work / "alone.npz") if mirror == "none" else None
    wanted = results.pop("best.pt")
    assert [fold["accuracy"] for fold in wanted["folds"]] == pytest.approx(by_hand(work, mirror), abs=1e-12)
    for name, result in {**results, **({"alone": alone} if alone else {})}.items():
        assert [fold["accuracy"] for fold in result["folds"]] == [fold["accuracy"] for fold in wanted["folds"]], name
        assert result["auc"] == pytest.approx(wanted["auc"], abs=1e-4)
        assert result["d_prime"] == pytest.approx(wanted["d_prime"], rel=1e-3)
        assert (result["mirror"], result["flip"]) == (mirror, mirror != "none")


def test_a_file_with_the_mirror_image_inside_gives_what_joining_gives(work, tmp_path, capsys):
    wanted = evaluate(work, tmp_path / "a", "--ckpt", work / "best.pt")
    inside = evaluate(work, tmp_path / "b", "--onnx", work / "joined.onnx")
    assert inside["folds"] == [
        {**fold, "threshold": pytest.approx(fold["threshold"], abs=2e-4)} for fold in wanted["folds"]
    ]
    assert (inside["mirror"], inside["mirror_inside"]) == ("none", "join")
    said = capsys.readouterr().out
    assert said.count("embeddings of image and mirror image, joined\n") == 1
    assert said.count("embeddings of image and mirror image, joined by the network itself\n") == 1


def test_no_flip_is_mirror_none(work, tmp_path, capsys):
    for name in ("best.pt", "table.npz", "own.onnx"):
        result = evaluate(work, tmp_path / name, option_of(name), work / name, "--no-flip")
        assert result["mirror"] == "none"


def test_the_result_says_where_it_comes_from(work, tmp_path, capsys):
    own = evaluate(work, tmp_path / "own", "--onnx", work / "own1.onnx")
    assert own["onnx"] == str(work / "own1.onnx")
    assert own["onnx_sha256"] == hashlib.sha256((work / "own1.onnx").read_bytes()).hexdigest()
    assert own["input"] == "(1, 3, 32, 24) float32 = pixel, RGB"
    plain = evaluate(work, tmp_path / "plain", "--onnx", work / "plain.onnx", *PLAIN)
    assert (plain["input"], plain["output"]) == ("(B, 3, 32, 24) float32 = (pixel − 127.5) / 128, BGR", "y")
    table = evaluate(work, tmp_path / "table", "--embeddings", work / "table.npz")
    assert (table["embeddings"], table["table"]) == (str(work / "table.npz"), "145 embeddings of 16 numbers, float32")
    assert table["images"] == str(work / "crops")


def test_results_and_calibration_go_beside_the_file(work, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "_SURE", -10)
    place = ["--lfw", str(work / "crops"), "--pairs", str(work / "crops" / "pairs.txt")]
    told = {}
    for name in ("best.pt", "own.onnx", "table.npz"):
        assert main([option_of(name), str(work / name), *place, "--calibrate"]) == 0
        beside = "best.calibration.json" if name == "best.pt" else f"{name}.calibration.json"
        told[name] = json.loads((work / beside).read_text(encoding="utf-8"))
        assert (work / "eval-pairs" / "verification.json").is_file()
    assert told["own.onnx"]["slope"] == pytest.approx(told["best.pt"]["slope"], rel=1e-3)
    assert told["table.npz"]["offset"] == pytest.approx(told["best.pt"]["offset"], rel=1e-3)
    assert len({each["checkpoint_sha256"] for each in told.values()}) == 3


def test_results_of_another_file_that_are_replaced_are_named(work, tmp_path, capsys):
    def said(name):
        evaluate(work, tmp_path / "out", option_of(name), work / name)
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("replaced")]

    line = "replaced: results of another file, {!r} · --output DIR keeps both"
    assert (said("best.pt"), said("best.pt")) == ([], [])
    assert said("other.pt") == [line.format(str(work / "best.pt"))]
    assert said("own.onnx") == [line.format(str(work / "other.pt"))]
    assert said("table.npz") == [line.format(str(work / "own.onnx"))]
    assert said("table.npz") == []


def test_a_replaced_calibration_is_named(work, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "_SURE", -10)
    shutil.copy(work / "table.npz", tmp_path / "t.npz")
    before = None
    for mirror, replaced in (("join", 0), ("join", 0), ("none", 1)):
        capsys.readouterr()
        evaluate(work, tmp_path / "out", "--embeddings", tmp_path / "t.npz", "--calibrate", "--mirror", mirror)
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("replaced: a calibration")]
        assert len(lines) == replaced
        if replaced:
            point = next((p for p in before["thresholds"][::-1] if p["tar"] >= 0.9), before["thresholds"][0])
            assert lines[0].endswith(f"with threshold {point['threshold']:.4f} at FAR {point['far']:g}")
            assert f"learnt from {work / 'crops' / 'pairs.txt'}, " in lines[0]
        before = json.loads((tmp_path / "t.npz.calibration.json").read_text(encoding="utf-8"))


def test_files_of_one_name_have_calibrations_of_their_own(work, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "_SURE", -10)  # networks that were not trained know nothing
    for name, source in (("best.pt", "best.pt"), ("best.onnx", "own.onnx"), ("best.npz", "table.npz")):
        (tmp_path / name).write_bytes((work / source).read_bytes())
    (tmp_path / "best.json").write_bytes((work / "best.json").read_bytes())
    place = ["--lfw", str(work / "crops"), "--pairs", str(work / "crops" / "pairs.txt")]
    for name, mirror in (("best.pt", "join"), ("best.onnx", "none"), ("best.npz", "add")):
        assert main([option_of(name), str(tmp_path / name), *place, "--calibrate", "--mirror", mirror]) == 0
        beside = "best.calibration.json" if name == "best.pt" else f"{name}.calibration.json"
        assert f"written: {tmp_path / beside}\n" in capsys.readouterr().out
    for beside, name, mirror in (
        ("best.calibration.json", "best.pt", "join"),
        ("best.onnx.calibration.json", "best.onnx", "none"),
        ("best.npz.calibration.json", "best.npz", "add"),
    ):
        found = json.loads((tmp_path / beside).read_text(encoding="utf-8"))
        assert found["checkpoint_sha256"] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert (found["mirror"], found["flip"]) == (mirror, mirror != "none")


def test_a_table_of_one_bin_answers_for_no_other(work, tmp_path, capsys):
    bins = tmp_path / "bins"
    bins.mkdir()
    lfw, agedb = write_bin(work, bins / "lfw.bin"), write_bin(work, bins / "agedb_30.bin")
    argv = ["embed", str(lfw), str(tmp_path / "lfw.npz"), "--ckpt", str(work / "best.pt"), "--aligned"]
    assert console([*argv, "--device", "cpu"]) == 0
    evaluation = ["--embeddings", str(tmp_path / "lfw.npz"), "--output", str(tmp_path / "out")]
    assert main([*evaluation, "--pairs", str(lfw)]) == 0
    capsys.readouterr()
    for place in (["--suite", str(bins)], ["--pairs", str(agedb)], ["--sets", f"a={agedb}"]):
        assert main([*evaluation, *place]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path / 'lfw.npz'}: got agedb_30.bin for a")
        assert " · allowed: lfw.bin, the root of the table · embed agedb_30.bin, or for a table" in line
    with np.load(tmp_path / "lfw.npz") as table:
        np.savez(tmp_path / "lfw.npz", names=table["names"], embeddings=table["embeddings"])
    assert main([*evaluation, "--suite", str(bins)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("put agedb_30/ before the names, as in agedb_30/000000") or "put lfw/ before" in line


def test_a_table_needs_no_images_on_disk(work, tmp_path, capsys):
    for pairs in ("pairs.txt", "pairsDevTest.txt"):
        wanted = evaluate(work, tmp_path / "a", "--ckpt", work / "best.pt", pairs=pairs)
        argv = ["--embeddings", work / "table.npz", "--lfw", "nowhere", "--pairs", work / "crops" / pairs]
        assert main([str(part) for part in (*argv, "--output", tmp_path / "b")]) == 0
        found = json.loads((tmp_path / "b" / "verification.json").read_text(encoding="utf-8"))
        assert found["accuracy"] == wanted["accuracy"]


def write_bin(work, path):
    """A .bin of the first fold's pairs of one person and others, ten folds."""
    pairs = read_pairs(work / "crops" / "pairs.txt")
    sides = np.stack([pairs.left, pairs.right], axis=1).ravel()
    encoded = [(work / "crops" / pairs.names[row]).read_bytes() for row in sides]
    path.write_bytes(pickle.dumps((encoded, pairs.same.tolist()), protocol=2))
    return path


def test_embed_writes_the_table_of_folders_lists_and_bins(work, tmp_path, capsys):
    lfw, cfp = write_bin(work, tmp_path / "lfw.bin"), write_bin(work, tmp_path / "cfp.bin")
    sets = [f"lfw={lfw}", f"cfp={cfp}", f"own={work / 'crops'}"]
    assert main(["--ckpt", str(work / "best.pt"), "--sets", *sets, "--output", str(tmp_path / "ckpt")]) == 0
    ckpt = ["--ckpt", str(work / "best.pt"), "--aligned", "--device", "cpu"]
    parts = {"": work / "crops", "lfw/": lfw, "cfp/": cfp}
    joined = {"names": [], "embeddings": [], "mirror": []}
    for prefix, place in parts.items():
        assert console(["embed", str(place), str(tmp_path / "part.npz"), *ckpt]) == 0
        with np.load(tmp_path / "part.npz", allow_pickle=False) as part:
            joined["names"] += [prefix + name for name in part["names"].tolist()]
            joined["embeddings"].append(part["embeddings"])
            joined["mirror"].append(part["mirror"])
    np.savez(tmp_path / "mine.npz", weights=np.ones(3))
    assert console(["embed", str(lfw), str(tmp_path / "mine.npz"), *ckpt]) == 2
    assert "mine.npz, a file that this command did not write · allowed: a new name" in capsys.readouterr().err
    arrays = {key: np.concatenate(value) for key, value in joined.items() if key != "names"}
    np.savez(tmp_path / "all.npz", names=np.array(joined["names"]), **arrays)
    assert joined["names"][:2] == ["Alone/Alone_0001.jpg", "P0/P0_0001.jpg"]
    assert "lfw/000000" in joined["names"]
    argv = ["--embeddings", str(tmp_path / "all.npz"), "--sets", *sets, "--output", str(tmp_path / "table")]
    assert main(argv) == 0
    for name in ("lfw", "cfp", "own"):
        wanted, found = (
            json.loads((tmp_path / place / name / "verification.json").read_text(encoding="utf-8"))
            for place in ("ckpt", "table")
        )
        assert found["accuracy"] == wanted["accuracy"]
        assert found["auc"] == pytest.approx(wanted["auc"], abs=1e-4)


def test_identification_and_all_pairs_of_every_source(work, tmp_path, capsys):
    results = {}
    for name in ("best.pt", "own.onnx", "table.npz"):
        more = ["--identification", "--all-pairs", "--html"]
        results[name] = evaluate(work, tmp_path / name, option_of(name), work / name, *more)
        assert (tmp_path / name / "report.html").is_file()
    wanted = results.pop("best.pt")
    for result in results.values():
        assert result["identification"]["num_probes"] == wanted["identification"]["num_probes"] == 108
        assert result["all_pairs"]["num_impostor"] == wanted["all_pairs"]["num_impostor"]


def test_compare_tells_files_apart_by_content_and_name(work, tmp_path, capsys):
    place = ["--lfw", str(work / "crops"), "--pairs", str(work / "crops" / "pairs.txt")]
    (tmp_path / "renamed.pt").write_bytes((work / "table.npz").read_bytes())
    (tmp_path / "renamed.npz").write_bytes((work / "best.pt").read_bytes())
    for a, b, options in (
        (work / "best.pt", work / "own.onnx", []),
        (work / "plain.onnx", work / "table.npz", PLAIN),
        (tmp_path / "renamed.npz", tmp_path / "renamed.pt", []),
    ):
        assert main(["--compare", str(a), str(b), *place, *options]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"A {a}\nB {b}\n")
        assert re.search(r"0\.00|\+0\.0", printed)
    assert main(["--compare", str(work / "other.pt"), str(work / "own.onnx"), *place]) == 0


def test_the_cache_of_an_onnx_file_depends_on_what_it_is_fed(work, tmp_path, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr(
        embedder_module,
        "embed_files",
        lambda model, files, **o: calls.append(len(files)) or embed_files(model, files, **o),
    )
    path = tmp_path / "plain.onnx"
    path.write_bytes((work / "plain.onnx").read_bytes())
    first = evaluate(work, tmp_path / "a", "--onnx", path, *PLAIN)
    other = evaluate(work, tmp_path / "b", "--onnx", path, "--order", "rgb", "--mean", "127.5", "--std", "128")
    assert first["auc"] != other["auc"]
    evaluate(work, tmp_path / "c", "--onnx", path, *PLAIN, "--mirror", "add")  # joins or adds what is kept
    assert calls == [144, 144]
    evaluate(work, tmp_path / "d", "--onnx", path, *PLAIN, "--no-cache")
    evaluate(work, tmp_path / "e", "--onnx", path, *PLAIN, "--mean", "127")
    assert calls == [144] * 4


def test_embeddings_that_are_not_finite_are_counted(work, tmp_path, capsys):
    with np.load(work / "table.npz") as file:
        arrays = dict(file)
    arrays["embeddings"][3, 0], arrays["mirror"][5] = np.nan, np.inf
    np.savez(tmp_path / "nan.npz", **arrays)
    result = evaluate(work, tmp_path / "out", "--embeddings", tmp_path / "nan.npz")
    assert result["num_undefined_embeddings"] == 2


@pytest.mark.parametrize("broken", [0, 1, 3, 5])
def test_a_calibration_names_the_images_without_a_usable_embedding(work, tmp_path, capsys, monkeypatch, broken):
    monkeypatch.setattr(calibration, "_SURE", -10)
    with np.load(work / "table.npz") as file:
        arrays = dict(file)
    names = sorted(name for name in arrays["names"].tolist() if not name.startswith("Alone"))[:broken]
    arrays["embeddings"][np.isin(arrays["names"], names)] = np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    evaluate(work, tmp_path / "out", "--embeddings", tmp_path / "nan.npz", "--calibrate")
    note = re.search(
        r"^note: --calibrate: (\d+) of \d+ images have .* finite: (.*) · .*$", capsys.readouterr().err, re.M
    )
    if not broken:
        assert note is None
        return
    assert int(note[1]) == broken
    assert note[2].split(", ") == [*names[:3], *["…"] * (broken > 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ckpt", "best.pt", "--spec", "arcface"], "--spec: got --ckpt · allowed: with --onnx · omit --spec"),
        (["--ckpt", "best.pt", "--size", "32x24"], "--size: got --ckpt · allowed: with --onnx"),
        (["--ckpt", "best.pt", "--layout", "nchw"], "--layout: got --ckpt · allowed: with --onnx"),
        (["--ckpt", "best.pt", "--order", "rgb"], "--order: got --ckpt · allowed: with --onnx"),
        (["--embeddings", "table.npz", "--mean", "0"], "--mean: got --embeddings · allowed: with --onnx"),
        (["--embeddings", "table.npz", "--std", "1"], "--std: got --embeddings · allowed: with --onnx"),
        (["--embeddings", "table.npz", "--input", "x"], "--input: got --embeddings · allowed: with --onnx"),
        (["--embeddings", "table.npz", "--output-name", "y"], "--output-name: got --embeddings · allowed: with --onnx"),
        (["--embeddings", "table.npz", "--device", "cpu"], "--device: got --embeddings · allowed: with --ckpt or"),
        (["--embeddings", "table.npz", "--batch-size", "4"], "--batch-size: got --embeddings · allowed: with"),
        (["--embeddings", "table.npz", "--no-cache"], "--no-cache: got --embeddings · allowed: with --ckpt or"),
        (["--onnx", "own.onnx", "--precision", "bf16"], "--precision: got --onnx · allowed: with --ckpt"),
        (["--compare", "best.pt", "table.npz", "--spec", "sface"], "--spec: got these two files · allowed: with"),
        (["--onnx", "own.onnx", "--batch-size", "0"], "--batch-size: got 0 · allowed: 1 or more"),
        (["--onnx", "own.onnx", "--spec", "sface"], "own.onnx: --spec: got sface · exports of sphereface state their"),
        (["--onnx", "own1.onnx", "--order", "bgr"], "own1.onnx: --order: got bgr · the file reads rgb, (1, 3, 32"),
        (["--onnx", "own1.onnx", "--mean", "127.5"], "own1.onnx: --mean: got 127.5 · the file is an export of"),
        (["--onnx", "joined.onnx", "--mirror", "add"], "joined.onnx: --mirror: got add · the file embeds the mirror"),
        (["--onnx", "plain.onnx"], "plain.onnx: does not state how it reads pixels: --order, --mean, --std missing"),
        (["--onnx", "plain.onnx", "--spec", "arcface"], "plain.onnx: --spec arcface: reads 112x112 · the file reads"),
        (["--onnx", "plain.onnx", "--size", "32"], "--size: got '32' · allowed: height x width in pixels"),
        (["--onnx", "plain.onnx", "--mean", "a"], "--mean: got 'a' · allowed: one number, or three separated"),
        (["--onnx", "plain.onnx", "--std", "0"], "--std: got '0' · allowed: one number above 0, or three"),
        (["--onnx", "plain.onnx", "--std", "nan"], "--std: got 'nan' · allowed: one number above 0"),
        (["--onnx", "table.npz", "--spec", "sface"], "table.npz: not an ONNX file, or a damaged one"),
        (["--onnx", "none.onnx"], "none.onnx: no such ONNX file"),
        (["--embeddings", "plain.onnx"], "plain.onnx: not a .npz file, which is a zip archive · allowed: names (N,)"),
        (["--embeddings", "best.pt"], "best.pt: has no array names · allowed: names (N,) text"),
        (["--embeddings", "none.npz"], "none.npz: cannot be read (No such file or directory) · expected a table"),
        (["--embeddings", "alone.npz", "--mirror", "join"], "alone.npz: --mirror: got join · the table has no array"),
        (["--embeddings", "few.npz"], "few.npz: has no embedding for 143 of the 144 images of crops: P0/P0_0002"),
        (["--onnx", "own.onnx", "--device", "mps"], "--device: "),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_exit_code_2(work, monkeypatch, capsys, options, message):
    monkeypatch.chdir(work)
    np.savez("few.npz", names=np.array(["P0/P0_0001.jpg"]), embeddings=np.ones((1, 3), np.float32))
    assert main([*options, "--lfw", "crops", "--pairs", "crops/pairs.txt", "--output", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_one_source_is_needed_and_only_one(work, capsys):
    for options in ([], ["--ckpt", "a.pt", "--onnx", "b.onnx"], ["--embeddings", "a.npz", "--compare", "a", "b"]):
        with pytest.raises(SystemExit, match="2"):
            main(options)
