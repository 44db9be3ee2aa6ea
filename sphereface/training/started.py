"""When a run started, by what its folder says. This module imports nothing large."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any


def started_at(about: Mapping[str, Any]) -> datetime:
    """Return when a run started, by its ``run.json``; long ago where that does not say.

    A time without a zone is one of this machine's.
    """
    for form in ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S"):
        try:
            return datetime.strptime(about["started"], form).astimezone(timezone.utc)
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return datetime.min.replace(tzinfo=timezone.utc)
