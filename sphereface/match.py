"""Compare two embeddings: their cosine, and the probability and decision of a calibration."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import UserError, shown
from .evaluation.calibration import Calibration, OtherMirror, calibration_path, read_calibration
from .weights import CHECKPOINT, DEFAULT, output_place

_UNIT = 1e-3  # how far the length of a unit vector may be from 1


@dataclass(frozen=True)
class Match:
    """The result of a comparison of two faces.

    Without a calibration all attributes but ``cosine`` are None.

    Attributes:
        cosine: in [−1, 1].
        probability: that both faces show one person, in [0, 1].
        prior: the share of genuine pairs that this probability assumes.
        same: the decision, cosine > threshold. It is also None if the caller gave no FAR and each
            threshold of the calibration refuses more than one in ten genuine pairs. The checkpoint
            is too weak to decide then.
        threshold: a cosine.
        far: the false accept rate of that threshold on the evaluation's impostor pairs, at most.
        tar: the share of the evaluation's genuine pairs that the threshold accepts.
    """

    cosine: float
    probability: float | None = None
    prior: float | None = None
    same: bool | None = None
    threshold: float | None = None
    far: float | None = None
    tar: float | None = None


def compare(
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    calibration: Calibration | None,
    *,
    far: float | None,
    prior: float | None,
) -> Match:
    """Compare two unit vectors (D,).

    Args:
        a, b: what :func:`unit_vector` returns.
        calibration: of the checkpoint; None gives the cosine alone.
        far: false accept rate of the decision, one of the calibration's; None: the lowest one that
            accepts 90 % of the genuine pairs.
        prior: share of genuine pairs; None: that of the evaluation.

    Raises:
        UserError: the calibration has no such FAR, or the prior is not between 0 and 1.
    """
    cosine = float(np.clip(np.dot(a, b), -1, 1))
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


def find_calibration(
    checkpoint: Path, given: Path | None, *, sha256: str, mirror: str, plugin: str = ""
) -> tuple[Calibration | None, str]:
    """Return the calibration of a checkpoint, and why the file beside the checkpoint does not fit.

    Args:
        checkpoint: its file.
        given: file of the calibration; None: the file beside the checkpoint, if there is one.
        sha256: of the checkpoint.
        mirror: ``"join"`` or ``"none"``, the use of mirror images.
        plugin: see :class:`~sphereface.evaluation.calibration.Calibration`.

    Returns:
        The calibration and an empty text. Without a file None and an empty text. If the file beside
        the checkpoint was made with another use of mirror images, None and the reason.

    Raises:
        UserError: the file is damaged, belongs to another checkpoint or to other code of its
            plugin, or ``given`` was made with another use of mirror images.
    """
    path = given or calibration_path(checkpoint)
    if given is None and not path.exists():
        return None, ""
    try:
        return read_calibration(path, checkpoint_sha256=sha256, mirror=mirror, plugin=plugin), ""
    except OtherMirror as error:
        if given is not None:
            raise
        return None, _why_not_shipped() if checkpoint == CHECKPOINT else str(error)


def _why_not_shipped() -> str:
    """Return why the calibration of the shipped network is not used. No evaluation replaces it."""
    return (
        f"the calibration of {DEFAULT} is for embeddings with mirror images · omit --no-flip (flip=True), or make one: "
        f"sphereface eval --ckpt {DEFAULT} --mirror none --calibrate, and give it: --calibration "
        f"{calibration_path(output_place(CHECKPOINT))}"
    )


def check_rates(
    calibration: Calibration | None,
    far: float | None,
    prior: float | None,
    *,
    none: str,
    checkpoint: Path,
    flip: bool = True,
) -> None:
    """Refuse a ``far`` or ``prior`` that :func:`compare` cannot use.

    Args:
        calibration: None if there is none.
        far, prior: see :func:`compare`.
        none: why the calibration beside the checkpoint is not used; empty if there is none.
        checkpoint: its file.
        flip: whether the embeddings have mirror images.

    Raises:
        UserError: one is not a number, or the calibration is missing or does not allow it.
    """
    for key, value in (("far", far), ("prior", prior)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise UserError(f"{key}: got {shown(value)} · allowed: a number between 0 and 1, or None")
    if calibration is not None:
        calibration.at(far)
        calibration.probability(0, prior)
    elif far is not None or prior is not None:
        raise UserError(
            none
            or f"far, prior: need the file {calibration_path(checkpoint)}, which does not exist · "
            f"make it: sphereface eval --ckpt {shlex.quote(str(checkpoint))}"
            f"{'' if flip else ' --mirror none'} --calibrate"
        )


def unit_vector(key: str, value: npt.ArrayLike, dim: int) -> npt.NDArray[np.float64]:
    """Return an embedding as float64.

    Args:
        key: what messages call it.
        value: (D,) numbers.
        dim: D.

    Raises:
        UserError: it is not a unit vector of D numbers.
    """
    allowed = f"allowed: a unit vector of {dim} numbers, a row of what embed returns"
    try:
        given = np.asarray(value)
        if given.dtype.kind == "c":  # numpy would drop the imaginary parts
            raise TypeError
        row = given.astype(np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{key}: got {shown(value)} · {allowed}") from None
    if row.shape != (dim,):
        raise UserError(f"{key}: got shape {row.shape} · {allowed}")
    if not abs(np.linalg.norm(row) - 1) <= _UNIT:
        raise UserError(f"{key}: got a vector of length {np.linalg.norm(row):g} · {allowed}")
    return row
