"""Write the model card of an export: its source, recipe, accuracy, intended use and limits."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any

from ..alignment.crop_template import template_of_meta
from ..choices import IR_VERSIONS
from ..errors import shown_key
from ..input_spec import InputSpec
from ..options import option
from ..small_files import parse_form, read_json
from ..yaml_text import dump_yaml
from .formats import Export

_TRAINING_KEYS = (
    "steps",
    "max_minutes",
    "batch_size",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "precision",
    "ema",
)
_TEACHER_FILES = ("embeddings", "onnx", "checkpoint", "input")
CARD_MARK = "for face recognition: it turns an aligned face crop into"
"""A phrase that every card contains."""


@dataclass(frozen=True)
class Quantised:
    """The 8-bit copy beside an export.

    Attributes:
        path: the file.
        cosine: the smallest cosine between its embedding of a crop and PyTorch's, over some of the
            calibration crops.
    """

    path: Path
    cosine: float


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
    parts = [
        _summary(exported),
        _input_and_output(exported),
        _training_data(exported.meta),
        _recipe(exported.meta),
        _evaluation(exported),
        _LIMITS,
        _licence(exported.licence),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(exported: Exported) -> str:
    meta = exported.meta
    model = meta.get("config", {}).get("model", {})
    name, networks = model.get("name", "spherenet"), model.get("networks", 1)
    what = f"A `{name}` network" if networks == 1 else f"An ensemble of {networks} `{name}` networks"
    return (
        f"# {exported.path.name}\n\n"
        f"{what} {CARD_MARK} {exported.dim} numbers. Compare these by cosine.\n\n"
        f"Exported from `{exported.checkpoint.name}`, step {meta.get('step', 'unknown')}, "
        f"SHA-256 `{exported.checkpoint_sha256}`."
    )


def _input_and_output(exported: Exported) -> str:
    spec = exported.export.model.input_spec
    if exported.file_format == "safetensors":
        given = (
            f"Weights only: the network reads {spec.describe()} and returns (B, {exported.dim}). The metadata "
            "holds the architecture under `model`."
        )
    elif exported.file_format == "checkpoint":
        given = _checkpoint(exported)
    else:
        given = _tensors(exported)
    int8 = f"\n\n{_int8(exported.quantised)}" if exported.quantised else ""
    return f"## Input and output\n\n{given}{int8}\n\n{_alignment(spec, exported)}\n{_MIRRORS[exported.export.mirror]}"


def _checkpoint(exported: Exported) -> str:
    half = exported.export.form.half
    return (
        f"A checkpoint of this package: `sphereface verify a.jpg b.jpg --ckpt {exported.path.name}`. It holds only the "
        f"network, which reads {exported.export.model.input_spec.describe()} and returns (B, {exported.dim}). "
        f"Stored in {'float16 (vectors in float32)' if half else 'float32'}; computes in float32. Largest difference "
        f"from the original checkpoint: {exported.difference:.1e} of the largest number."
    )


def _tensors(exported: Exported) -> str:
    """Describe the input and the output of the file."""
    export, spec = exported.export, exported.export.model.input_spec
    fed = export.form.order.upper()
    order = f"The graph converts {fed} to {spec.order.upper()}." if fed != spec.order.upper() else "The graph keeps it."
    lines = [
        f"- `images`: {export.form.describe(export.size, export.batch)}.",
        f"- Batch size: {'any' if export.batch is None else export.batch}.",
        f"- Channel order: feed {fed}; the network was trained on {spec.order.upper()}. {order}",
        f"- Scale: {spec.scale()}, inside the graph. Feed pixels as they are.",
        f"- `embedding`: ({export.batch or 'B'}, {exported.dim}) float32, not normalised.",
        f"- Weights and arithmetic: {'float16' if export.form.half else 'float32'}.",
    ]
    if exported.file_format == "onnx":
        lines.append(f"- ONNX opset {export.opset}, IR version {IR_VERSIONS[export.opset]}.")
    if exported.difference is not None:
        lines.append(f"- Largest difference from PyTorch in float32: {exported.difference:.1e} of the largest number.")
    return "\n".join(lines)


def _int8(quantised: Quantised) -> str:
    return (
        f"`{quantised.path.name}` is the same network in 8-bit integers (QDQ format). Its smallest cosine with the "
        f"32-bit network is {quantised.cosine:.3f}, on a few of the calibration crops. It is faster only "
        "where the processor has 8-bit instructions. Measure its accuracy on your pairs before you use it. OpenCV and "
        "other runtimes compute 8-bit layers in their own way: compare a batch with single crops there."
    )


def _alignment(spec: InputSpec, exported: Exported) -> str:
    """Describe how the crops of this network are aligned."""
    template = template_of_meta(exported.meta, spec.size, exported.checkpoint)
    if template is not None and template.origin != 0:
        points = " ".join(f"({x:g}, {y:g})" for x, y in template.points)
        return (
            f"Crops are {spec.height} high × {spec.width} wide. Five landmarks are aligned to {points}: left eye, "
            "right eye, nose tip, left and right mouth corner, as (x, y) with the first pixel at 0, as in the training "
            "crops (`sphereface align --like TRAINING-CROPS`)."
        )
    names = {(112, 96): "SphereFace's", (112, 112): "ArcFace's"}
    size = f"Crops are {spec.height} high × {spec.width} wide, aligned by five landmarks to"
    if spec.size in names:
        command = f"`sphereface align --size {spec.height}x{spec.width}`"
        return f"{size} {names[spec.size]} template ({command}), as the training crops must be."
    return f"{size} the template of the training crops."


_MIRRORS = {
    "none": "The file embeds the crop alone. `sphereface eval` joins the embeddings of a crop and of its mirror image.",
    "add": "The file adds the embeddings of the crop and of its mirror image. `sphereface eval` joins them instead.",
    "join": "The file joins the embeddings of the crop and of its mirror image, as `sphereface eval` does.",
}


def _training_data(meta: Mapping[str, Any]) -> str:
    train = meta.get("config", {}).get("data", {}).get("train")
    people = len(meta["class_names"]) if "class_names" in meta else meta.get("num_identities")
    parts = [] if train is None else [f"`{PurePath(str(train)).name}`"]
    if "num_images" in meta and isinstance(people, int):
        parts.append(f"{meta['num_images']:,} images of {people:,} people")
    return f"## Training data\n\n{', '.join(parts) or 'Not recorded'}."


def _recipe(meta: Mapping[str, Any]) -> str:
    return f"## Recipe\n\n```yaml\n{dump_yaml(recipe(meta.get('config', {})))}```"


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a configuration that may be published: no paths."""
    given = config.get("train", {})
    train = {key: given[key] for key in _TRAINING_KEYS if key in given}
    teacher = given.get("teacher") or {}
    if teacher.get("losses") or teacher.get("loss"):  # runs before the first release have ``loss``
        train["teacher"] = {key: value for key, value in teacher.items() if key not in _TEACHER_FILES}
    parts = {"model": config.get("model"), "loss": config.get("loss"), "train": train}
    return {key: value for key, value in parts.items() if value}


