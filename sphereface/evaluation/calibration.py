"""Calibrate cosines: the probability of one person, and thresholds at stated false accept rates.

Both are learned from the scores of an evaluation. They are stored beside the checkpoint as
``NAME.calibration.json``, together with its SHA-256 and the use of mirror images. The embeddings
are not centred, because two photographs alone have no meaningful mean.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, refusing, shown, shown_key
from ..files import write_whole
from ..metrics import BoolArray, FloatArray, auc, roc, tar_at_far
from ..metrics.verification import MIN_IMPOSTORS
from ..options import option
from ..small_files import parse_form, read_json, reason
from .platt import logit, platt

LEAST_TAR = 0.9
"""Lowest share of genuine pairs that the default threshold accepts."""
FAR_TARGETS = (1e-1, 5e-2, 2e-2, 1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5)
_FORMAT = 1
_SURE = 2.0  # standard deviations of AUC under chance: 1 in 44 recognisers by pure chance is above
_LARGEST = 1e9  # slope and offset: a cosine times 1e9 is still far from the largest number of float64
_CERTAIN = 40.0  # a logit whose probability is 0 or 1 in float64
_HIGHEST_COSINE = 1.001  # rounding may leave a cosine above 1
_MIRROR = {"join": "with mirror images joined", "add": "with mirror images added", "none": "without mirror images"}


class OtherMirror(UserError):
    """A calibration that was made with another use of mirror images."""


@dataclass(frozen=True)
class Threshold:
    """A threshold: a pair is accepted if its cosine is higher.

    Attributes:
        far: at most this share of the impostor pairs is accepted.
        threshold: a cosine.
        tar: share of the genuine pairs that is accepted.
        num_impostor: number of impostor pairs used.
    """

    far: float = option(above=0, high=1)
    threshold: float = option(low=-_HIGHEST_COSINE, high=_HIGHEST_COSINE)
    tar: float = option(low=0, high=1)
    num_impostor: int = option(low=1)

    @property
    def weak(self) -> bool:
        """Whether the threshold rejects more than one in ten genuine pairs."""
        return self.tar < LEAST_TAR


@dataclass(frozen=True)
class Calibration:
    """The calibration of one checkpoint.

    Attributes:
        checkpoint_sha256: SHA-256 of the checkpoint.
        flip: the embeddings include the mirror image.
        source: the pairs that it was learned from, as text.
        slope, offset: P(one person) = 1 / (1 + exp(−(slope × cosine + offset))), if the share
            ``prior`` of the pairs is genuine.
        prior: the share of genuine pairs in the evaluation.
        thresholds: one for each false accept rate that allows ten impostor pairs or more, the
            highest rate first.
        mirror: how the embeddings of image and mirror image are combined: ``"join"``, ``"add"`` or
            ``"none"``. Older files lack it: they mean ``"join"`` with ``flip``, else ``"none"``.
        plugin: the code of the network, if it is a plugin; see :func:`~sphereface.plugins.code_of`.
    """

    checkpoint_sha256: str = option()
    flip: bool = option()
    source: str = option()
    slope: float = option(above=0, high=_LARGEST)
    offset: float = option(low=-_LARGEST, high=_LARGEST)
    prior: float = option(above=0, below=1)
    thresholds: tuple[Threshold, ...] = option()
    mirror: str = option("join", choices=list(_MIRROR))
    plugin: str = option("")

    def __post_init__(self) -> None:
        if self.slope + _CERTAIN < abs(self.offset) < math.inf:
            raise UserError(
                f"offset: got {self.offset:g} with slope {self.slope:g} · allowed: at most "
                f"±{self.slope + _CERTAIN:g}, or every pair has the same probability"
            )

    def probability(self, cosine: float, prior: float | None = None) -> float:
        """Return P(one person), in [0, 1].

        Args:
            cosine: in [−1, 1].
            prior: the share of genuine pairs in use; None means the share in the evaluation.

        Raises:
            UserError: the prior is not between 0 and 1.
        """
        if prior is not None and not 0 < prior < 1:
            raise UserError(f"prior: got {prior} · allowed: a number between 0 and 1")
        moved = 0.0 if prior is None else logit(prior) - logit(self.prior)
        return _sigmoid(self.slope * cosine + self.offset + moved)

    def at(self, far: float | None = None) -> Threshold:
        """Return the threshold at a false accept rate.

        None means the lowest rate that still accepts :data:`LEAST_TAR` of the genuine pairs. If no
        rate does, it means the highest rate, whose threshold is weak (:attr:`Threshold.weak`).

        Raises:
            UserError: the calibration has no threshold at this rate.
        """
        if far is None:
            return next((point for point in reversed(self.thresholds) if not point.weak), self.thresholds[0])
        for point in self.thresholds:
            if math.isclose(point.far, far, rel_tol=1e-6):
                return point
        allowed = ", ".join(f"{point.far:g}" for point in self.thresholds)
        raise UserError(
            f"FAR: got {far:g} · allowed: {allowed}, which {self.source} resolves · for lower rates, evaluate more "
            "pairs"
        )


def fit_calibration(
    cosines: FloatArray,
    same: BoolArray,
    *,
    checkpoint_sha256: str,
    mirror: str,
    source: str,
    num_repeated: int = 0,
    plugin: str = "",
) -> Calibration:
    """Learn a calibration from labelled pairs.

    The probabilities come from Platt scaling (1999): a logistic regression on the score. Its
    targets are (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2), so that it stays finite if the two kinds of
    pairs do not overlap.

    Args:
        cosines: (P,) float64. The regression ignores pairs without a score (NaN). The thresholds
            count genuine pairs without a score as rejected.
        same: (P,) bool.
        checkpoint_sha256, mirror, source, plugin: see :class:`Calibration`.
        num_repeated: impostor pairs with a score that repeat an earlier pair of the list. They do
            not count for the thresholds.

    Raises:
        UserError: too few pairs have a score, or the cosines do not separate the two kinds.
    """
    defined = np.isfinite(cosines)
    genuine, impostor = int((same & defined).sum()), int((~same & defined).sum())
    if not genuine or not impostor:
        raise UserError(
            f"{source}: got {genuine} genuine and {impostor} impostor pairs with a score · allowed: one or more of "
            "each · add pairs"
        )
    curve = roc(cosines, same)
    resolvable = [point for point in tar_at_far(curve, FAR_TARGETS, num_repeated=num_repeated) if point.resolvable]
    points = [point for point in resolvable if math.isfinite(point.threshold)]
    if not points:
        raise UserError(
            f"{source}: got {impostor - num_repeated} impostor pairs · allowed: 100 or more, for a threshold at FAR "
            "0.1 · add pairs"
        )
    slope, offset = platt(cosines[defined], same[defined])
    if not slope > 0:
        raise UserError(
            f"{source}: genuine pairs do not score higher than impostor pairs · use another recogniser, or check the "
            "labels"
        )
    area = auc(roc(cosines[defined], same[defined]))
    chance = 0.5 + _SURE * math.sqrt((genuine + impostor + 1) / (12 * genuine * impostor))  # Mann and Whitney, 1947
    if not area > chance:
        raise UserError(
            f"{source}: got AUC {area:.4f} · allowed: above {chance:.4f}, which chance alone reaches · use another "
            "recogniser, or add pairs"
        )
    thresholds = tuple(Threshold(p.far, p.threshold, p.tar, p.num_impostor - p.num_repeated) for p in points)
    prior = float(same[defined].mean())
    return Calibration(checkpoint_sha256, mirror != "none", source, slope, offset, prior, thresholds, mirror, plugin)


def calibration_path(file: Path, *, is_checkpoint: bool = True) -> Path:
    """Return the path of the calibration of a file.

    For a checkpoint ``best.pt`` it is ``best.calibration.json`` beside it. For an ONNX file or a
    table it starts with the whole name, ``best.npz.calibration.json``, because a checkpoint of the
    same name may be in the folder.
    """
    return file.with_suffix(".calibration.json") if is_checkpoint else file.with_name(f"{file.name}.calibration.json")


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON.

    Raises:
        UserError: the file cannot be written, or :func:`read_calibration` would refuse its values.
    """
    values = {"format": _FORMAT, **asdict(calibration)}
    try:
        _calibration_of(values)
    except ValueError as error:
        raise UserError(f"{path}: not written: {error} · evaluate on other pairs") from error
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    with refusing(f"{path}: the calibration cannot be written"):
        write_whole(path, text + "\n")


