"""Draw the effect of augmentation: original crops, each augmentation alone, and all together."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..data.crops import CropBatches
from ..data.loader import batches
from ..data.sampler import Augmentation, BatchOrder
from ..data.transforms import to_input, to_pixels
from ..input_spec import InputSpec

_IMAGES = 8
_GAP = 4  # pixels between images
_LABEL_WIDTH = 120


def augmentation_sheet(crops: CropBatches, augmentation: Augmentation, *, seed: int) -> npt.NDArray[np.uint8]:
    """Return the first training images, with one row for each enabled augmentation.

    The rows are "original", "mirror", "crop_shift", one for each entry of ``data.augment``, and
    "as trained". The entries of ``data.augment`` act on every image of their row. "mirror",
    "crop_shift" and "as trained" act with the probabilities of training.

    Args:
        crops: the training crops, H×W.
        augmentation: the augmentation of training.
        seed: the seed of the run.

    Returns:
        (rows · (H + 4), 120 + 8 · (W + 4), 3) uint8, BGR.
    """
    rows = [
        np.concatenate([_label(name, crops.size[0]), *_row(crops, shown, seed)], axis=1)
        for name, shown in rows_of(augmentation).items()
    ]
    return np.concatenate(rows)


def rows_of(augmentation: Augmentation) -> dict[str, Augmentation]:
    """Return the augmentation of each row, from top to bottom."""
    nothing = Augmentation(mirror=False)
    rows = {"original": nothing}
    if augmentation.mirror:
        rows["mirror"] = Augmentation(mirror=True)
    if augmentation.crop_shift:
        rows["crop_shift"] = Augmentation(mirror=False, crop_shift=augmentation.crop_shift)
    for name in augmentation.augment.enabled():
        rows[name] = Augmentation(mirror=False, augment=augmentation.augment.only(name))
    return {**rows, "as trained": augmentation}


def _row(crops: CropBatches, augmentation: Augmentation, seed: int) -> list[npt.NDArray[np.uint8]]:
    """Return eight images, the same in every row, each with a gap to its right and below."""
    order = BatchOrder(len(crops.source), _IMAGES, seed=seed, augmentation=augmentation)
    batch = next(batches(crops, order, workers=0, pin_memory=False))
    spec = InputSpec(*crops.size)  # any scale works: to_pixels undoes it
    pixels = to_pixels(to_input(batch.images, spec, batch.mirror, batch.augment), spec).flip(1)  # RGB → BGR
    framed = torch.nn.functional.pad(pixels, (0, _GAP, 0, _GAP), value=255)
    return [np.asarray(image, dtype=np.uint8) for image in framed.permute(0, 2, 3, 1).numpy()]


def _label(text: str, height: int) -> npt.NDArray[np.uint8]:
    strip = np.full((height + _GAP, _LABEL_WIDTH, 3), 255, dtype=np.uint8)
    cv2.putText(strip, text, (4, height // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
