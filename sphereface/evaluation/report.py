"""What was computed for one set, with where its embeddings come from."""

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
        name: of the set.
        images: of the set; :class:`~sphereface.evaluation.result.Example` names rows of them.
        results: that of the set's own protocol, then those of others on the same images.
        about: where the embeddings come from, as plain values for table and JSON: checkpoint, step,
            ….
        num_undefined: images whose embedding is zero or not finite.
    """

    name: str
    images: Images
    results: tuple[Result, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    num_undefined: int = 0
