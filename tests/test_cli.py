"""The console command: one entry for every program, quick help, and verify, embed and search from end to end."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sphereface.alignment import mtcnn
from sphereface.api import FaceEmbedder, Match
from sphereface.checkpoint import sha256_of
from sphereface.cli import COMMANDS, main
from sphereface.commands.search import _caption, decision
from sphereface.commands.verify import _title, describe
from sphereface.evaluation import embed_files
from sphereface.evaluation.calibration import Calibration, Threshold, calibration_path, write_calibration
from sphereface.face_figures import pair_figure, search_figure
from sphereface.models import load_model

from .alignment.faces import ByColour
from .evaluation.checkpoints import write_checkpoint
from .evaluation.crops import noise, write_image

ROOT = Path(__file__).parents[1]


@pytest.fixture
def work(tmp_path):
    """A checkpoint, crops of three people, and a list of what the command needs to read them."""
    write_checkpoint(tmp_path / "best.pt", input_size=(112, 96))
    rng = np.random.default_rng(0)
    for person in range(3):
        face = noise(person, 112, 96).astype(int)
        for k in range(2):
            image = np.clip(face + rng.integers(-20, 21, face.shape), 0, 255).astype(np.uint8)
            write_image(tmp_path / "gallery" / f"P{person}" / f"{k}.png", image)
        write_image(tmp_path / f"query{person}.png", face.astype(np.uint8))
    return tmp_path


@pytest.fixture
def by_colour(monkeypatch):
    """A detector that needs no weights: a red square is a face."""
    monkeypatch.setattr("sphereface.faces.Mtcnn", ByColour)
    assert mtcnn.Mtcnn is not ByColour


def options(work, *more):
    return ["--ckpt", str(work / "best.pt"), "--device", "cpu", *map(str, more)]


def test_the_wheel_installs_the_command():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.scripts]\nsphereface = "sphereface.cli:main"\n' in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_examples(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: sphereface {name}")
    assert text.count(f"  sphereface {name} ") >= 1
    assert "python scripts/" not in text


def test_help_names_every_command_and_loads_nothing_large(capsys):
    assert main([]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    code = (
        "import sys; from sphereface.cli import main; main(['--help']); import sphereface; "
        "sys.exit(bool({'torch', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_an_unknown_command_is_one_line(capsys):
    assert main(["verfy"]) == 2
    assert (
        capsys.readouterr().err
        == f"error: sphereface: got 'verfy' · allowed: {', '.join(COMMANDS)} · did you mean verify?\n"
    )
    assert main(["--version"]) == 0


def test_a_wrong_config_is_one_line(capsys):
    assert main(["train", "--config", "sphere21"]) == 2
    assert "error: --config: no file 'sphere21'" in capsys.readouterr().err


def test_verify_without_and_with_a_calibration(work, capsys):
    images = [str(work / "query0.png"), str(work / "gallery/P0/0.png")]
    assert main(["verify", *images, *options(work, "--aligned", "--save-plot", work / "pair.png")]) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    cosine = float(first.removeprefix("cosine "))
    assert second.startswith("no calibration beside the checkpoint")
    assert second.endswith(f" · make one: sphereface eval --ckpt {work / 'best.pt'} --calibrate")
    for more in ([], ["--far", "0.1"]):  # neither advice makes one that is refused again
        main(["verify", *images, *options(work, "--aligned", "--no-flip", *more)])
        advice = f": sphereface eval --ckpt {work / 'best.pt'} --mirror none --calibrate\n"
        assert any(text.endswith(advice) for text in capsys.readouterr())
    assert (work / "pair.png").stat().st_size > 5000

    points = (Threshold(0.1, -0.5, 0.9, 600), Threshold(0.02, 0.99999, 0.16, 600))
    known = Calibration(sha256_of(work / "best.pt"), True, "pairs.txt", 4.0, -2.0, 0.5, points)
    write_calibration(known, calibration_path(work / "best.pt"))
    assert main(["verify", *images, *options(work, "--aligned", "--far", "0.1")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == first
    probability = 1 / (1 + np.exp(2 - 4 * cosine))
    assert lines[1].endswith("% of one person, if 0.5 of all pairs show one person")
    assert float(lines[1].split()[1].rstrip("%")) == pytest.approx(100 * probability, abs=0.02)  # of a rounded cosine
    assert lines[2] == "decision     one person: cosine > -0.5000, the threshold at FAR 0.1, TAR 90.0%"
    assert main(["verify", *images, *options(work, "--aligned")]) == 0  # the lowest with a TAR of 90 %
    assert capsys.readouterr().out.splitlines() == lines
    assert main(["verify", *images, *options(work, "--aligned", "--far", "0.02")]) == 0
    decided = capsys.readouterr().out.splitlines()[2:]
    assert decided[0] == "decision     two people: cosine ≤ 1.0000, the threshold at FAR 0.02, TAR 16.0%"
    assert decided[1].strip() == "this threshold refuses 84.0% of the genuine pairs · a higher --far refuses fewer"
    assert main(["verify", *images, *options(work, "--aligned", "--far", "0.2")]) == 2
    assert "error: FAR: got 0.2 · allowed: 0.1, 0.02, which pairs.txt resolves" in capsys.readouterr().err

    write_calibration(replace(known, thresholds=(replace(points[0], tar=0.89),)), calibration_path(work / "best.pt"))
    assert main(["verify", *images, *options(work, "--aligned", "--save-plot", work / "pair.png")]) == 0
    assert capsys.readouterr().out.splitlines()[2:4] == [
        "decision     none: too weak to decide. At FAR 0.1, the highest known, TAR is 89.0%",
        "             --far 0.1 forces a decision, at cosine -0.5000",
    ]

    write_checkpoint(work / "best.pt", seed=1, input_size=(112, 96))
    assert main(["verify", *images, *options(work, "--aligned")]) == 2
    assert "made for another checkpoint" in capsys.readouterr().err


def test_a_calibration_elsewhere_and_another_prior(work, capsys):
    known = Calibration(
        sha256_of(work / "best.pt"), True, "pairs.txt", 4.0, -2.0, 0.5, (Threshold(0.1, -0.5, 0.9, 900),)
    )
    write_calibration(known, work / "known.json")
    more = options(work, "--aligned", "--calibration", work / "known.json", "--prior", 0.2)
    assert main(["verify", str(work / "query0.png"), str(work / "query1.png"), *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    odds = np.exp(4 * float(lines[0].removeprefix("cosine ")) - 2) / 4  # Bayes: 0.2 / 0.8 in the place of 1
    assert lines[1].endswith("% of one person, if 0.2 of all pairs show one person")
    assert float(lines[1].split()[1].rstrip("%")) == pytest.approx(100 * odds / (1 + odds), abs=0.02)
    assert lines[2].startswith("decision     one person: cosine > -0.5000")
    for wrong, message in (("--far", "FAR: got 2"), ("--prior", "prior: got 2")):  # before any image is read
        assert main(["verify", "none.png", "none.png", *more, wrong, "2"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(1.0, "over 99.99%"), (0.99991, "over 99.99%"), (0.9999, "99.99%"), (0.5, "50.00%"), (0.0001, "0.01%"),
     (0.00009, "under 0.01%"), (0.0, "under 0.01%")],
)  # fmt: skip
def test_nobody_is_told_that_they_are_certain(probability, shown):
    match = Match(0.5, probability, 0.5, True, 0.3, 0.1)
    calibration = Calibration("", True, "pairs.txt", 1.0, 0.0, 0.5, ())
    lines = describe(match, SimpleNamespace(calibration=calibration))
    assert lines[-1].strip() == "(learnt from pairs.txt)"
    assert lines[1] == f"probability  {shown} of one person, if 0.5 of all pairs show one person"
    assert _title(match) == f"cosine 0.500, P(one person) = {shown}\nat FAR 0.1: one person"


def test_the_source_of_a_stranger_s_calibration_writes_nothing_to_the_terminal():
    calibration = Calibration("", True, "x\n\x1b[31m" + "y" * 10_000, 1.0, 0.0, 0.5, ())
    line = describe(Match(0.5, 0.5, 0.5, True, 0.3, 0.1), SimpleNamespace(calibration=calibration))[-1]
    assert line.isprintable()
    assert len(line) < 300


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("lfw/Frank_Dunham_Jr/Frank_Dunham_Jr_0001.jpg", "Frank_Dunham_Jr_0001.jpg"),
        ("gallery/s1/10.png", "s1/\n10.png"),
        ("query.jpg", "query.jpg"),
    ],
)
def test_a_result_is_called_by_what_tells_it_apart(path, shown):
    assert _caption(path) == shown


def test_names_on_a_contact_sheet_do_not_run_into_each_other():
    crop = np.zeros((112, 96, 3), dtype=np.uint8)
    name = "Wolfgang_Schuessel_0001_a_long_name.jpg"
    figure = search_figure(crop, [crop] * 7, [f"0.578\n{name}"] * 7, name)
    figure.draw_without_rendering()
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    boxes = [title.get_window_extent() for title in titles]
    assert len(boxes) == 8
    texts = [title.get_text() for title in titles]
    assert texts == [f"{first}\n…001_a_long_name.jpg" for first in ("query", *["0.578"] * 7)]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_images_are_drawn_in_their_colours():
    blue = np.zeros((112, 96, 3), dtype=np.uint8)
    blue[..., 0] = 255
    red = blue[..., ::-1]
    for figure in (pair_figure([blue, red], ["a", "b"], "same"), search_figure(blue, [red], ["b"], "a")):
        drawn = [(axes.get_title()[-1], axes.images[0].get_array()) for axes in figure.axes if axes.images]
        assert [name for name, _ in drawn] == ["a", "b"]
        assert (drawn[0][1] == [0, 0, 255]).all()  # matplotlib's are RGB
        assert (drawn[1][1] == [255, 0, 0]).all()


def test_verify_says_when_there_is_no_face_or_several(work, by_colour, capsys):
    one = write_image(work / "one.png", ByColour.image((120, 100), [(50, 60)]))
    two = write_image(work / "two.png", ByColour.image((120, 100), [(50, 60), (20, 20)]))
    cat = write_image(work / "cat.png", ByColour.image((120, 100), []))
    assert main(["verify", str(one), str(cat), *options(work)]) == 2
    assert capsys.readouterr().err == (f"error: {cat}: no face found in 100x120 pixels, with or without a border\n")
    assert main(["verify", str(one), str(two), *options(work)]) == 0
    captured = capsys.readouterr()
    told = "2 faces; the one nearest the centre was taken (number 2 from the left) · or: --pick largest"
    assert captured.err == f"note: {two}: {told}\n"
    assert main(["verify", str(one), str(two), *options(work, "--pick", "centre")]) == 0
    assert capsys.readouterr().err == ""


def test_options_reach_the_network(work, monkeypatch, capsys):
    class OneLarger(ByColour):
        def __call__(self, image):
            faces = super().__call__(image)
            faces.boxes[faces.boxes[:, 0] < 40] += [-9, -9, 9, 9]  # the one aside
            return faces

    monkeypatch.setattr("sphereface.faces.Mtcnn", OneLarger)
    one, two = ByColour.image((200, 160), [(80, 100)]), ByColour.image((200, 160), [(80, 100), (30, 40)], seed=1)
    files = [str(write_image(work / "one.png", one)), str(write_image(work / "two.png", two))]
    shown = []
    for more, given in (
        ([], {}),
        (["--pick", "largest"], {"pick": "largest"}),
        (["--template-origin", "1"], {"template_origin": 1}),
        (["--no-flip"], {"flip": False}),
    ):
        assert main(["verify", *files, *options(work, *more)]) == 0
        shown.append(float(capsys.readouterr().out.split()[1]))
        same = FaceEmbedder(work / "best.pt", device="cpu", detector=OneLarger(), **given)
        assert shown[-1] == pytest.approx(same.verify(one, two).cosine, abs=6e-5)
    assert len(set(shown)) == 4


def test_embed_then_search(work, capsys):
    (work / "gallery" / "P0" / "00-broken.jpg").write_text("no image")  # between others
    gallery = work / "gallery.npz"
    assert main(["embed", str(work / "gallery"), str(gallery), *options(work, "--aligned")]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{gallery}: 6 embeddings of 16 numbers, and as many of mirror images\n"
    assert "left out 1 of 7 images:\n  - " in captured.err
    assert "broken.jpg: not an image" in captured.err
    with np.load(gallery, allow_pickle=False) as file:
        names = [f"P{p}/{k}.png" for p in range(3) for k in range(2)]
        assert (file["names"].tolist(), str(file["root"])) == (names, str(work / "gallery"))
        model = load_model(work / "best.pt").model
        wanted = embed_files(model, [work / "gallery" / name for name in names], device="cpu")
        np.testing.assert_allclose(np.hstack([file["embeddings"], file["mirror"]]), wanted, rtol=1e-4, atol=1e-5)
        assert str(file["checkpoint_sha256"]) == sha256_of(work / "best.pt")
    alone = FaceEmbedder(work / "best.pt", align=False, device="cpu")
    for place in (gallery, work / "gallery"):  # kept, or embedded for this search
        more = ("--aligned", "--top", 2, "--save-plot", work / "found.png")
        assert main(["search", str(place), str(work / "query1.png"), *options(work, *more)]) == 0
        *lines, last = capsys.readouterr().out.splitlines()
        assert last == f"written: {work / 'found.png'}"
        found = [line.split() for line in lines]
        assert [number for number, _, _ in found] == ["1", "2"]
        assert {path for _, _, path in found} == {str(work / f"gallery/P1/{k}.png") for k in range(2)}
        assert float(found[0][1]) >= float(found[1][1])
        for _, cosine, path in found:
            assert float(cosine) == pytest.approx(alone.verify(path, work / "query1.png").cosine, abs=6e-5)
        assert (work / "found.png").stat().st_size > 5000
        (work / "found.png").unlink()
    assert main(["search", str(gallery), str(work / "query1.png"), *options(work, "--aligned", "--no-flip")]) == 2
    assert (
        "its settings differ: with mirror images; the query: without mirror images · give the same options for both"
        in capsys.readouterr().err
    )
    for folder, lines in (("gallery", 1), ("gallery/P1", 2), ("gallery/P1", 1)):
        assert main(["embed", str(work / folder), str(gallery), *options(work, "--aligned")]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[1:] == [f"replaced: a gallery of the images in {work / 'gallery'}"] * (lines - 1)


def test_a_figure_shows_as_many_results_as_it_can_hold(work, capsys, monkeypatch):
    monkeypatch.setattr("sphereface.commands.search._MOST_DRAWN", 3)
    for top, told in ((3, ""), (5, ", the first 3 of 5")):
        more = ("--aligned", "--top", top, "--save-plot", work / "found.png")
        assert main(["search", str(work / "gallery"), str(work / "query1.png"), *options(work, *more)]) == 0
        *lines, last = capsys.readouterr().out.splitlines()
        assert (len(lines), last) == (top, f"written: {work / 'found.png'}{told}")


def test_embed_of_a_list_and_without_mirror_images(work, capsys):
    (work / "some.txt").write_text("query1.png\n\ngallery/P2/1.png\n", encoding="utf-8")
    table = work / "some.npz"
    assert main(["embed", str(work / "some.txt"), str(table), *options(work, "--aligned", "--no-flip")]) == 0
    assert capsys.readouterr().out == f"{table}: 2 embeddings of 16 numbers\n"
    with np.load(table, allow_pickle=False) as file:
        assert (file["names"].tolist(), str(file["root"])) == (["query1.png", "gallery/P2/1.png"], str(work))
        about = ["absolute_root", "checkpoint_sha256", "format", "people_root", "root", "settings"]
        hashes = [int(hashlib.blake2b((work / n).read_bytes(), digest_size=8).hexdigest(), 16) for n in file["names"]]
        assert (file["image_hash"].tolist(), file["image_hash"].dtype) == (hashes, np.uint64)
    assert sorted(file) == sorted([*about, "embeddings", "image_hash", "names", "quality"])
    search = ["search", str(table), str(work / "query1.png"), *options(work, "--aligned", "--no-flip")]
    assert main(search) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"  1   1.0000  {work / 'query1.png'}"


def test_no_image_that_can_be_used_gets_advice_that_can_help(work, capsys):
    (work / "texts").mkdir()
    (work / "texts" / "text.png").write_text("x")
    command = ["embed", str(work / "texts"), str(work / "x.npz"), *options(work, "--aligned")]
    assert main(command) == 2
    assert capsys.readouterr().err.endswith(f"error: {work / 'texts'}: none of its 1 images can be used\n")


def test_a_bin_is_embedded_with_aligned_only(work, capsys):
    assert main(["embed", str(work / "lfw.bin"), str(work / "x.npz"), *options(work)]) == 2
    assert capsys.readouterr().err == f"error: {work / 'lfw.bin'}: a .bin holds aligned crops · add --aligned\n"


def test_a_search_says_who_of_what_it_found_it_is(work, capsys):
    search = ["search", str(work / "gallery"), str(work / "query1.png")]
    assert main([*search, *options(work, "--aligned")]) == 0
    plain = capsys.readouterr().out.splitlines()
    assert len(plain) == 5
    cosines = [float(line.split()[1]) for line in plain]
    between = (cosines[1] + cosines[2]) / 2
    points = tuple(Threshold(far, at, 0.9, 1000) for far, at in ((0.1, -1.0), (0.05, between), (0.01, 0.99999)))
    known = Calibration(sha256_of(work / "best.pt"), True, "pairs.txt", 4.0, -2.0, 0.5, points)
    write_calibration(known, work / "known.json")
    for far, told, passes in (
        ("0.1", "the first 6  cosine > -1.0000", "0.6"),
        ("0.05", f"the first 2  cosine > {between:.4f}", "0.3"),
        ("0.01", "no match     cosine ≤ 1.0000", "0.06"),
    ):
        more = options(work, "--aligned", "--calibration", work / "known.json", "--far", far)
        assert main([*search, *more]) == 0
        *found, decided, chance, source = capsys.readouterr().out.splitlines()
        assert source == "          (learnt from pairs.txt)"
        if far == "0.1":  # all 6 are over the threshold, 5 are shown
            found, decided, note = found[:-1], found[-1], decided
            assert note == "          --top 6 shows them all"
        assert found == plain
        assert decided == f"decision  {told}, the threshold at FAR {far}, TAR 90.0%"
        assert chance.strip() == f"a stranger would pass for {passes} of these 6 images by chance"
    lowest = options(work, "--aligned", "--calibration", work / "known.json")
    assert main([*search, *lowest]) == 0
    assert "the threshold at FAR 0.01, TAR 90.0%\n" in capsys.readouterr().out


def test_a_search_says_when_it_is_too_weak_to_decide(work, capsys):
    points = (Threshold(0.1, 0.2, 0.5, 600), Threshold(0.02, 0.3, 0.16, 600))
    known = Calibration(sha256_of(work / "best.pt"), True, "pairs.txt", 4.0, -2.0, 0.5, points)
    write_calibration(known, calibration_path(work / "best.pt"))
    search = ["search", str(work / "gallery"), str(work / "query1.png"), *options(work, "--aligned")]
    assert main(search) == 0
    assert capsys.readouterr().out.splitlines()[5:] == [
        "decision  none: too weak to decide. At FAR 0.1, the highest known, TAR is 50.0%",
        "          --far 0.1 forces a decision, at cosine 0.2000",
        "          (learnt from pairs.txt)",
    ]
    assert main([*search, "--far", "0.02"]) == 0
    _, weak, chance, _ = capsys.readouterr().out.splitlines()[-4:]
    assert weak.strip() == "this threshold refuses 84.0% of the genuine pairs · a higher --far refuses fewer"
    assert chance.strip() == "a stranger would pass for 0.12 of these 6 images by chance"


def test_a_calibration_with_mirror_images_does_not_decide_without_them(work, capsys):
    """The shipped network has such a calibration."""
    path = calibration_path(work / "best.pt")
    points = (Threshold(0.1, -1.0, 0.95, 1000),)
    write_calibration(Calibration(sha256_of(work / "best.pt"), True, "pairs.txt", 4.0, -2.0, 0.5, points), path)
    verify = ["verify", str(work / "query1.png"), str(work / "query1.png")]
    search = ["search", str(work / "gallery"), str(work / "query1.png"), "--top", "1"]
    why = (
        f"{path}: made with mirror images joined, but these embeddings are without mirror images · make one: "
        "sphereface eval --ckpt … --mirror none --calibrate, or omit --no-flip (flip=True)"
    )
    for command, told in ((verify, "no probability and no decision: "), (search, "decision  none: ")):
        assert main([*command, *options(work, "--aligned", "--no-flip")]) == 0
        out = capsys.readouterr().out.splitlines()
        assert len(out) == 2
        assert out[1] == f"{told}{why}"
        for more in (("--far", "0.1"), ("--calibration", path)):
            assert main([*command, *options(work, "--aligned", "--no-flip", *more)]) == 2
            assert capsys.readouterr() == ("", f"error: {why}\n")
    assert main([*verify, *options(work, "--aligned", "--no-flip", "--prior", "0.1")]) == 2
    assert capsys.readouterr() == ("", f"error: {why}\n")


def test_a_decision_counts_the_whole_gallery():
    cosines = np.full(5, 0.9, np.float32)
    point = Threshold(0.001, 0.5, 0.95, 10_000)
    told = {num: decision(point, cosines, 1000, num).splitlines() for num in (None, 5, 7)}
    assert told[None] == told[5]
    assert told[5][0].startswith("decision  the first 5  cosine > 0.5000")
    assert told[7][0].startswith("decision  the first 7  cosine > 0.5000")
    assert told[7][1].strip() == "--top 7 shows them all"
    assert len(told[5]) == 2
    assert told[7][2].strip() == "a stranger would pass for 1 of these 1,000 images by chance"


def test_search_by_a_graph_finds_the_same(work, capsys):
    pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    gallery, query = str(work / "gallery.npz"), str(work / "query2.png")
    assert main(["embed", str(work / "gallery"), gallery, *options(work, "--aligned")]) == 0
    capsys.readouterr()
    assert main(["search", gallery, query, *options(work, "--aligned")]) == 0
    exact = capsys.readouterr().out
    assert main(["search", gallery, query, *options(work, "--aligned", "--index", "faiss")]) == 0
    assert capsys.readouterr().out == exact


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["search", "gallery", "query0.png", "--top", "0"], "--top: got 0 · allowed: 1 or more"),
        (
            ["search", "gallery", "query0.png", "--index", "faiss"],
            "--index faiss: got gallery, a folder of images · allowed: a gallery, made by sphereface embed",
        ),
        (
            ["search", "none.npz", "query0.png"],
            "none.npz: no such file or folder · make a gallery: sphereface embed DIR none.npz",
        ),
        (["search", "none", "none.png"], "none: no such file or folder · make a gallery: sphereface embed DIR none"),
        (
            ["search", "none.txt", "query0.png"],
            "none.txt: no such file or folder · make a gallery: sphereface embed DIR none.npz",
        ),
        (
            ["embed", "gallery", "out.npz", "--pick", "largest"],
            "--pick: got largest with --aligned, which searches for no faces · omit one",
        ),
        (
            ["verify", "query0.png", "query1.png", "--template-origin", "0"],
            "--template-origin: got 0 with --aligned, which searches for no faces · omit one",
        ),
        (["search", "gallery", "query0.png", "--pick", "centre"], "--pick: got centre with --aligned, which searches"),
        (["search", "gallery", "none.png"], "none.png: cannot be read (No such file or directory)"),
        (["embed", "gallery", "out.txt"], "out.txt: got suffix '.txt' · allowed: .npz"),
        (["embed", "none", "out.npz"], "none: not a folder · allowed: a folder of images, a .bin, or a list of images"),
        (["embed", "query0.png", "out.npz"], "query0.png: not a folder · allowed: a folder of images, a .bin"),
        (["embed", "lines.txt", "out.npz"], "lines.txt: 1 of 2 lines name no file: 'none.png' · allowed: the path of"),
        (["embed", "empty.txt", "out.npz"], "empty.txt: got no lines · allowed: the path of an image on each line"),
        (["embed", "faces.zip", "out.npz"], "faces.zip: not a folder · allowed: a folder of images, a .bin"),
        (["embed", "gallery", "folder.npz"], "folder.npz: cannot be written · allowed: a file in a folder that"),
        (["embed", "gallery", "empty.txt/x/out.npz"], "empty.txt/x/out.npz: cannot be written · allowed: a file"),
        (["embed", "none.bin", "out.npz"], "none.bin: cannot be read (No such file or directory)"),
        (["verify", "query0.png", "query1.png", "--far", "0.1"], "far, prior: need "),
        (["search", "gallery", "query0.png", "--far", "0.1"], "far, prior: need "),
        (["verify", "query0.png", "query1.png", "--save-plot", "pair.docx"], "--save-plot: got pair.docx with the"),
        (["verify", "query0.png", "query1.png", "--save-plot", "query1.png"], "--save-plot: got query1.png, an image"),
        (["search", "gallery", "query0.png", "--save-plot", "query0.png"], "--save-plot: got query0.png, an image"),
        (["search", "gallery", "query0.png", "--save-plot", "gallery/x.png"], "--save-plot: got gallery/x.png, inside"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(work, monkeypatch, capsys, command, message):
    monkeypatch.chdir(work)
    (work / "lines.txt").write_text("query0.png\nnone.png\n", encoding="utf-8")
    (work / "empty.txt").write_text("\n", encoding="utf-8")
    (work / "faces.zip").write_text("PK", encoding="utf-8")
    (work / "folder.npz").mkdir(exist_ok=True)
    assert main([*command, *options(work, "--aligned")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
