"""Read the ``.safetensors`` of ``sphereface export``, whose metadata describe the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...checkpoint import BadCheckpoint
from ...errors import shown
from ..loading import check_network, model_options, seen_sizes, stored_sizes
from .files import Contents

SOURCE = "an export of this program, which describes its network in its metadata"
_SHA256 = "checkpoint_sha256"
_JSON = ("model", "seen_size", "template")


def is_own(contents: Contents) -> bool:
    """Return whether a file is an export of this program."""
    return {_SHA256, "model"} <= contents.metadata.keys()


def own_state(contents: Contents, path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint of the exported network: ``meta``, ``seen_size``, ``model``.

    Args:
        contents: of the file.
        path: of the file, for messages.
        changes: the user's options of ``model:``, which replace the stated ones.

    Raises:
        UserError: the metadata describe no network, or another one than the weights belong to.
    """
    stated = {key: _value(contents.metadata[key], key, path) for key in _JSON if key in contents.metadata}
    if not isinstance(model := stated.pop("model"), Mapping):
        raise BadCheckpoint(f"{path}: metadata: model: got {shown(model)} · allowed: a mapping of keys to values")
    template = {"template": stated["template"]} if "template" in stated else {}
    meta = {"config": {"model": {**model, **changes}}, _SHA256: contents.metadata[_SHA256], **template}
    state: dict[str, Any] = {"meta": meta, "model": contents.tensors}
    options, weights = model_options(state, path)
    check_network(options, weights, path)
    sizes = stated.get("seen_size")  # one for each network
    if isinstance(sizes, list) and len(sizes) == options.networks and "input_size" not in changes:
        state["seen_size"] = sizes if options.networks > 1 else sizes[0]
    state["seen_size"] = stored_sizes(seen_sizes(state, options, path))
    return state


def _value(text: str, key: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: metadata: {key}: got {shown(text)} · allowed: JSON") from error
