"""The network as a Python object: images in, embeddings and comparisons out. docs/api.md shows it
at work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from .alignment.crop_template import template_for
from .alignment.detector import Detector
from .device import choose_device
from .embedded import NO_PIXELS, Embedded, embedded, listed_images, name_of, read_ahead
from .errors import UserError, listed, shown
from .evaluation.calibration import Calibration, calibration_path, read_calibration
from .evaluation.embed import embed_batch
from .faces import Face, FaceReader, Image, Pixels, UnusableImage
from .models import load_model
from .weights import DEFAULT, resolve

__all__ = ["Embedded", "Face", "FaceEmbedder", "Image", "Match", "UnusableImage"]

_UNIT = 1e-3  # how far the length of a unit vector may be from 1


@dataclass(frozen=True)
class Match:
    """How alike two faces are.

    Attributes:
        cosine: in [−1, 1].
        probability: of one person, in [0, 1]. None without a calibration, like all that follow.
        prior: the share of genuine pairs that it holds for.
        same: the decision, cosine > threshold. None too where no rate was stated and each threshold
            of the calibration refuses more than one in ten genuine pairs: the checkpoint is too
            weak to decide.
        threshold: a cosine.
        far: the false accept rate of that threshold on the evaluation's impostor pairs, at most.
        tar: the share of the evaluation's genuine pairs that it accepts.
    """

    cosine: float
    probability: float | None = None
    prior: float | None = None
    same: bool | None = None
    threshold: float | None = None
    far: float | None = None
    tar: float | None = None


class FaceEmbedder:
    """A checkpoint that embeds and compares faces. Not for two threads at a time; make one for
    each.

    Its ``reader`` makes the crops.

    Args:
        checkpoint: ``….pt``; by default :data:`~sphereface.weights.DEFAULT`, the network that ships
            with this package (its data, accuracy and limits: ``docs/use.md``).
        align: find the face of each image and align it; False: images are aligned crops of the
            network's size already (112×112 ones are cut to 112×96 where need be).
        pick: of several faces on an image, the one nearest its ``"centre"``, or the ``"largest"``.
        flip: embeddings are of the crop and its mirror image, as in the paper's evaluation; twice
            as long.
        device: ``"auto"``, ``"cuda"``, ``"cuda:N"``, ``"mps"`` or ``"cpu"``.
        batch_size: images in memory at a time, and mirror images as many.
        calibration: from ``sphereface eval --calibrate``; None: the one beside the checkpoint, if
            there is one.
        detector: with ``align``; None: MTCNN, which ``pip install '.[align]'`` brings.
        template_origin: use the published template with this origin, 0 or 1 (docs/alignment.md);
            None: the template of the training crops, if the checkpoint records it, else the
            published one with origin 0.
        on_several: of an image with several faces ``"take"`` the one that ``pick`` says, ``"skip"``
            it as a problem, or with :meth:`try_embed` take ``"all"``.

    Raises:
        UserError: the checkpoint cannot be used (:class:`~sphereface.checkpoint.BadCheckpoint`),
            the detector is not installed, or an argument is not allowed.
    """

    def __init__(
        self,
        checkpoint: str | Path = DEFAULT,
        *,
        align: bool = True,
        pick: str = "centre",
        flip: bool = True,
        device: str = "auto",
        batch_size: int = 64,
        calibration: str | Path | None = None,
        detector: Detector | None = None,
        template_origin: int | None = None,
        on_several: str = "take",
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise UserError(f"batch_size: got {batch_size!r} · allowed: a whole number, 1 or more")
        if template_origin not in (None, 0, 1):
            raise UserError(f"template_origin: got {template_origin} · allowed: 0, 1")
        self.checkpoint, self.flip = resolve(checkpoint), flip
        self._device, self._batch_size = choose_device(device), batch_size
        self._loaded = load_model(self.checkpoint, self._device)
        self.reader = FaceReader(
            self.input_size, aligned=not align, pick=pick, detector=detector,
            template=template_for(self.meta, self.input_size, self.checkpoint, template_origin) if align else None,
            on_several=on_several,
        )  # fmt: skip
        self._calibration = None if calibration is None else Path(calibration)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the crops that the network reads, in pixels."""
        return self._loaded.input_size

    @property
    def meta(self) -> dict[str, Any]:
        """What the checkpoint says of itself: ``step``, ``run``, ``config``, ``versions``, …."""
        return self._loaded.meta

    @property
    def dim(self) -> int:
        """D, the length of an embedding: the network's, twice with ``flip``."""
        return self._loaded.model.embedding_dim * (2 if self.flip else 1)

    @property
    def settings(self) -> str:
        """How an image becomes an embedding, besides the checkpoint: embeddings of other settings
        do not compare.
        """
        mirrored = "with mirror images" if self.flip else "without mirror images"
        return f"{self.reader.settings}, {mirrored}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the checkpoint as it was read: embeddings of different checkpoints do not
        compare.
        """
        return self._loaded.sha256

    @cached_property
    def calibration(self) -> Calibration | None:
        """What cosines mean; None where no file was given and none lies beside the checkpoint.

        Raises:
            UserError: the file is damaged, or belongs to another checkpoint or another use of
                mirror images.
        """
        path = self._calibration or calibration_path(self.checkpoint)
        if self._calibration is None and not path.exists():
            return None
        return read_calibration(path, checkpoint_sha256=self.sha256, mirror="join" if self.flip else "none")

    def face(self, image: Image) -> Face:
        """Find, align and cut out the face of an image, turned as its EXIF says; or check that it
        is a crop.

        Raises:
            UnusableImage: unreadable, without a face, or a crop of a wrong size.
        """
        return self.reader.read(image, name_of(image))

    def embed(self, images: Iterable[Image]) -> npt.NDArray[np.float32]:
        """Embed images, ``batch_size`` at a time.

        Args:
            images: N images: a list or generator of :data:`Image`, or an array (N, H, W, 3) uint8
                in BGR.

        Returns:
            (N, D) float32 unit vectors: their matrix product is the cosines.

        Raises:
            UnusableImage: how many cannot be used, and the first ten with reasons.
        """
        if self.reader.on_several == "all":
            raise UserError("on_several: got 'all' with embed, which returns a row for each image · use try_embed")
        images = listed_images(images)
        result = self.try_embed(images)
        if result.problems:
            problems = list(result.problems.values())
            if len(images) == 1:
                raise UnusableImage(problems[0])
            raise UnusableImage(f"{len(problems)} of {len(images)} images cannot be used:{listed(problems)}")
        return result.embeddings

    def try_embed(
        self,
        images: Iterable[Image],
        *,
        progress: str | None = None,
        normalise: bool = True,
        on_batch: Callable[[int], object] | None = None,
    ) -> Embedded:
        """As :meth:`embed`, but leave out what cannot be used and say why.

        The next batch is read while the network embeds one.

        Args:
            images: N images.
            progress: title of a progress bar on stderr; None draws none.
            normalise: see :meth:`embed_crops`.
            on_batch: called after each batch with its number of images.
        """
        images = listed_images(images)
        starts = range(0, len(images), self._batch_size)
        batches = [range(start, min(start + self._batch_size, len(images))) for start in starts]
        found: list[tuple[int, Face]] = []  # without their crops
        problems: dict[int, str] = {}
        features = [np.empty((0, self.dim), dtype=np.float32)]
        with (
            ThreadPoolExecutor(1, thread_name_prefix="read") as pool,  # one: a detector is not for two threads
            tqdm(total=len(images), desc=progress, unit="img", disable=progress is None, leave=False) as bar,
        ):
            for numbers, (faces, unusable) in zip(batches, read_ahead(pool, self._faces, images, batches), strict=True):
                problems |= unusable
                for first in range(0, len(faces), self._batch_size):
                    crops = np.stack([face.crop for _, face in faces[first : first + self._batch_size]])
                    features.append(self.embed_crops(crops, normalise=normalise))
                found += [(number, replace(face, crop=NO_PIXELS)) for number, face in faces]
                bar.update(len(numbers))
                if on_batch is not None:
                    on_batch(len(numbers))
        return embedded(found, np.concatenate(features), problems, searched=self.reader.template is not None)

    def verify(self, a: Image, b: Image, *, far: float | None = None, prior: float | None = None) -> Match:
        """Compare two images.

        Args:
            a, b: the images.
            far: the false accept rate to decide at, one of the calibration's; None: the lowest that
                accepts 90 % of the genuine pairs.
            prior: how many of the pairs that you meet are of one person; None: as many as in the
                evaluation.

        Returns:
            Cosine, probability and decision; without a calibration the cosine alone.

        Raises:
            UserError: an image cannot be used, the calibration is not this checkpoint's, or it has
                no such FAR.
        """
        return self.match(*self.embed([a, b]), far=far, prior=prior)

    def match(
        self,
        a: npt.ArrayLike,
        b: npt.ArrayLike,
        *,
        far: float | None = None,
        prior: float | None = None,
    ) -> Match:
        """Compare two embeddings (D,), unit vectors of D = :attr:`dim` numbers; otherwise as
        :meth:`verify`.
        """
        self.check_operating_point(far, prior)
        cosine = float(np.clip(np.dot(self._unit_vector("a", a), self._unit_vector("b", b)), -1, 1))
        calibration = self.calibration
        if calibration is None:
            return Match(cosine)
        point = calibration.at(far)
        return Match(
            cosine,
            probability=calibration.probability(cosine, prior),
            prior=calibration.prior if prior is None else prior,
            same=None if far is None and point.weak else cosine > point.threshold,
            threshold=point.threshold,
            far=point.far,
            tar=point.tar,
        )

    def embed_crops(self, crops: Pixels, *, normalise: bool = True) -> npt.NDArray[np.float32]:
        """Embed crops at once.

        Args:
            crops: (B, H, W, 3) uint8, BGR, (H, W) = :attr:`input_size`; those of :meth:`face`.
            normalise: return unit vectors; False: what the network gives, with ``flip`` the
                embedding of the crop and then that of its mirror image in each row.

        Returns:
            (B, D) float32.
        """
        with torch.inference_mode():
            features = embed_batch(self._loaded.model, crops, self._device, self.flip)
        norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        if not (norms > 0).all() or not np.isfinite(norms).all():
            raise UserError(f"{self.checkpoint}: gives embeddings that are zero or not finite · its training diverged")
        return np.asarray(features / norms, dtype=np.float32) if normalise else features

    def check_operating_point(self, far: float | None, prior: float | None) -> None:
        """Say at once whether decisions can be made at ``far`` and ``prior``, see :meth:`verify`.

        Raises:
            UserError: there is no calibration for them, or it has no such FAR, or the prior is not
                between 0 and 1.
        """
        calibration = self.calibration
        if calibration is not None:
            calibration.at(far)
            calibration.probability(0, prior)
        elif far is not None or prior is not None:
            raise UserError(
                f"far, prior: need {calibration_path(self.checkpoint)}, which is not there · "
                f"make it: sphereface eval --ckpt {self.checkpoint} --calibrate"
            )

    def _unit_vector(self, key: str, value: npt.ArrayLike) -> npt.NDArray[np.float64]:
        allowed = f"allowed: a unit vector of {self.dim} numbers, a row of what embed returns"
        try:
            row = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError(f"{key}: got {shown(value)} · {allowed}") from None
        if row.shape != (self.dim,):
            raise UserError(f"{key}: got shape {row.shape} · {allowed}")
        if not abs(np.linalg.norm(row) - 1) <= _UNIT:
            raise UserError(f"{key}: got a vector of length {np.linalg.norm(row):g} · {allowed}")
        return row

    def _faces(self, images: Sequence[Image], numbers: range) -> tuple[list[tuple[int, Face]], dict[int, str]]:
        """Return the faces of some images, by number, and why other images cannot be used."""
        found, problems = [], {}
        for number in numbers:
            try:
                faces = self.reader.read_faces(images[number], name_of(images[number], number))
                found += [(number, face) for face in faces]
            except UnusableImage as error:
                problems[number] = str(error)
        return found, problems
