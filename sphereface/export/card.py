"""The model card of an export: what it is, what it was made from, what it is worth, what it is not
for.
"""

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
"""In every card."""


@dataclass(frozen=True)
class Quantised:
    """The 8-bit copy beside an export.

    Attributes:
        path: the file.
        cosine: the smallest one between its embedding of a crop and PyTorch's, over some of the
            crops that gave ranges.
    """

    path: Path
    cosine: float


@dataclass(frozen=True)
class Exported:
    """What a card is about.

    Attributes:
        path: the file.
        file_format: ``"onnx"``, ``"torchscript"``, ``"safetensors"`` or ``"checkpoint"``.
        export: the network, and how it was exported.
        checkpoint, checkpoint_sha256: where it comes from.
        meta: what the checkpoint says of itself.
        difference: from PyTorch, relative to the largest number; None for bare weights.
        licence: of the weights, as their owner says; None: not said.
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
        """Length of an embedding that the file gives."""
        return self.export.model.embedding_dim * (2 if self.export.mirror == "join" else 1)


def card(exported: Exported) -> str:
    """Return the card in Markdown."""
    parts = [
        _what(exported), _use(exported), _data(exported.meta), _recipe(exported.meta), _worth(exported), _LIMITS,
        _licence(exported.licence),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _what(exported: Exported) -> str:
    meta = exported.meta
    model = meta.get("config", {}).get("model", {})
    name, networks = model.get("name", "spherenet"), model.get("networks", 1)
    what = f"A `{name}` network" if networks == 1 else f"{networks} `{name}` networks, side by side"
    return (
        f"# {exported.path.name}\n\n"
        f"{what} {CARD_MARK} {exported.dim} numbers. Compare these by cosine.\n\n"
        f"Exported from `{exported.checkpoint.name}`, step {meta.get('step', 'unknown')}, "
        f"SHA-256 `{exported.checkpoint_sha256}`."
    )


def _use(exported: Exported) -> str:
    spec = exported.export.model.input_spec
    if exported.file_format == "safetensors":
        given = (
            f"The weights alone: the network reads {spec.describe()} and returns (B, {exported.dim}). The metadata "
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
        f"A checkpoint of this package: `sphereface verify a.jpg b.jpg --ckpt {exported.path.name}`. It holds the "
        f"network alone, which reads {exported.export.model.input_spec.describe()} and returns (B, {exported.dim}). "
        f"Stored in {'float16 (vectors in float32)' if half else 'float32'}; computes in float32. Largest difference "
        f"from the checkpoint that it comes from: {exported.difference:.1e} of the largest number."
    )


def _tensors(exported: Exported) -> str:
    """Describe what a program feeds and what it gets."""
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
        f"32-bit network is {quantised.cosine:.3f}, on a few of the crops that gave its ranges. It is faster only "
        "where the processor has 8-bit instructions. Measure its accuracy on your pairs before you use it. OpenCV and "
        "other runtimes compute 8-bit layers in their own way: compare a batch with single crops there."
    )


def _alignment(spec: InputSpec, exported: Exported) -> str:
    """Say how the crops of this network are aligned."""
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


def _data(meta: Mapping[str, Any]) -> str:
    train = meta.get("config", {}).get("data", {}).get("train")
    people = len(meta["class_names"]) if "class_names" in meta else meta.get("num_identities")
    parts = [] if train is None else [f"`{PurePath(str(train)).name}`"]
    if "num_images" in meta and isinstance(people, int):
        parts.append(f"{meta['num_images']:,} images of {people:,} people")
    return f"## Training data\n\n{', '.join(parts) or 'Not recorded'}."


def _recipe(meta: Mapping[str, Any]) -> str:
    return f"## Recipe\n\n```yaml\n{dump_yaml(recipe(meta.get('config', {})))}```"


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration a stranger may read: network, loss and how it was trained,
    without paths.
    """
    given = config.get("train", {})
    train = {key: given[key] for key in _TRAINING_KEYS if key in given}
    teacher = given.get("teacher") or {}
    if teacher.get("losses") or teacher.get("loss"):  # the second in runs of before the release
        train["teacher"] = {key: value for key, value in teacher.items() if key not in _TEACHER_FILES}
    parts = {"model": config.get("model"), "loss": config.get("loss"), "train": train}
    return {key: value for key, value in parts.items() if value}


def _worth(exported: Exported) -> str:
    rows = [_row(found) for found in evaluations(exported.checkpoint, exported.checkpoint_sha256)]
    if not rows:
        return (
            "## Evaluation\n\nNo evaluation of this checkpoint lies beside it: nothing is known of its accuracy. "
            f"`sphereface eval --ckpt {exported.checkpoint.name}` makes one."
        )
    head = "| pairs | images | accuracy (± standard error) | AUC | EER | TAR at FAR |\n|---|---|---|---|---|---|"
    int8 = "\n\n" + _OTHERS if exported.quantised or exported.export.form.half else ""
    return "\n".join(["## Evaluation\n", head, *rows]) + int8


_OTHERS = "These are figures of the 32-bit network. The copy in lower precision was not evaluated here."


@dataclass(frozen=True)
class _Point:
    """Of ``tar_at_far`` in a report; ``tar`` is None where the pairs are too few for ``far``."""

    far: float = option(low=0, high=1)
    tar: float | None = option(low=0, high=1)


@dataclass(frozen=True)
class _Report:
    """What a card takes from a ``verification.json``."""

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
    """Return a text for one cell of a table: on one line, without what ends a cell."""
    return shown_key(text).replace("|", "¦")


def evaluations(checkpoint: Path, sha256: str) -> list[_Report]:
    """What ``sphereface eval`` found for this very checkpoint, in the folders beside it."""
    found = []
    for path in sorted(checkpoint.parent.glob("eval*/**/verification.json")):
        with contextlib.suppress(OSError, ValueError):  # not ours to mend; the card says what it rests on
            values = _known(read_json(path), _Report)
            if values.get("checkpoint_sha256") == sha256:
                points = values.get("tar_at_far")
                values["tar_at_far"] = [_known(each, _Point) for each in points] if isinstance(points, list) else points
                found.append(parse_form(values, _Report))
    return found


def _known(values: object, form: type[Any]) -> Any:
    """Return what a form declares; reports hold much more."""
    if not isinstance(values, dict):
        return values
    return {field.name: values[field.name] for field in fields(form) if field.name in values}


_LIMITS = """\
## Intended use

Comparing faces of people who agreed to it, research on open-set face recognition, and checking published results.

## Limits

- A cosine is no proof of identity. Choose thresholds on pairs like those you will meet (`sphereface eval`).
- Accuracy differs with age, skin colour, sex, pose, light and image quality; none of that was measured here. Measure
  it on your people before any decision rests on it.
- LFW holds mostly frontal photographs of adults known to the press: figures on it promise nothing elsewhere.
- Nothing tells a face from a photograph of it: there is no liveness detection.
- Embeddings are biometric data; the law where you are may forbid or restrict making and keeping them.
- Not for surveillance, and not for decisions on a person's rights that no person reviews."""


def _licence(licence: str | None) -> str:
    said = licence or (
        "The owner of these weights has not said. The code that made them is under the MIT licence; the weights are "
        "also bound by the terms of the training data, and most public sets of faces allow research only."
    )
    return f"## Licence\n\n{said}"
