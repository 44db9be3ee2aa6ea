"""The ``.safetensors`` of ``sphereface export``: its metadata state the network, so nothing has to
be guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...checkpoint import BadCheckpoint
from ...errors import shown
from ..loading import check_network, model_options, seen_sizes
from .files import Contents

SOURCE = "an export of this program, whose metadata state the network"
_SHA256 = "checkpoint_sha256"
_JSON = ("model", "seen_size", "template")


def is_own(contents: Contents) -> bool:
    """Tell whether a file is an export of this program."""
    return {_SHA256, "model"} <= contents.metadata.keys()


def own_state(contents: Contents, path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint of the exported network holds: ``meta``, ``seen_size``, ``model``.

    Args:
        contents: of the file.
        path: from where, for messages.
        changes: options of ``model:`` that the user gives in place of the stated ones.

    Raises:
        UserError: the metadata state no network, or another one than the weights are of.
    """
    stated = {key: _value(contents.metadata[key], key, path) for key in _JSON if key in contents.metadata}
    if not isinstance(model := stated.pop("model"), Mapping):
        raise BadCheckpoint(f"{path}: metadata: model: got {shown(model)} · allowed: a mapping of keys to values")
    template = {"template": stated["template"]} if "template" in stated else {}
    meta = {"config": {"model": {**model, **changes}}, _SHA256: contents.metadata[_SHA256], **template}
    state: dict[str, Any] = {"meta": meta, "model": contents.tensors}
    options, weights = model_options(state, path)
    check_network(options, weights, path)
    sizes = stated.get("seen_size")  # a list of each network's
    if isinstance(sizes, list) and len(sizes) == options.networks and "input_size" not in changes:
        state["seen_size"] = sizes if options.networks > 1 else sizes[0]
    state["seen_size"] = [list(size) for size in seen_sizes(state, options, path)]
    if options.networks == 1:
        (state["seen_size"],) = state["seen_size"]
    return state


def _value(text: str, key: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: metadata: {key}: got {shown(text)} · allowed: JSON") from error
