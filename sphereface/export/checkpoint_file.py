"""Write a checkpoint to publish: the network only, without head, optimiser, names and paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..alignment.crop_template import CropTemplate
from ..checkpoint import origin_of, save_checkpoint, teacher_of
from ..errors import UserError, refusing, shown_key
from ..models import LoadedModel, load_model
from ..models.loading import bare_weights, sizes_seen, stored_sizes
from ..plugins import OF_NETWORK, versions_of
from .card import recipe
from .formats import HALF_TOLERANCE, TOLERANCE
from .graph import example_crops, expected

CHECKPOINT_DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""Types in which the weights can be stored."""

_KEPT = ("step", "images_seen", "num_images", "num_identities", "source", "template")


def write_small_checkpoint(
    loaded: LoadedModel, path: Path, *, dtype: str, about: Mapping[str, Any], template: CropTemplate | None
) -> float:
    """Write a checkpoint that every command reads, and compare it with the original network.

    Args:
        loaded: the network.
        path: ``….pt``, within :func:`~sphereface.checkpoint_place.new_checkpoint`; its ``.json`` is
            written beside it.
        dtype: of the stored weights, see :func:`stored_weights`. The network computes in float32
            in any case.
        about: entries to add to ``meta``.
        template: of the training crops; None to keep the one that the checkpoint records.

    Returns:
        max |difference| / max |embedding| on a few example crops.

    Raises:
        UserError: a weight is too large for the type, the file cannot be written, or it gives other
            embeddings.
    """
    meta = {**shared_meta(loaded.meta), **about, "run": path.stem}
    if template is not None:
        meta["template"] = template.to_meta()
    weights = stored_weights(bare_weights(loaded.model), dtype)
    state = {"meta": meta, "seen_size": stored_sizes(sizes_seen(loaded.model)), "model": weights}
    with refusing(f"{path}: cannot be written"):
        save_checkpoint(path, state, {"dtype": dtype, **about})
    return _check(loaded, path, dtype)


def stored_weights(weights: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return weights with kernels and matrices in ``dtype``.

    Vectors keep their type: they are few, and the variances of a batch norm can exceed float16.

    Raises:
        UserError: a weight exceeds the largest number of the type.
    """
    wanted = CHECKPOINT_DTYPES[dtype]
    stored = {}
    for name, value in weights.items():
        cast = value.is_floating_point() and value.dim() > 1
        stored[name] = value.detach().to(wanted) if cast else value.detach().clone()
        if cast and not bool(stored[name].isfinite().all()):
            largest = torch.finfo(wanted).max
            raise UserError(
                f"--dtype: got {dtype}, but {shown_key(name)} holds {value.abs().max():g} · allowed there: up to "
                f"{largest:g} · use --dtype float32"
            )
    return stored


def shared_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of ``meta`` that may be published: network, recipe and amount of data."""
    people = {"num_identities": len(meta["class_names"])} if "class_names" in meta else {}
    origin = {"init_from": origin_of(meta), "taught_by": teacher_of(meta)}
    known: dict[str, Any] = {key: value for key, value in origin.items() if value is not None}
    if OF_NETWORK in (versions := versions_of(meta)):
        known["versions"] = {OF_NETWORK: versions[OF_NETWORK]}
    return {**{key: meta[key] for key in _KEPT if key in meta}, **people, **known, "config": recipe(meta["config"])}


def _check(loaded: LoadedModel, path: Path, dtype: str) -> float:
    """Compare the written file with the network."""
    crops = example_crops(loaded.input_size, 3)
    wanted, found = expected(loaded.model, crops), expected(load_model(path).model, crops)
    difference = float(abs(found - wanted).max() / abs(wanted).max())
    allowed = HALF_TOLERANCE if dtype == "float16" else TOLERANCE
    if not difference <= allowed:
        advice = " · use --dtype float32" if dtype == "float16" else ""
        raise UserError(
            f"{path}: gives other embeddings than the checkpoint (off by {difference:.1e}, allowed {allowed:.0e}) · "
            f"not written{advice}"
        )
    return difference
