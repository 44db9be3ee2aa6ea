"""Faces of photographs for a network: the template of its training crops, and images with several faces."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from sphereface import faces
from sphereface.alignment.crop_template import CropTemplate
from sphereface.alignment.similarity import align, template
from sphereface.api import FaceEmbedder
from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.cli import main
from sphereface.errors import UserError
from sphereface.export.card import Exported, card
from sphereface.export.formats import Export
from sphereface.faces import UnusableImage
from sphereface.models import load_model

from .alignment.faces import ByColour, encode
from .evaluation.checkpoints import write_checkpoint

SIZE = (112, 96)
MOVED = tuple((float(x), float(y)) for x, y in (template() - [2, 3]).round(2))
IMAGE = ByColour.image((140, 150), [(60, 70)])
LANDMARKS = np.array([60, 70]) + (template() - template().mean(axis=0)) / 4
THREE = [(120, 100), (60, 70), (20, 20)]


def checkpoint_with(path, points, size=SIZE):
    write_checkpoint(path, input_size=size)
    state = load_checkpoint(path)
    if points is not None:
        state["meta"]["template"] = {"size": list(size), "points": [list(point) for point in points]}
    save_checkpoint(path, {key: state[key] for key in ("meta", "model")}, {"step": 7})
    return path


@pytest.fixture
def like(tmp_path):
    return checkpoint_with(tmp_path / "like.pt", MOVED)


@pytest.fixture
def mtcnn_by_colour(monkeypatch):
    monkeypatch.setattr(faces, "Mtcnn", ByColour)


def test_photographs_are_aligned_to_the_template_that_the_checkpoint_keeps(like):
    wanted = align(IMAGE, LANDMARKS.round(2), target=np.array(MOVED))
    assert np.array_equal(FaceEmbedder(like, detector=ByColour(), device="cpu").face(IMAGE).crop, wanted)
    for origin in (0, 1):
        published = FaceEmbedder(like, detector=ByColour(), device="cpu", template_origin=origin).face(IMAGE).crop
        assert np.array_equal(published, align(IMAGE, LANDMARKS.round(2), origin=origin))
    embedder = FaceEmbedder(like, detector=ByColour(), device="cpu")
    assert embedder.settings == f"by colour, pick centre, {CropTemplate(SIZE, MOVED).describe()}, with mirror images"
    assert FaceEmbedder(like, align=False, device="cpu").settings == "aligned crops, with mirror images"


@pytest.mark.parametrize("origin", [0, 1])
def test_a_published_template_in_a_checkpoint_keeps_the_settings_of_older_galleries(tmp_path, origin):
    path = checkpoint_with(tmp_path / "a.pt", (template() - origin).tolist())
    assert f", template origin {origin}, " in FaceEmbedder(path, detector=ByColour(), device="cpu").settings
    older = checkpoint_with(tmp_path / "b.pt", None)
    assert ", template origin 0, " in FaceEmbedder(older, detector=ByColour(), device="cpu").settings


def test_a_size_without_a_published_template_can_be_searched_by_a_kept_one(tmp_path):
    points = (template() * 0.3).round(2).tolist()
    path = checkpoint_with(tmp_path / "small.pt", points, size=(32, 32))
    crop = FaceEmbedder(path, detector=ByColour(), device="cpu").face(IMAGE).crop
    assert np.array_equal(crop, align(IMAGE, LANDMARKS.round(2), size=(32, 32), target=np.array(points)))
    with pytest.raises(UserError, match="no template"):
        FaceEmbedder(path, detector=ByColour(), device="cpu", template_origin=0)


def test_a_template_of_a_stranger_is_refused_before_any_image_is_read(tmp_path):
    path = checkpoint_with(tmp_path / "a.pt", [(1.0, float("nan"))] * 5)
    with pytest.raises(UserError, match=r"a\.pt: meta\.template: .* finite"):
        FaceEmbedder(path, detector=ByColour(), device="cpu")
    assert FaceEmbedder(path, align=False, device="cpu").input_size == SIZE  # needs none


def test_a_detector_s_points_that_are_no_face_are_refused(like):
    class Exchanged(ByColour):
        def __call__(self, image):
            found = super().__call__(image)
            return type(found)(found.boxes, found.scores, found.points[:, [1, 0, 2, 4, 3]])

    for on_several in ("take", "all"):
        embedder = FaceEmbedder(like, detector=Exchanged(), device="cpu", on_several=on_several)
        assert "are unlike a face" in embedder.try_embed([IMAGE]).problems[0]


def test_all_faces_give_a_row_each_and_those_unlike_a_face_none(like):
    class OneUpsideDown(ByColour):
        def __call__(self, image):
            found = super().__call__(image)
            for face in np.flatnonzero(found.boxes[:, 0] < 30):
                found.points[face] = found.points[face][[4, 3, 2, 1, 0]]
            return found

    images = [IMAGE, ByColour.image((140, 150), THREE), ByColour.image((90, 90), [])]
    every = FaceEmbedder(like, detector=ByColour(), device="cpu", on_several="all", batch_size=2)
    result = every.try_embed(images)
    assert result.rows.tolist() == [0, 1, 1, 1]
    assert result.num_faces == {1: 3}
    assert list(result.problems) == [2]
    for row, middle in enumerate([(20, 20), (60, 70), (120, 100)], start=1):
        points = (np.array(middle) + (template() - template().mean(axis=0)) / 4).round(2)
        alone = every.embed_crops(align(images[1], points, target=np.array(MOVED))[None])
        np.testing.assert_allclose(result.embeddings[row], alone[0], atol=1e-5)
    some = FaceEmbedder(like, detector=OneUpsideDown(), device="cpu", on_several="all").try_embed(images)
    assert some.rows.tolist() == [0, 1, 1]
    with pytest.raises(UserError, match="on_several: got 'all' with embed"):
        every.embed(images)
    with pytest.raises(UserError, match="on_several: got 'some' · allowed: take, skip, all"):
        FaceEmbedder(like, detector=ByColour(), on_several="some")


@pytest.fixture
def photographs(tmp_path):
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/one.png").write_bytes(encode(IMAGE, ".png"))
    (tmp_path / "in/three.png").write_bytes(encode(ByColour.image((140, 150), THREE), ".png"))
    (tmp_path / "in/phone.avif").write_bytes(b"")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("options", "names", "told"),
    [
        (
            [],
            ["a/one.png", "three.png"],
            "note: several faces in 1 of 2 images, such as three.png (number 2 of 3 from the left): one face of each "
            "was enrolled, nearest the centre; 2 other faces were not · --all-faces enrols them\n",
        ),
        (
            ["--on-several", "take", "--pick", "largest"],
            ["a/one.png", "three.png"],
            "one face of each was enrolled, the largest; 2 other",
        ),
        (["--on-several", "skip"], ["a/one.png"], "left out 1 of 2 images:\n  - "),
        (
            ["--on-several", "all"],
            ["a/one.png", "three.png#1", "three.png#2", "three.png#3"],
            "three.png (3): all were enrolled\n",
        ),
        (["--all-faces"], ["a/one.png", "three.png#1", "three.png#2", "three.png#3"], "(3): all were enrolled\n"),
    ],
)
def test_embed_says_what_it_did(like, photographs, tmp_path, capsys, mtcnn_by_colour, options, names, told):
    assert (
        main(["embed", str(photographs), str(tmp_path / "g.npz"), "--ckpt", str(like), "--device", "cpu", *options])
        == 0
    )
    errors = capsys.readouterr().err
    assert told in errors
    assert "1 file was not read: 1 .avif" in errors
    assert "note: faces are aligned like the training crops of" in errors
    assert "2.0 pixels left of the template, 3.0 above" in errors
    with np.load(tmp_path / "g.npz") as table:
        assert table["names"].tolist() == names
        assert len(table["embeddings"]) == len(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on-several", "all", "--aligned"], "--on-several: got all with --aligned"),
        (["--on-several", "skip", "--pick", "centre"], "--pick: got centre with --on-several skip"),
    ],
)
def test_options_of_embed_that_contradict_are_one_line(like, photographs, tmp_path, capsys, options, message):
    command = ["embed", str(photographs), str(tmp_path / "g.npz"), "--ckpt", str(like), "--device", "cpu", *options]
    assert main(command) == 2
    assert re.fullmatch(rf"error: {re.escape(message)}.*\n", capsys.readouterr().err)
    assert not (tmp_path / "g.npz").exists()


def test_a_gallery_of_another_template_is_refused(like, photographs, tmp_path, capsys, mtcnn_by_colour):
    given = ["--ckpt", str(like), "--device", "cpu"]
    gallery, query = str(tmp_path / "g.npz"), str(photographs / "a/one.png")
    assert main(["embed", str(photographs), gallery, *given]) == 0
    assert main(["search", gallery, query, *given]) == 0
    assert "a/one.png" in capsys.readouterr().out.splitlines()[1]
    assert main(["search", gallery, query, *given, "--template-origin", "0"]) == 2
    assert "its settings differ: template 28." in capsys.readouterr().err
    assert main(["verify", query, query, *given]) == 0
    assert "note: faces are aligned like the training crops" in capsys.readouterr().err


def test_pick_chooses_the_face_of_a_query_for_any_gallery(like, photographs, tmp_path, capsys, monkeypatch):
    """Embed refuses --pick with --all-faces, so a search must allow it."""

    class RightLarger(ByColour):
        def __call__(self, image):
            found = super().__call__(image)
            grown = (found.boxes[:, 0] > 100)[:, None] * np.array([-20, -20, 20, 20])
            return type(found)(found.boxes + grown, found.scores, found.points)

    monkeypatch.setattr(faces, "Mtcnn", RightLarger)
    given = ["--ckpt", str(like), "--device", "cpu"]
    query = str(photographs / "three.png")
    for out, more in (("all", ["--all-faces"]), ("all.npz", ["--all-faces"]), ("one.npz", [])):
        assert main(["embed", str(photographs), str(tmp_path / out), *given, *more]) == 0
        for pick, face in (([], 2), (["--pick", "centre"], 2), (["--pick", "largest"], 3)):
            capsys.readouterr()
            assert main(["search", str(tmp_path / out), query, *given, *pick]) == 0
            found = [line.split() for line in capsys.readouterr().out.splitlines()]
            same = {path for _, cosine, path in found if cosine == "1.0000"}
            assert not more or {2, 3} & {int(path[-1]) for path in same if "#" in path} == {face}
        capsys.readouterr()
        assert main(["search", str(tmp_path / out), query, *given, "--pick", "largest", "--template-origin", "0"]) == 2
        assert "its settings differ: template 28." in capsys.readouterr().err
    assert main(["embed", str(photographs), str(tmp_path / "large.npz"), *given, "--pick", "largest"]) == 0
    assert main(["search", str(tmp_path / "large.npz"), query, *given]) == 2
    errors = capsys.readouterr().err
    assert "its settings differ: pick largest; the query: pick centre · give the same options for both" in errors


@pytest.mark.parametrize("left", [0, 1, 2])
def test_faces_that_all_faces_leaves_out_are_counted(like, photographs, tmp_path, capsys, monkeypatch, left):
    class SomeUpsideDown(ByColour):
        def __call__(self, image):
            found = super().__call__(image)
            found.points[:left] = found.points[:left, ::-1] if len(found) > 1 else found.points[:left]
            return found

    monkeypatch.setattr(faces, "Mtcnn", SomeUpsideDown)
    embed = ["embed", str(photographs), str(tmp_path / "g.npz"), "--ckpt", str(like), "--device", "cpu", "--all-faces"]
    assert main(embed) == 0
    told = f", except {left} with landmarks unlike a face" if left else ""
    out, errors = capsys.readouterr()
    assert f"such as three.png (3): all were enrolled{told}\n" in errors
    assert out.endswith(f"g.npz: {4 - left} embeddings of 16 numbers, and as many of mirror images\n")


def test_a_detector_without_a_name_embeds_but_has_no_settings(like):
    found = ByColour()
    for detector, got in ((lambda image: found(image), "<function "), (found.__call__, "<bound method")):
        embedder = FaceEmbedder(like, detector=detector, device="cpu")
        named = FaceEmbedder(like, detector=found, device="cpu")
        np.testing.assert_array_equal(embedder.embed([IMAGE]), named.embed([IMAGE]))
        with pytest.raises(UserError, match=rf"detector: got {got}.* without a name · .* need the attribute name: one"):
            _ = embedder.settings
    assert FaceEmbedder(like, align=False, detector=found.__call__).settings == "aligned crops, with mirror images"


def test_the_card_of_an_export_tells_the_template(like):
    loaded = load_model(like, "cpu")
    export = Export(loaded.model)
    told = card(Exported(like, "onnx", export, like, "0" * 64, loaded.meta))
    assert f"aligned to ({MOVED[0][0]:g}, {MOVED[0][1]:g}) " in told
    plain = card(Exported(like, "onnx", export, like, "0" * 64, {}))
    assert "SphereFace's template" in plain


def test_a_pipe_is_no_image(like, tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(UserError, match=r"x\.jpg: cannot be read"):
        FaceEmbedder(like, detector=ByColour(), device="cpu").face(tmp_path / "x.jpg")


def test_a_name_with_a_nul_or_what_a_terminal_would_obey_is_one_line(like):
    embedder = FaceEmbedder(like, align=False)
    with pytest.raises(UnusableImage, match=r"^a\\x00b: holds a NUL character"):
        embedder.face("a\0b")
    with pytest.raises(UnusableImage, match=r"^a\\x1b\[2J\\n: cannot be read .No such file"):
        embedder.face("a\x1b[2J\n")
