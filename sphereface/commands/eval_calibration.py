"""The calibration that ``sphereface eval --calibrate`` learns from its report."""

import sys
from pathlib import Path

import numpy as np

from ..errors import printable
from ..evaluation import PairsResult, Report, calibration_path, fit_calibration, write_calibration
from ..evaluation.calibration import replaced_calibration
from ..evaluation.labels import num_repeated_impostors
from ..evaluation.source import Source
from ..weights import output_place
from .printed_options import word

_MOST_NAMED = 3  # images that a note names


def calibration_place(source: Source) -> Path:
    """Return the path of the calibration that :func:`calibrate` writes."""
    return calibration_path(output_place(source.path), is_checkpoint="checkpoint" in source.about())


def calibrate(source: Source, report: Report) -> str:
    """Write the calibration beside the source; return the lines to print."""
    result = report.results[0]
    assert isinstance(result, PairsResult)
    sys.stderr.write(_note_on_undefined(report, result))
    calibration = fit_calibration(
        result.cosines, result.pairs.same,
        checkpoint_sha256=source.sha256, mirror=result.embeddings.mirrored, source=str(result.pairs.path),
        num_repeated=num_repeated_impostors(result.pairs, result.cosines), plugin=source.code,
    )  # fmt: skip
    path = calibration_place(source)
    replaced = replaced_calibration(path, calibration)
    write_calibration(calibration, path)
    rows = "\n".join(f"{p.far:7g} {p.threshold:10.4f} {p.tar:8.2%}" for p in calibration.thresholds)
    moved = output_place(source.path) != source.path  # the network that ships has a calibration beside it
    elsewhere = f" · to use it: sphereface verify a.jpg b.jpg --calibration {word(str(path))}" if moved else ""
    return (
        f"    FAR  threshold      TAR  (cosines of embeddings that are not centred)\n{rows}\n"
        f"P(one person) = 1 / (1 + exp(-({calibration.slope:.3f} × cosine {calibration.offset:+.3f}))), "
        f"where {calibration.prior:.0%} of the pairs are of one person\nwritten: {path}{elsewhere}"
        + (f"\n{replaced}" if replaced else "")
    )


def _note_on_undefined(report: Report, result: PairsResult) -> str:
    """Return a line that names the images without a usable embedding; empty if there is none."""
    rows = np.flatnonzero(result.embeddings.undefined()).tolist()
    if not rows:
        return ""
    names = ", ".join(printable(report.images.label(row)) for row in rows[:_MOST_NAMED])
    return (
        f"note: --calibrate: {len(rows):,} of {len(report.images):,} images have an embedding that is zero or not "
        f"finite: {names}{', …' if len(rows) > _MOST_NAMED else ''} · the probabilities ignore their pairs, the "
        "thresholds count their genuine pairs as rejected\n"
    )
