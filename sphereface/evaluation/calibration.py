"""What a cosine means: the probability of one person, and thresholds at stated false accept rates.

Both are learnt from the scores of an evaluation and kept beside the checkpoint as ``NAME.calibration.json``, tied to it
by its SHA-256. Scores are plain cosines without a mean subtracted, for two photographs have none of their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import write_whole
from ..metrics import BoolArray, FloatArray, roc, tar_at_far

FAR_TARGETS = (1e-1, 5e-2, 2e-2, 1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5)
_FORMAT = 1
_STEPS = 100


@dataclass(frozen=True)
class Threshold:
    """Accept a cosine above ``threshold``: of impostor pairs at most the share ``far`` passes, of genuine ones ``tar``.

    ``num_impostor`` is how many impostor pairs it was measured on.
    """

    far: float
    threshold: float
    tar: float
    num_impostor: int


@dataclass(frozen=True)
class Calibration:
    """What the cosines of one checkpoint mean.

    Attributes:
        checkpoint_sha256: the checkpoint that it belongs to.
        flip: embeddings are of picture and mirror image.
        source: the pairs that it was learnt from, for people.
        slope, offset: P(one person) = 1 / (1 + exp(−(slope × cosine + offset))), where ``prior`` of the pairs are.
        prior: the share of genuine pairs among those that it was learnt from.
        thresholds: at each false accept rate that rests on ten impostor pairs or more, from the highest down.
    """

    checkpoint_sha256: str
    flip: bool
    source: str
    slope: float
    offset: float
    prior: float
    thresholds: tuple[Threshold, ...]

    def probability(self, cosine: float, prior: float | None = None) -> float:
        """P(one person), in [0, 1].

        Args:
            cosine: in [−1, 1].
            prior: the share of genuine pairs among those that are met; None: as many as in the evaluation.
        """
        if prior is not None and not 0 < prior < 1:
            raise UserError(f"prior: got {prior} · allowed: a number between 0 and 1")
        moved = 0.0 if prior is None else _logit(prior) - _logit(self.prior)
        return _sigmoid(self.slope * cosine + self.offset + moved)

    def at(self, far: float | None = None) -> Threshold:
        """The threshold at a false accept rate; None: at the lowest one that the evaluation could resolve.

        Raises:
            UserError: the evaluation has none at that rate.
        """
        if far is None:
            return self.thresholds[-1]
        for point in self.thresholds:
            if math.isclose(point.far, far, rel_tol=1e-6):
                return point
        allowed = ", ".join(f"{point.far:g}" for point in self.thresholds)
        raise UserError(
            f"FAR: got {far:g} · allowed: {allowed} (what {self.source} can resolve) · evaluate on more pairs for less"
        )


def fit_calibration(
    cosines: FloatArray, same: BoolArray, *, checkpoint_sha256: str, flip: bool, source: str
) -> Calibration:
    """Learn what cosines mean from pairs that are known.

    Platt's way (1999): logistic regression on the score with targets (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2), which keeps
    it finite where the two kinds do not overlap, by Newton's method.

    Args:
        cosines: (P,) float64. Pairs without a score (NaN) are left out of the regression; in the thresholds they count
            against the checkpoint, as everywhere.
        same: (P,) bool.
        checkpoint_sha256, flip, source: see :class:`Calibration`.

    Raises:
        UserError: too few pairs for any threshold, or cosines that are lower for one person than for two.
    """
    points = [point for point in tar_at_far(roc(cosines, same), FAR_TARGETS) if point.resolvable]
    if not points:
        raise UserError(
            f"{source}: {(~same).sum()} impostor pairs · a threshold at FAR 0.1, the highest, needs 100 · add pairs"
        )
    defined = np.isfinite(cosines)
    slope, offset = platt(cosines[defined], same[defined])
    if slope <= 0:
        raise UserError(f"{source}: genuine pairs score no higher than impostor pairs · nothing to calibrate")
    thresholds = tuple(Threshold(p.far, p.threshold, p.tar, p.num_impostor) for p in points)
    return Calibration(checkpoint_sha256, flip, source, slope, offset, float(same[defined].mean()), thresholds)


def platt(scores: FloatArray, same: BoolArray) -> tuple[float, float]:
    """Slope and offset of the logistic regression of ``same`` (P,) on ``scores`` (P,), with Platt's targets.

    Minimises −Σ t log p + (1 − t) log(1 − p), p = 1 / (1 + exp(−(slope × score + offset))).
    """
    genuine = int(same.sum())
    target = np.where(same, (genuine + 1) / (genuine + 2), 1 / (len(same) - genuine + 2))
    design = np.stack([scores, np.ones_like(scores)], axis=1)  # (P, 2)
    weights = np.array([0.0, _logit(float(target.mean()))])
    loss = _cross_entropy(design @ weights, target)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(design @ weights)))
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while (new := _cross_entropy(design @ (weights - step), target)) > loss:  # Newton went too far
            step /= 2
            if np.abs(step).max() < 1e-12:
                break
        weights, loss = weights - step, min(loss, new)
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[0]), float(weights[1])


def calibration_path(checkpoint: Path) -> Path:
    """Where the calibration of a checkpoint lies: ``best.calibration.json`` beside ``best.pt``."""
    return checkpoint.with_suffix(".calibration.json")


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write it as JSON. Raises UserError where that cannot be done."""
    try:
        write_whole(path, json.dumps({"format": _FORMAT, **asdict(calibration)}, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"{path}: the calibration cannot be written ({error.strerror})") from error


def read_calibration(path: Path, *, checkpoint_sha256: str, flip: bool) -> Calibration:
    """Read a calibration for the checkpoint with this SHA-256, embedding pictures with or without mirror images.

    Raises:
        UserError: the file is missing or malformed, or was made for another checkpoint or other embeddings.
    """
    remake = "make one: sphereface eval --ckpt … --calibrate"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != _FORMAT:
            raise ValueError("another format")
        numbers = {key: float(found[key]) for key in ("slope", "offset", "prior")}
        calibration = Calibration(**{**found, **numbers, "thresholds": _thresholds(found["thresholds"])})
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) · {remake}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a calibration ({error}) · {remake}") from error
    if calibration.checkpoint_sha256 != checkpoint_sha256:
        raise UserError(
            f"{path}: made for another checkpoint (SHA-256 {calibration.checkpoint_sha256[:12]}…, "
            f"this one has {checkpoint_sha256[:12]}…) · {remake}"
        )
    if calibration.flip != flip:
        names = {True: "with", False: "without"}
        raise UserError(
            f"{path}: made {names[calibration.flip]} mirror images, embeddings here are {names[flip]} · {remake}"
        )
    return calibration


def _thresholds(found: Sequence[dict[str, Any]]) -> tuple[Threshold, ...]:
    points = tuple(
        Threshold(float(p["far"]), float(p["threshold"]), float(p["tar"]), int(p["num_impostor"])) for p in found
    )
    if not points:
        raise ValueError("no thresholds")
    return points


def _cross_entropy(logits: FloatArray, target: FloatArray) -> float:
    return float(np.sum(np.logaddexp(0, logits) - target * logits))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