def replaced_calibration(path: Path, new: Calibration) -> str:
    """Return a line about the calibration that a new one replaces; "" without another one."""
    try:
        old = _calibration_of(read_json(path))
    except (OSError, ValueError, UserError):
        return ""
    point = old.at()
    learnt = f"learnt from {shown_key(old.source)}, with threshold {point.threshold:.4f} at FAR {point.far:g}"
    return "" if old == new else f"replaced: a calibration {learnt}"


def read_calibration(path: Path, *, checkpoint_sha256: str, mirror: str, plugin: str = "") -> Calibration:
    """Read a calibration and check that it belongs to a checkpoint and a use of mirror images.

    Args:
        path: the file.
        checkpoint_sha256: SHA-256 of the checkpoint.
        mirror: ``"join"``, ``"add"`` or ``"none"``.
        plugin: the code of the network, if it is a plugin.

    Raises:
        UserError: the file is missing or malformed, or belongs to another checkpoint, to other code
            of its plugin, or to another use of mirror images (:class:`OtherMirror`).
    """
    remake = f"make one: sphereface eval --ckpt … --mirror {mirror} --calibrate"
    try:
        calibration = _calibration_of(read_json(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) · {remake}") from error
    except ValueError as error:
        raise UserError(f"{path}: not a calibration ({reason(error)}) · {remake}") from error
    if calibration.checkpoint_sha256 != checkpoint_sha256:
        raise UserError(
            f"{path}: made for another checkpoint (SHA-256 {shown_key(calibration.checkpoint_sha256[:12])}…, "
            f"this one has {checkpoint_sha256[:12]}…) · {remake}"
        )
    if calibration.plugin not in ("", plugin):  # earlier versions kept none
        raise UserError(f"{path}: made with other code of the plugin of the network · {remake}")
    if calibration.mirror != mirror:
        advice = ", or omit --no-flip (flip=True)" if (calibration.mirror, mirror) == ("join", "none") else ""
        raise OtherMirror(
            f"{path}: made {_MIRROR[calibration.mirror]}, but these embeddings are {_MIRROR[mirror]} · {remake}{advice}"
        )
    return calibration


def _calibration_of(values: dict[str, Any]) -> Calibration:
    """Check and build a calibration; raise a ValueError that names a wrong value."""
    if values.get("format") != _FORMAT or isinstance(values["format"], bool):
        raise ValueError(f"format: got {shown(values.get('format'))} · allowed: {_FORMAT}")
    older = {"mirror": "none"} if values.get("flip") is False else {}
    found = parse_form({key: value for key, value in (older | values).items() if key != "format"}, Calibration)
    if (found.mirror != "none") != found.flip:
        raise ValueError(f"mirror: got {found.mirror} with flip {found.flip} · allowed: none without flip, else others")
    if not found.thresholds:
        raise ValueError("thresholds: got none · allowed: one or more")
    if any(point.far * point.num_impostor + 1e-9 < MIN_IMPOSTORS for point in found.thresholds):
        raise ValueError(f"thresholds: far × num_impostor is below {MIN_IMPOSTORS}, too few impostor pairs")
    for before, after in itertools.pairwise(found.thresholds):
        if after.far >= before.far or after.tar > before.tar or after.threshold < before.threshold:
            raise ValueError(
                f"thresholds: far {after.far:g} after {before.far:g} · allowed: far decreases from each to the next, "
                "tar does not increase, and threshold does not decrease"
            )
    return found


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
