"""Write the model card of an export: its source, recipe, accuracy, intended use and limits."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..alignment.crop_template import template_of_meta
from ..checkpoint import origin_of, teacher_of, training_data
from ..choices import IR_VERSIONS
from ..errors import shown_key
from ..options import option
from ..small_files import parse_form, read_json
from ..yaml_text import dump_yaml
from .formats import Export

_TRAIN_KEYS = (
    "steps", "epochs", "max_minutes", "batch_size", "optimizer", "lr", "schedule", "milestones", "lr_decay",
    "warmup_steps", "stages", "momentum", "weight_decay", "clip_grad_norm", "precision", "ema",
)  # fmt: skip
_TEACHER_FILES = ("embeddings", "onnx", "checkpoint", "input")
_MIRRORS = {"join": "", "none": "no mirror image", "add": "mirror image added"}
CARD_MARK = "for face recognition: it turns an aligned face crop into"
"""A phrase that every card contains."""


@dataclass(frozen=True)
class Quantised:
    """The 8-bit copy beside an export.

    Attributes:
        path: the file.
        cosines: (N,) float, the cosine between its embedding of each calibration crop and
            PyTorch's.
    """

    path: Path
    cosines: npt.NDArray[np.float64]

    @property
    def smallest(self) -> float:
        """Return the smallest cosine."""
        return float(self.cosines.min())

    @property
    def median(self) -> float:
        """Return the median cosine."""
        return float(np.median(self.cosines))


@dataclass(frozen=True)
class Exported:
    """The contents of a card.

    Attributes:
        path: the file.
        file_format: ``"onnx"``, ``"torchscript"``, ``"safetensors"`` or ``"checkpoint"``.
        export: the network, and how it was exported.
        checkpoint, checkpoint_sha256: its source.
        meta: metadata of the checkpoint.
        difference: from PyTorch, relative to the largest number; None for bare weights.
        licence: of the weights, as their owner states it; None where unknown.
        quantised: the 8-bit copy beside it.
    """

    path: Path
    file_format: str
    export: Export
    checkpoint: Path
    checkpoint_sha256: str
    meta: Mapping[str, Any]
    difference: float | None = None
    licence: str | None = None
    quantised: Quantised | None = None

    @property
    def dim(self) -> int:
        """Return the length of an embedding from the file."""
        return self.export.model.embedding_dim * (2 if self.export.mirror == "join" else 1)


def card(exported: Exported) -> str:
    """Return the card in Markdown."""
    environment = Environment(
        loader=PackageLoader("sphereface", "export"),
        autoescape=False,  # noqa: S701 -- Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    meta, size = exported.meta, exported.export.size
    return environment.get_template("card.md.j2").render(
        e=exported,
        mark=CARD_MARK,
        ir_versions=IR_VERSIONS,
        template=template_of_meta(meta, size, exported.checkpoint),
        training_data=training_data(meta),
        origin=origin_of(meta),
        teacher=teacher_of(meta),
        recipe=dump_yaml(recipe(meta.get("config", {}))),
        reports=evaluations(exported.checkpoint, exported.checkpoint_sha256),
        others=other_evaluations(exported.checkpoint, exported.checkpoint_sha256),
        cell=_cell,
        file_name=lambda path: PurePath(path).name,
    )


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a configuration that may be published: no paths."""
    given = config.get("train", {})
    train = {key: given[key] for key in _TRAIN_KEYS if given.get(key) not in (None, [], ())}
    teacher = given.get("teacher") or {}
    if teacher.get("losses") or teacher.get("loss"):  # runs before the first release have ``loss``
        train["teacher"] = {key: value for key, value in teacher.items() if key not in _TEACHER_FILES}
    parts = {"model": config.get("model"), "loss": config.get("loss"), "train": train}
    return {key: value for key, value in parts.items() if value}


@dataclass(frozen=True)
class _Point:
    """A point of ``tar_at_far`` in a report; ``tar`` is None where there are too few pairs."""

    far: float = option(low=0, high=1)
    tar: float | None = option(low=0, high=1)


@dataclass(frozen=True)
class _Report:
    """The keys of a ``verification.json`` that a card uses."""

    checkpoint_sha256: str = option()
    name: str = option()
    pairs: str = option()
    num_images: int = option(low=0)
    accuracy: float | None = option(low=0, high=1)
    standard_error: float | None = option(low=0, high=1)
    auc: float | None = option(low=0, high=1)
    eer: float | None = option(low=0, high=1)
    tar_at_far: tuple[_Point, ...] = option()
    flip: bool = option(True)
    mirror: str = option("join", choices=tuple(_MIRRORS))
    subtract_mean: bool = option(True)
    precision: str = option("fp32", choices=("fp32", "bf16"))

    def rule(self) -> str:
        """Return what differs from the protocol, in words that follow the name of the set."""
        centred = self.subtract_mean and self.accuracy is not None  # without folds nothing is centred
        parts = [
            _MIRRORS[self.mirror if self.flip else "none"],
            "" if centred else "not centred",
            "" if self.precision == "fp32" else self.precision,
        ]
        return "".join(f", {part}" for part in parts if part)


def _cell(text: str) -> str:
    """Return a text for one cell of a table: one line, without the character that ends a cell."""
    return shown_key(text).replace("|", "¦")


def evaluations(checkpoint: Path, sha256: str) -> list[_Report]:
    """Return the reports of ``sphereface eval`` on this exact checkpoint, in folders beside it."""
    found = []
    for path in sorted(checkpoint.parent.glob("eval*/**/verification.json")):
        with contextlib.suppress(OSError, ValueError):  # unreadable reports are skipped; the card names those it uses
            values = _known(read_json(path), _Report)
            if values.get("checkpoint_sha256") == sha256:
                points = values.get("tar_at_far")
                values["tar_at_far"] = [_known(each, _Point) for each in points] if isinstance(points, list) else points
                found.append(parse_form(values, _Report))
    return found


def other_evaluations(checkpoint: Path, sha256: str) -> list[tuple[str, str, str]]:
    """Return (set, folder, main figure) of each evaluation of this checkpoint, except of pairs."""
    found = []
    for path in sorted(checkpoint.parent.glob("eval*/**/*.json")):
        with contextlib.suppress(OSError, ValueError):
            values = read_json(path)
            name, headline = values.get("name"), values.get("headline", f"see {path.name}")  # earlier ones have none
            ours = values.get("checkpoint_sha256") == sha256 and "num_undefined_embeddings" in values
            if ours and path.name != "verification.json" and isinstance(name, str) and isinstance(headline, str):
                found.append((name, path.parent.relative_to(checkpoint.parent).as_posix(), headline))
    return found


def _known(values: object, form: type[Any]) -> Any:
    """Return the declared keys of a form; reports hold many more."""
    if not isinstance(values, dict):
        return values
    return {field.name: values[field.name] for field in fields(form) if field.name in values}
