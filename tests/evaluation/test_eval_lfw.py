import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from eval_lfw import main
from sphereface.evaluation import Embedder, evaluate, load_pair_set
from sphereface.models import load_model

from .checkpoints import write_checkpoint
from .crops import noise, write_image, write_set

PROGRAM = Path(__file__).parent.parent.parent / "eval_lfw.py"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a tiny network's checkpoint and a set of images."""
    folder = tmp_path_factory.mktemp("work")
    write_checkpoint(folder / "run" / "best.pt")
    write_checkpoint(folder / "other" / "best.pt", seed=1)
    write_set(folder / "crops")
    return folder


def arguments(work, *more, pairs="pairs.txt"):
    files = ["--ckpt", work / "run/best.pt", "--lfw", work / "crops", "--pairs", work / "crops" / pairs]
    return [str(part) for part in (*files, "--device", "cpu", *more)]


def test_view2_end_to_end(work, capsys):
    assert main(arguments(work)) == 0
    table = capsys.readouterr().out
    output = work / "run" / "eval-pairs"
    assert (output / "table.txt").read_text(encoding="utf-8").rstrip("\n") in table
    assert str(output) in table
    assert (output / "roc.png").is_file()
    written = json.loads((output / "verification.json").read_text(encoding="utf-8"))
    loaded = load_model(work / "run/best.pt")
    pair_set = load_pair_set("crops", work / "crops", work / "crops/pairs.txt")
    result = evaluate(loaded.model, pair_set, device="cpu").verification
    assert [fold["accuracy"] for fold in written["folds"]] == result.accuracies.tolist()
    assert (written["checkpoint"], written["step"], written["run"]) == (str(work / "run/best.pt"), 7, "tiny")
    assert (written["flip"], written["subtract_mean"], written["num_images"]) == (True, True, 32)


