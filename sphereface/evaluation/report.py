"""The results of one set, and the origin of its embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .images import Images
from .result import Result


@dataclass(frozen=True)
class Report:
    """The results of one set.

    Attributes:
        name: name of the set.
        images: images of the set; an :class:`~sphereface.evaluation.result.Example` refers to their
            rows.
        results: the result of the set's own protocol, then those of other protocols on the same
            images.
        about: origin of the embeddings, as plain values for table and JSON: checkpoint, step, ….
        num_undefined: number of images whose embedding is zero or not finite.
    """

    name: str
    images: Images
    results: tuple[Result, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    num_undefined: int = 0
