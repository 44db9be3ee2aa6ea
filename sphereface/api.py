"""Embed and compare faces in Python. ``docs/api.md`` shows examples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from .alignment.crop_template import template_for
from .alignment.detector import Detector
from .device import choose_device
from .embedded import NO_PIXELS, Embedded, checked_crops, embedded, images_given, in_batches, name_of, read_batch
from .errors import UserError, listed, shown
from .evaluation.calibration import Calibration
from .evaluation.embed import embed_batch, map_ahead
from .faces import Face, FaceReader, Image, Pixels, UnusableImage
from .match import Match, check_rates, compare, find_calibration, unit_vector
from .models import load_model
from .plugins import code_of
from .weights import DEFAULT, resolve

__all__ = ["Embedded", "Face", "FaceEmbedder", "Image", "Match", "UnusableImage"]


class FaceEmbedder:
    """Embed and compare faces with one checkpoint.

    Two threads must not share an embedder: make one for each thread. Its ``reader`` makes the
    crops.

    Args:
        checkpoint: ``….pt``; by default :data:`~sphereface.weights.DEFAULT`, the network that ships
            with this package. ``docs/use.md`` gives its data, accuracy and limits.
        align: find the face of each image and align it. False: the images are aligned crops of the
            network's size. A network of 112×96 also takes 112×112 crops and cuts them.
        pick: which of several faces to take: the one nearest the ``"centre"`` of the image, or the
            ``"largest"``.
        flip: join the embeddings of the crop and its mirror image, as the paper's evaluation does.
            The embedding is twice as long.
        device: ``"auto"``, ``"cuda"``, ``"cuda:N"``, ``"mps"`` or ``"cpu"``.
        batch_size: number of images that the network embeds at a time, without their mirror images.
            One more batch is read meanwhile.
        calibration: a file from ``sphereface eval --calibrate``. None: the file beside the
            checkpoint, if there is one.
        detector: finds the faces if ``align`` is set. Its attribute ``name`` is a part of
            :attr:`settings`. None: MTCNN, which needs ``pip install '.[align]'``.
        template_origin: use the published template with this origin, 0 or 1 (docs/alignment.md).
            None: the template of the training crops if the checkpoint records it, otherwise the
            published template with origin 0.
        on_several: what to do with an image of several faces: ``"take"`` the one that ``pick``
            chooses, ``"skip"`` the image as a problem, or take ``"all"`` (:meth:`try_embed` only).

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
        for key, path in (("checkpoint", checkpoint), ("calibration", calibration or "")):
            if not isinstance(path, str | Path):
                raise UserError(f"{key}: got {shown(path)} · allowed: the path of a file")
        for key, flag in (("align", align), ("flip", flip)):
            if not isinstance(flag, bool | np.bool_):
                raise UserError(f"{key}: got {shown(flag)} · allowed: True, False")
        if detector is not None and not callable(detector):
            raise UserError(f"detector: got {shown(detector)} · allowed: a Detector, or None for MTCNN")
        if not isinstance(device, str):
            raise UserError(f"device: got {shown(device)} · allowed: auto, cpu, mps, cuda or cuda:N, as text")
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
        """Metadata of the checkpoint: ``step``, ``run``, ``config``, ``versions``, …."""
        return self._loaded.meta

    @property
    def dim(self) -> int:
        """D, the length of an embedding: that of the network, or twice that with ``flip``."""
        return self._loaded.model.embedding_dim * (2 if self.flip else 1)

    @property
    def settings(self) -> str:
        """How an image becomes an embedding, in one line.

        Embeddings can only be compared if their checkpoints and their settings are equal.

        Raises:
            UserError: the detector has no name.
        """
        mirrored = "with mirror images" if self.flip else "without mirror images"
        return f"{self.reader.settings}, {mirrored}{f', network by plugin {self._code}' if self._code else ''}"

    @property
    def _code(self) -> str:
        return code_of(self._loaded.model.modules())

    @property
    def sha256(self) -> str:
        """SHA-256 of the checkpoint file when it was loaded."""
        return self._loaded.sha256

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the checkpoint; None without one for this use of mirror images.

        Raises:
            UserError: see :func:`~sphereface.match.find_calibration`.
        """
        return self._found_calibration[0]

    @property
    def why_uncalibrated(self) -> str:
        """Why the calibration beside the checkpoint is not used; empty if it is used or missing."""
        return self._found_calibration[1]

    @cached_property
    def _found_calibration(self) -> tuple[Calibration | None, str]:
        mirror = "join" if self.flip else "none"
        return find_calibration(
            self.checkpoint, self._calibration, sha256=self.sha256, mirror=mirror, plugin=self._code
        )

    def face(self, image: Image) -> Face:
        """Find the face of an image and align it; without ``align`` check the size of a crop.

        An image file is turned as its EXIF data require.

        Raises:
            UnusableImage: the image is unreadable, has no face, or is a crop of a wrong size.
        """
        return self.reader.read(image, name_of(image))

    def embed(self, images: Iterable[Image]) -> npt.NDArray[np.float32]:
        """Embed images, ``batch_size`` at a time.

        Args:
            images: N images: a list or generator of :data:`Image`, or an array (N, H, W, 3) uint8
                in BGR.

        Returns:
            (N, D) float32 unit vectors. The dot product of two of them is their cosine.

        Raises:
            UnusableImage: some images cannot be used. The message gives their number, and the
                first ten with reasons.
        """
        if self.reader.on_several == "all":
            raise UserError("on_several: got 'all' with embed, which returns a row for each image · use try_embed")
        counts = list[int]()
        result = self.try_embed(images, on_batch=counts.append)
        if result.problems:
            problems = list(result.problems.values())
            if sum(counts) == 1:
                raise UnusableImage(problems[0])
            raise UnusableImage(f"{len(problems)} of {sum(counts)} images cannot be used:{listed(problems)}")
        return result.embeddings

    def try_embed(
        self,
        images: Iterable[Image],
        *,
        progress: str | None = None,
        normalise: bool = True,
        on_batch: Callable[[int], object] | None = None,
    ) -> Embedded:
        """Embed images like :meth:`embed`, but leave out those that cannot be used.

        The result gives the reason for each image that was left out. A thread reads the next batch
        while the network embeds the current one.

        Args:
            images: N images.
            progress: title of a progress bar on stderr; None draws no bar.
            normalise: see :meth:`embed_crops`.
            on_batch: function that is called after each batch with its number of images. It must
                not use this embedder, which reads the next batch meanwhile.
        """
        images = images_given(images)
        total = None if isinstance(images, itertools.chain) else len(images)
        found: list[tuple[int, Face]] = []  # without their crops
        problems: dict[int, str] = {}
        features = [np.empty((0, self.dim), dtype=np.float32)]
        with (
            ThreadPoolExecutor(1, thread_name_prefix="read") as pool,  # threads cannot share a detector
            tqdm(total=total, desc=progress, unit="img", disable=progress is None, leave=False) as bar,
        ):
            read, batches = partial(read_batch, self.reader), in_batches(images, self._batch_size)
            in_turn = total is None  # a generator may use this embedder, such as its method face
            for count, faces, unusable in map_ahead(pool, read, batches, ahead=1, in_turn=in_turn):
                problems |= unusable
                for first in range(0, len(faces), self._batch_size):
                    crops = np.stack([face.crop for _, face in faces[first : first + self._batch_size]])
                    features.append(self.embed_crops(crops, normalise=normalise))
                found += [(number, replace(face, crop=NO_PIXELS)) for number, face in faces]
                faces.clear()  # their crops are not needed while the next batch is read
                bar.update(count)
                if on_batch is not None:
                    on_batch(count)
        return embedded(found, np.concatenate(features), problems, searched=self.reader.template is not None)

    def verify(self, a: Image, b: Image, *, far: float | None = None, prior: float | None = None) -> Match:
        """Compare two images.

        Args:
            a, b: the images.
            far: false accept rate of the decision, one of the calibration's. None: the lowest one
                that accepts 90 % of the genuine pairs.
            prior: share of genuine pairs among the pairs that you compare. None: that of the
                evaluation.

        Returns:
            Cosine, probability and decision; without a calibration the cosine alone.

        Raises:
            UserError: an image cannot be used, the calibration belongs to another checkpoint, or it
                has no such FAR.
        """
        return self.match(*self.embed([a, b]), far=far, prior=prior)

    def match(
        self, a: npt.ArrayLike, b: npt.ArrayLike, *, far: float | None = None, prior: float | None = None
    ) -> Match:
        """Compare two embeddings like :meth:`verify`.

        Args:
            a, b: (D,) unit vectors of D = :attr:`dim` numbers.
            far, prior: see :meth:`verify`.
        """
        self.check_operating_point(far, prior)
        first, second = unit_vector("a", a, self.dim), unit_vector("b", b, self.dim)
        return compare(first, second, self.calibration, far=far, prior=prior)

    def embed_crops(self, crops: Pixels, *, normalise: bool = True) -> npt.NDArray[np.float32]:
        """Embed crops in one batch.

        Args:
            crops: (B, H, W, 3) uint8, BGR, (H, W) = :attr:`input_size`, such as those of
                :meth:`face`.
            normalise: return unit vectors. False: return the output of the network. With ``flip``
                a row is the embedding of the crop, then that of its mirror image.

        Returns:
            (B, D) float32.

        Raises:
            UserError: ``crops`` is not such an array, or an embedding is zero or not finite.
        """
        crops = checked_crops(crops, self.input_size)
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            features = embed_batch(self._loaded.model, crops, self._device, self.flip)
        norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        if not (norms > 0).all() or not np.isfinite(norms).all():
            raise UserError(
                f"{self.checkpoint}: its embeddings are zero or not finite, so its training diverged · "
                "give another checkpoint"
            )
        return np.asarray(features / norms, dtype=np.float32) if normalise else features

    def check_operating_point(self, far: float | None, prior: float | None) -> None:
        """Refuse a ``far`` or ``prior`` that :meth:`verify` cannot use.

        Raises:
            UserError: they need a calibration and there is none, it has no such FAR, or the prior
                is not between 0 and 1.
        """
        check_rates(
            self.calibration, far, prior, none=self.why_uncalibrated, checkpoint=self.checkpoint, flip=self.flip
        )