def test_sets_may_be_given_one_by_one(work, capsys, tmp_path):
    each = f"pairs:{work / 'crops'},{work / 'crops' / 'pairs.txt'}"
    options = ["--ckpt", str(work / "run/best.pt"), "--device", "cpu", "--output", str(tmp_path)]
    assert main([*options, "--sets", f"a={each}", "--sets", f"b={each}", f"c={each}"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a", "b", "c"]


def test_view1_and_flags(work, tmp_path, capsys):
    more = ("--no-flip", "--no-mean", "--output", tmp_path / "out", "--batch-size", 5)
    assert main(arguments(work, *more, pairs="pairsDevTest.txt")) == 0
    assert "view 1" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "verification.json").read_text(encoding="utf-8"))
    assert (written["view"], written["flip"], written["subtract_mean"]) == (1, False, False)
    assert main(arguments(work, pairs="pairsDevTest.txt")) == 0
    assert (work / "run" / "eval-pairsDevTest" / "verification.json").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ckpt", "none.pt"], "none.pt: no such checkpoint file"),
        (["--lfw", "none"], "none: no such folder"),
        (["--pairs", "none.txt"], "none.txt: no such file"),
        (["--dev-train", "list.txt"], "list.txt: is for view 1, but"),
        (["--device", "tpu"], "--device: got 'tpu'"),
        (["--batch-size", "0"], "--batch-size: got 0 · allowed: 1 or more"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(work, capsys, more, message):
    assert main(arguments(work, *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python eval_lfw.py --ckpt best.pt --pairs data/pairsDevTest.txt" in capsys.readouterr().out


def test_as_a_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), "--ckpt", "none.pt"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(PROGRAM), run_name="__main__")
    assert capsys.readouterr().err == "error: none.pt: no such checkpoint file\n"


def test_several_sets_and_every_protocol(work, tmp_path, capsys):
    (work / "crops" / "Alone").mkdir(exist_ok=True)
    write_image(work / "crops" / "Alone" / "Alone_0001.jpg", noise(99))
    sets = [f"own={work / 'crops'}", f"view1={work / 'crops'},{work / 'crops' / 'pairsDevTest.txt'}"]
    more = ["--identification", "--all-pairs", "--html", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["--ckpt", str(work / "run/best.pt"), "--sets", *sets, *more]) == 0
    printed = capsys.readouterr().out
    assert "own: pairs.txt, 2 folds of 12 + 12 pairs, 32 images" in printed
    assert "identification: 8 people enrolled with one image, 24 probes, 1 impostors" in printed
    assert "all pairs: 33 images, 48 + 480 pairs; centred with the mean of all these images" in printed
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["own", "report.html", "view1"]
    own = json.loads((out / "own" / "verification.json").read_text(encoding="utf-8"))
    assert (own["all_pairs"]["num_impostor"], own["identification"]["num_probes"]) == (480, 24)
    assert own["config"]["model"]["depth"] == 4
    assert [rule["name"] for rule in own["other_rules"]] == ["insightface", "uncentred", "best-threshold"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert [page.count(f"<h2>{name}</h2>") for name in ("own", "view1")] == [1, 1]


def test_every_path_reports_the_same_accuracy(work, tmp_path, capsys):
    """The plain command, --sets, cached embeddings and no cache, with and without further protocols."""
    crops = work / "crops"
    ways = [
        arguments(work),
        arguments(work, "--no-cache"),
        arguments(work, "--all-pairs"),
        ["--ckpt", str(work / "run/best.pt"), "--sets", f"crops={crops}", "--device", "cpu"],
    ]
    folds = []
    for number, way in enumerate(ways):
        out = tmp_path / str(number)
        assert main([*way, "--output", str(out)]) == 0
        (written,) = out.rglob("verification.json")
        folds.append(json.loads(written.read_text(encoding="utf-8"))["folds"])
    assert folds[1:] == folds[:1] * 3
    loaded = load_model(work / "run/best.pt")
    pair_set = load_pair_set("crops", crops, crops / "pairs.txt")
    result = evaluate(loaded.model, pair_set, device="cpu").verification
    assert [fold["accuracy"] for fold in folds[0]] == result.accuracies.tolist()


@pytest.mark.parametrize("compare", [False, True])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_embedded(
    work, tmp_path, compare, monkeypatch, capsys
):
    monkeypatch.setattr("sphereface.commands.eval.evaluate_set", lambda *args, **options: pytest.fail("embedded"))
    (tmp_path / "file").write_text("x")
    best = str(work / "run/best.pt")
    what = ["--compare", best, best] if compare else ["--ckpt", best]
    assert main([*what, "--sets", f"own={work / 'crops'}", "--device", "cpu", "--output", str(tmp_path / "file")]) == 2
    name = "own/compare.json" if compare else "table.txt"
    assert f"file/{name}: cannot be written · allowed: a file in a folder" in capsys.readouterr().err


def test_compare(work, tmp_path, capsys):
    crops = ["--sets", f"own={work / 'crops'}", "--device", "cpu", "--output", str(tmp_path)]
    same = [str(work / "run/best.pt")] * 2
    assert main(["--compare", *same, *crops]) == 0
    assert "own: noise: these pairs show no significant difference" in capsys.readouterr().out
    assert json.loads((tmp_path / "own" / "compare.json").read_text(encoding="utf-8"))["p_value"] == 1.0
    assert main(["--compare", same[0], str(work / "other/best.pt"), *crops]) == 0
    assert "B − A" in capsys.readouterr().out
    assert main(["--compare", *same, *crops, "--html"]) == 2
    assert "omit --identification, --all-pairs, --quality, --html and --calibrate" in capsys.readouterr().err


def test_protocols_that_need_people_say_so(work, tmp_path, capsys):
    crops = work / "crops"
    (tmp_path / "list.txt").write_text("P0/P0_0001.jpg a\nP0/P0_0002.jpg b\nP1/P1_0001.jpg c\n", encoding="utf-8")
    (tmp_path / "pairs.txt").write_text("a b 1\na c 0\n", encoding="utf-8")
    given = f"ijb={crops},{tmp_path / 'list.txt'},{tmp_path / 'pairs.txt'}"
    base = ["--ckpt", str(work / "run/best.pt"), "--sets", given, "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*base, "--all-pairs"]) == 2
    assert "a folder of people, DIR/<person>/<image>; not templates and not a .bin" in capsys.readouterr().err
    assert main([*base, "--html"]) == 0
    printed = capsys.readouterr().out
    assert "ijb: pairs.txt, 2 pairs of 3 templates, no folds, 1 of one person, 3 images" in printed
    assert "no folds, so no accuracy" in printed
    assert "standard error of the folds" not in printed


def test_embeddings_are_kept_beside_the_checkpoint(work, capsys):
    assert main(arguments(work)) == 0
    assert list((work / "run" / "embeddings").glob("*-cpu-fp32-flip-*.npz"))


BINS = Path(__file__).parents[3] / "shared" / "golden" / "insightface" / "pairs.bin"


@pytest.mark.skipif(not BINS.is_file(), reason=f"InsightFace's sample is not at {BINS}")
def test_a_bin_is_a_set(work, tmp_path, capsys):
    folder = tmp_path / "run"
    write_checkpoint(folder / "best.pt", input_size=(112, 96))
    assert main(["--ckpt", str(folder / "best.pt"), "--sets", f"sample={BINS}", "--html", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "sample: pairs.bin," in printed
    assert "AFS" not in printed  # it does not say who is on its images
    assert (folder / "eval" / "sample" / "verification.json").is_file()
    assert main(["--ckpt", str(folder / "best.pt"), "--pairs", str(BINS), "--device", "cpu"]) == 0
    assert "pairs: pairs.bin," in capsys.readouterr().out  # called by its own name, not by that of --lfw's folder


def test_people_that_a_protocol_cannot_use_are_refused_before_they_are_embedded(tmp_path, monkeypatch, capsys):
    write_checkpoint(tmp_path / "best.pt")
    write_set(tmp_path / "crops")  # everyone has several images: there is nobody not to be found
    monkeypatch.setattr(Embedder, "embed", None)
    base = ["--ckpt", str(tmp_path / "best.pt"), "--sets", f"own={tmp_path / 'crops'}", "--device", "cpu"]
    assert main([*base, "--identification"]) == 2
    assert "and 0 with one · allowed: one or more of each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ((), "table.txt"),
        ((), "verification.json"),
        (("--html",), "report.html"),
        (("--compare", "{a}", "{b}"), "compare.json"),
        (("--suite", "{suite}"), "suite.json"),
        (("--suite", "{suite}"), "suite.txt"),
        (("--suite", "{suite}"), "crops/table.txt"),
    ],
)
def test_a_file_of_somebody_else_is_kept(work, tmp_path, capsys, monkeypatch, more, name):
    monkeypatch.setattr(Embedder, "embed", None)  # refused before anything is embedded
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("my notes", encoding="utf-8")
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "crops").symlink_to(work / "crops")
    places = {"a": work / "run/best.pt", "b": work / "other/best.pt", "suite": tmp_path / "suite"}
    command = [part.format(**places) for part in more]
    command += [] if more[:1] == ("--compare",) else ["--ckpt", str(places["a"])]
    command += (
        [] if more[:1] == ("--suite",) else ["--lfw", str(work / "crops"), "--pairs", str(work / "crops/pairs.txt")]
    )
    assert main([*command, "--device", "cpu", "--output", str(tmp_path / "out")]) == 2
    assert f"--output: got {path}, a file that this command did not write" in capsys.readouterr().err
    assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == [path]
    assert path.read_text(encoding="utf-8") == "my notes"


@pytest.mark.parametrize("option", ["--pairs", "--lfw"])
@pytest.mark.parametrize("sets", ["--sets", "--suite", "--ijb"])
def test_options_that_would_be_ignored_are_refused(work, capsys, option, sets):
    command = ["--ckpt", str(work / "run/best.pt"), "--device", "cpu", option, str(work / "crops" / "pairs.txt")]
    assert main([*command, sets, f"own={work / 'crops'}"]) == 2
    assert f"{option}: got it with {sets} · allowed: one of them" in capsys.readouterr().err


def test_the_folder_of_a_bin_is_refused(work, capsys):
    command = ["--ckpt", str(work / "run/best.pt"), "--device", "cpu", "--pairs", "x.bin", "--lfw", str(work / "crops")]
    assert main(command) == 2
    assert "--lfw: got it with x.bin, which contains its images · omit --lfw" in capsys.readouterr().err


def test_a_report_of_an_earlier_evaluation_is_removed(work, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(work, "--html", "--quality", "--output", out)) == 0
    (out / "suite.json").write_text('{"insightface": 1}')
    (out / "suite.txt").write_text("earlier")
    assert {"report.html", "suite.txt"} <= {path.name for path in out.iterdir()}
    capsys.readouterr()
    assert main(arguments(work, "--output", out)) == 0
    assert f"removed: report.html, suite.json of an earlier evaluation in {out}" in capsys.readouterr().out
    written = json.loads((out / "verification.json").read_text(encoding="utf-8"))
    assert {path.name for path in out.iterdir()} == set(written["files"])
    (out / "report.html").write_text("<title>Face recognition report</title> of somebody else")
    assert main(arguments(work, "--output", out)) == 0
    assert (out / "report.html").is_file()


def test_compare_says_how_many_embeddings_are_undefined(work, tmp_path, capsys):
    names = sorted(path.relative_to(work / "crops").as_posix() for path in (work / "crops").rglob("*_000*.*"))
    rows = np.random.default_rng(0).standard_normal((len(names), 4))
    np.savez(tmp_path / "a.npz", names=np.array(names), embeddings=rows)
    rows[::2] = np.nan
    np.savez(tmp_path / "b.npz", names=np.array(names), embeddings=rows)
    command = ["--compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    place = ["--lfw", str(work / "crops"), "--pairs", str(work / "crops/pairs.txt"), "--output", str(tmp_path / "out")]
    assert main([*command, *place]) == 0
    printed = capsys.readouterr().out
    assert "B: 16 images have an embedding that is zero or not finite;" in printed
    assert "A: " not in printed.partition("undefined")[2]
    written = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert written["undefined_embeddings"] == [0, 16]
    assert written["pairs_without_score"][1] > 0
