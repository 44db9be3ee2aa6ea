"""The model card of an export: what it is, what it was made from, what it is worth, what it is not for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from .graph import InputFormat

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


@dataclass(frozen=True)
class Exported:
    """What a card is about.

    Attributes:
        path: the file.
        form: what it is fed; None for bare weights.
        checkpoint, checkpoint_sha256: where it comes from.
        meta: what the checkpoint says of itself.
        size: (height, width) of a crop.
        dim: length of an embedding.
        licence: of the weights, as their owner says; None: not said.
        quantised: the 8-bit copy beside it.
    """

    path: Path
    form: InputFormat | None
    checkpoint: Path
    checkpoint_sha256: str
    meta: Mapping[str, Any]
    size: tuple[int, int]
    dim: int
    licence: str | None = None
    quantised: Path | None = None


def card(exported: Exported) -> str:
    """The card in Markdown."""
    parts = [
        _what(exported), _use(exported), _data(exported.meta), _recipe(exported.meta), _worth(exported), _LIMITS,
        _licence(exported.licence),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _what(exported: Exported) -> str:
    meta = exported.meta
    networks = meta.get("config", {}).get("model", {}).get("networks", 1)
    what = "A SphereFace network" if networks == 1 else f"{networks} SphereFace networks, side by side"
    return (
        f"# {exported.path.name}\n\n"
        f"{what} (Liu et al., CVPR 2017): an aligned face crop to {exported.dim} numbers, to be compared by cosine.\n\n"
        f"Exported from `{exported.checkpoint.name}`, step {meta.get('step', 'unknown')}, "
        f"SHA-256 `{exported.checkpoint_sha256}`."
    )


def _use(exported: Exported) -> str:
    height, width = exported.size
    if exported.form is None:
        given = (
            "The weights alone: input and output are the network's, (B, 3, "
            f"{height}, {width}) float32 = (pixel − 127.5) / 128 in BGR → (B, {exported.dim}). The metadata holds the "
            "architecture under `model`."
        )
    else:
        given = (
            f"- `images`: {exported.form.describe(exported.size)}; any B. Normalisation is inside.\n"
            f"- `embedding`: (B, {exported.dim}) float32, not normalised."
        )
    int8 = f"\n- `{exported.quantised.name}`: the same in 8-bit integers." if exported.quantised else ""
    return (
        f"## Input and output\n\n{given}{int8}\n\n"
        f"Crops are {height} high × {width} wide, aligned by five landmarks to SphereFace's template "
        "(`sphereface align`). The evaluation joins the embeddings of a crop and of its mirror image."
    )


def _data(meta: Mapping[str, Any]) -> str:
    name = PurePath(str(meta.get("config", {}).get("data", {}).get("train", "unknown"))).name
    size = ""
    if "num_images" in meta and "class_names" in meta:
        size = f", {meta['num_images']:,} pictures of {len(meta['class_names']):,} people"
    return f"## Training data\n\n`{name}`{size}."


def _recipe(meta: Mapping[str, Any]) -> str:
    config = meta.get("config", {})
    training = {key: config["train"][key] for key in _TRAINING_KEYS if key in config.get("train", {})}
    parts = {"model": config.get("model"), "loss": config.get("loss"), "train": training}
    text = yaml.safe_dump({key: value for key, value in parts.items() if value}, sort_keys=False, allow_unicode=True)
    return f"## Recipe\n\n```yaml\n{text}```"


def _worth(exported: Exported) -> str:
    rows = [_row(found) for found in evaluations(exported.checkpoint, exported.checkpoint_sha256)]
    if not rows:
        return (
            "## Evaluation\n\nNo evaluation of this checkpoint lies beside it: nothing is known of its accuracy. "
            f"`sphereface eval --ckpt {exported.checkpoint.name}` makes one."
        )
    head = "| pairs | pictures | accuracy (± standard error) | AUC | EER | TAR at FAR |\n|---|---|---|---|---|---|"
    int8 = "\n\nOf the 32-bit network; the 8-bit one was not evaluated here." if exported.quantised else ""
    return "\n".join(["## Evaluation\n", head, *rows]) + int8


def _row(found: Mapping[str, Any]) -> str:
    accuracy, error = found["accuracy"], found["standard_error"]
    spread = "" if error is None else f" ± {100 * error:.2f}"
    shown = "none (no folds)" if accuracy is None else f"{100 * accuracy:.2f}{spread} %"
    points = [f"{p['tar']:.2%} at {p['far']:g}" for p in found["tar_at_far"] if p["tar"] is not None]
    name, pairs = found["name"], PurePath(found["pairs"]).name
    return (
        f"| {name}, {pairs} | {found['num_images']:,} | {shown} | {found['auc']:.4f} | {found['eer']:.2%} | "
        f"{', '.join(points) or 'not resolvable'} |"
    )


def evaluations(checkpoint: Path, sha256: str) -> list[dict[str, Any]]:
    """What ``sphereface eval`` found for this very checkpoint, in the folders beside it."""
    found = []
    for path in sorted(checkpoint.parent.glob("eval*/**/verification.json")):
        try:
            outcome = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # not ours to mend; the card says what it rests on
        if isinstance(outcome, dict) and outcome.get("checkpoint_sha256") == sha256:
            found.append(outcome)
    return found


_LIMITS = """\
## Intended use

Comparing faces of people who agreed to it, research on open-set face recognition, and checking published results.

## Limits

- A cosine is no proof of identity. Choose thresholds on pairs like those you will meet (`sphereface eval`).
- Accuracy differs with age, skin colour, sex, pose, light and picture quality; none of that was measured here. Measure
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
