"""The result of a protocol and the report of a set, for the table, JSON, HTML and TensorBoard."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..checkpoint_meta import LEAST_FIGURE, MOST_FIGURE
from ..errors import UserError, shown
from .images import Images

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Rows:
    """A table of a report, as text.

    Attributes:
        header: names of the columns; empty for key figures (see ``key``).
        rows: the cells, one in each row for each column.
        title: title of the table.
        note: a sentence below the table.
        key: the rows are the key figures of the result: ``(name, value, explanation)``. The HTML
            report shows them large.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""
    key: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart of a report.

    Attributes:
        name: name of its file: ``roc`` becomes ``roc.png``.
        title: title of the chart.
        draw: draws the chart and its labels into matplotlib axes.
        note: a sentence below the chart.
    """

    name: str
    title: str
    draw: Callable[[Axes], None]
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A few images that a report shows side by side.

    Attributes:
        images: rows of the set's images.
        text: lines below them.
    """

    images: tuple[int, ...]
    text: tuple[str, ...]


@dataclass(frozen=True)
class Examples:
    """Images that show where a recogniser fails, with a title and a sentence below it."""

    title: str
    items: tuple[Example, ...]
    note: str = ""


class Result(ABC):
    """The outcome of one protocol on one set.

    Your own protocol must implement :meth:`headline`, :meth:`rows` and :meth:`to_dict`; every other
    method has a default.
    """

    file_name: ClassVar[str] = "result.json"
    """Name of the JSON file that holds :meth:`to_dict`."""
    key: ClassVar[str] = "result"
    """Key of :meth:`to_dict` in the JSON file of another protocol that ran on the same images."""

    @abstractmethod
    def headline(self) -> tuple[str, float]:
        """Return the name and the value of the main figure.

        The value is a fraction, and higher for a better recogniser. ``eval.select`` chooses
        checkpoints by it, and tables of several sets show it.
        """

    @abstractmethod
    def rows(self) -> Sequence[Rows]:
        """Return the tables of the report, the most important first."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain types for JSON, in full precision; None if not finite."""

    def heading(self) -> list[str]:
        """Return a few lines that describe the comparison and its rule."""
        return []

    def summary(self) -> list[str]:
        """Return one to three sentences for readers who do not know face recognition."""
        return []

    def doubts(self) -> list[str]:
        """Return a sentence for each reason to doubt the figures, such as pairs without a score."""
        return []

    def figures(self) -> Sequence[Chart]:
        """Return the charts of the report. TensorBoard shows the first one."""
        return ()

    def examples(self) -> Sequence[Examples]:
        """Return images to look at, such as the hardest pairs."""
        return ()

    def figure(self) -> float:
        """Return the value of :meth:`headline`, which a plugin may compute with NumPy or torch.

        Raises:
            UserError: it is no fraction.
        """
        got = self.headline()
        try:
            name, value = got
            number = float(value) if isinstance(name, str) else math.inf
        except (TypeError, ValueError, OverflowError):
            number = math.inf
        if not (LEAST_FIGURE <= number <= MOST_FIGURE or math.isnan(number)):
            raise UserError(
                f"{type(self).__name__}.headline: got {shown(got)} · allowed: a name, and a fraction of at most 1 that "
                "is higher for a better recogniser (0.95, not 95)"
            )
        return number

    def scalars(self) -> dict[str, float]:
        """Return the figures that TensorBoard plots over the steps of a run: tag → value."""
        return {self.headline()[0].lower().replace(" ", "_"): self.figure()}

    def line(self) -> str:
        """Return the headline as text, for a log: ``accuracy 95.20 ± 0.42 %``; and the doubts."""
        (name, _), value = self.headline(), self.figure()
        headline = f"{name} not defined" if math.isnan(value) else f"{name} {100 * value:.2f} %"
        return " · ".join([headline, *self.doubts()])


@dataclass(frozen=True)
class Report:
    """The results of one set.

    Attributes:
        name: name of the set.
        images: images of the set; an :class:`Example` refers to their rows.
        results: the result of the set's own protocol, then those of other protocols on the same
            images.
        about: origin of the embeddings, as plain values for table and JSON: checkpoint, step, ….
        num_undefined: number of images whose embedding is zero or not finite.
        digest: of the set, see :func:`~sphereface.evaluation.set_digest.digest_of`; "" if unknown.
        changed: numbers of images that may have changed since they were embedded.
    """

    name: str
    images: Images
    results: tuple[Result, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    num_undefined: int = 0
    digest: str = ""
    changed: frozenset[int] = frozenset()
