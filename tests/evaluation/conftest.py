"""Evaluations draw their charts, but tests without the marker ``whole_report`` make no images of them."""

from __future__ import annotations

from functools import partial
from io import BytesIO

import pytest

from sphereface.evaluation import write
from sphereface.evaluation.protocols import pairs_result
from sphereface.metrics import bootstrap


class NoImage:
    """In the place of a figure. matplotlib took three quarters of the time of an evaluation of a few images."""

    def savefig(self, file: BytesIO, **options: object) -> None:
        file.write(b"\x89PNG")


@pytest.fixture(autouse=True)
def quick_reports(request, monkeypatch):
    """The intervals are of 50 replicates, which took half of the rest."""
    if request.node.get_closest_marker("whole_report") is None:
        draw = write.figure_of
        monkeypatch.setattr(write, "figure_of", lambda chart: draw(chart) and NoImage())
        monkeypatch.setattr(pairs_result, "bootstrap", partial(bootstrap, replicates=50))
