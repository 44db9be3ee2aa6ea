"""The interface of a sink, and the registry of sinks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from ...config import PLUGIN_HINT
from ...errors import UserError, shown
from ...options import suggest

SINKS: dict[str, type[Sink]] = {}
"""Name in ``log.sinks`` → class. :func:`register_sink` adds to it."""

S = TypeVar("S", bound="type[Sink]")


@dataclass(frozen=True)
class Session:
    """One session of a run: from its start, or from a resume, to the end of the process.

    Attributes:
        folder: the run folder.
        name: ``name`` of the configuration.
        config: the resolved configuration, in plain values.
        step: finished steps, 0 for a new run. Figures of later steps may exist, if they were
            written after the checkpoint.
        evaluates_again: the evaluation of ``step`` is repeated; its figures may exist.
    """

    folder: Path
    name: str = "run"
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    evaluates_again: bool = False


class Sink(ABC):
    """Receives the output of a run, in the order of the steps.

    ``start`` and ``scalars`` are required. The other methods may be left out. An exception ends the
    sink, not the run: one line is logged, and training continues without it.
    """

    background: ClassVar[bool] = False
    """Whether a separate thread makes the calls, so that a slow server delays no training step."""

    @classmethod  # noqa: B027 -- a sink need not check anything
    def check(cls) -> None:
        """Check before the run starts that everything is there.

        Raises:
            UserError: a package is not installed.
        """

    @abstractmethod
    def start(self, session: Session) -> None:
        """Begin, or continue after a resume without writing any step twice."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float], images_seen: int) -> None:
        """Write figures under names such as ``train/loss`` and ``eval/lfw/accuracy``."""

    def histogram(self, step: int, name: str, values: npt.NDArray[np.float32]) -> None:  # noqa: B027
        """Write the distribution of (N,) values."""

    def image(self, step: int, name: str, image: npt.NDArray[np.uint8]) -> None:  # noqa: B027
        """Write an image, (H, W, 3) uint8, RGB."""

    def text(self, step: int, name: str, text: str) -> None:  # noqa: B027
        """Write Markdown."""

    def close(self, complete: bool) -> None:  # noqa: B027
        """End the session.

        Args:
            complete: whether the run reached its end; False if it was stopped or failed.
        """


def register_sink(name: str) -> Callable[[S], S]:
    """Add a sink under the name that ``log.sinks`` uses.

    Raises:
        UserError: the name is taken.
    """
    if name in SINKS:
        raise UserError(f"register_sink: a sink named {name!r} is registered already · give yours another name")

    def register(sink: S) -> S:
        SINKS[name] = sink
        return sink

    return register


def check_sinks(names: Sequence[str]) -> None:
    """Check ``log.sinks`` before a run starts.

    Raises:
        UserError: a name is unknown or there twice, or its package is not installed.
    """
    for number, name in enumerate(names):
        key = f"log.sinks[{number}]: got {shown(name)}"
        if name not in SINKS:
            raise UserError(f"{key}{suggest(name, SINKS)}{PLUGIN_HINT}")
        if name in names[:number]:
            raise UserError(f"{key} twice · allowed: each sink once")
        SINKS[name].check()
