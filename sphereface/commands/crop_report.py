"""Find the report of ``sphereface align`` that goes with copies of crops."""

from __future__ import annotations

import logging
from pathlib import Path

from ..alignment.near_reports import folders_of, report_near
from ..alignment.report import REPORT_NAME
from ..errors import refusing
from ..files import read_plain

log = logging.getLogger(__name__)


def report_to_copy(source: Path, root: Path | None) -> dict[str, bytes]:
    """Return the report of ``sphereface align`` that all crops share, name → content; or empty."""
    reports = {report_near(folder) for folder in folders_of(source, root)}
    if len(reports) > 1:
        log.warning("%s: the crops come from several runs of sphereface align: no %s is copied", source, REPORT_NAME)
    path = reports.pop()
    if path is None or reports:
        return {}
    with refusing(f"{path}: cannot be read", "let this user read it, or delete it"):
        return {REPORT_NAME: read_plain(path)}