def _evaluation(exported: Exported) -> str:
    rows = [_row(found) for found in evaluations(exported.checkpoint, exported.checkpoint_sha256)]
    if not rows:
        return (
            "## Evaluation\n\nThere is no evaluation beside this checkpoint, so its accuracy is unknown. "
            f"`sphereface eval --ckpt {exported.checkpoint.name}` evaluates it."
        )
    head = "| pairs | images | accuracy (± standard error) | AUC | EER | TAR at FAR |\n|---|---|---|---|---|---|"
    int8 = "\n\n" + _OTHERS if exported.quantised or exported.export.form.half else ""
    return "\n".join(["## Evaluation\n", head, *rows]) + int8


_OTHERS = "These figures are for the 32-bit network. The copy in lower precision was not evaluated."


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


def _row(found: _Report) -> str:
    spread = "" if found.standard_error is None else f" ± {100 * found.standard_error:.2f}"
    accuracy = "none (no folds)" if found.accuracy is None else f"{100 * found.accuracy:.2f}{spread} %"
    points = [f"{point.tar:.2%} at {point.far:g}" for point in found.tar_at_far if point.tar is not None]
    area = "not resolvable" if found.auc is None else f"{found.auc:.4f}"
    equal = "not resolvable" if found.eer is None else f"{found.eer:.2%}"
    return (
        f"| {_cell(found.name)}, {_cell(PurePath(found.pairs).name)} | {found.num_images:,} | {accuracy} | "
        f"{area} | {equal} | {', '.join(points) or 'not resolvable'} |"
    )


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


def _known(values: object, form: type[Any]) -> Any:
    """Return the declared keys of a form; reports hold many more."""
    if not isinstance(values, dict):
        return values
    return {field.name: values[field.name] for field in fields(form) if field.name in values}


_LIMITS = """\
## Intended use

Comparing faces of people who agreed to it, research on open-set face recognition, and checking published results.

## Limits

- A cosine is no proof of identity. Choose thresholds on pairs like those in your application (`sphereface eval`).
- Accuracy differs with age, skin colour, sex, pose, light and image quality; these effects were not measured here.
  Measure them on your people before you base a decision on a result.
- LFW has mostly frontal photographs of public figures. A result on LFW may not hold on other data.
- There is no liveness detection: a photograph of a face passes for the face.
- Embeddings are biometric data; your local law may forbid or restrict computing and storing them.
- Do not use it for surveillance, or for decisions on a person's rights without human review."""


def _licence(licence: str | None) -> str:
    stated = licence or (
        "The owner of these weights has not stated one. The code that made them has the MIT licence. The terms of the "
        "training data also apply to the weights, and most public face datasets allow research only."
    )
    return f"## Licence\n\n{stated}"
