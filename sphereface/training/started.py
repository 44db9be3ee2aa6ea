"""The start time of a run, from its folder. This module imports nothing large."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any


def started_at(about: Mapping[str, Any]) -> datetime:
    """Return when a run started, by its ``run.json``; the earliest time if that is not known.

    A time without a zone is in this machine's zone.
    """
    for form in ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S"):
        try:
            return datetime.strptime(about["started"], form).astimezone(timezone.utc)
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return datetime.min.replace(tzinfo=timezone.utc)
