"""Replace one leaf of a container (JSON, YAML, .npz, pickle, .pt, .safetensors) by a value that it should not have."""

from __future__ import annotations

import io
import json
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml

Place = tuple[Any, ...]  # keys and indices from the top


def _nested(depth: int, kind: type) -> Any:
    value: Any = kind()
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


_VALUES: tuple[Callable[[], Any], ...] = (
    *(lambda value=value: value for value in (
        math.nan, math.inf, -math.inf, -1, 0, 1, 0.5, -0.0, 2**31, 2**63, 2**64, 10**400, 1e308, 1e-320,
        "", "a", "a" * 100_000, "nan", "../x", "a\0b", "a\x1b[2Jb", "\n- x", "10", None, True, False,
    )),
    *(lambda make=make: make() for make in (list, dict)),
    lambda: [0] * 10_000, lambda: ["a" * 1_000] * 1_000, lambda: {str(n): n for n in range(10_000)},
    lambda: [[]], lambda: [math.nan], lambda: {"name": "x"}, lambda: _nested(200, list), lambda: _nested(200, dict),
)  # fmt: skip


def replace_leaf(path: Path, data: bytes, random: Random) -> bytes | None:
    """Return the container with one leaf (or branch, or key) changed; None where the file is no container."""
    kind = next((codec for suffix, codec in _CODECS.items() if path.name.endswith(suffix)), None)
    if kind is None:
        return None
    load, dump = kind
    try:
        tree = load(data)
        places = list(_places(tree))
        place = random.choice([place for place in places if not isinstance(_at(tree, place), (dict, list))] or places)
        if random.random() < 0.2:
            place = random.choice(places)
        return dump(_changed(tree, place, random))
    except Exception:  # whatever a library raises for what its container cannot hold: bytes are mutated instead
        return None


def _places(tree: Any, above: Place = ()) -> Iterator[Place]:
    yield above
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _places(value, (*above, key))
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree[:50]):
            yield from _places(value, (*above, index))


def _at(tree: Any, place: Place) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def _changed(tree: Any, place: Place, random: Random) -> Any:
    if not place:
        return _other(tree, random)
    key, rest = place[0], place[1:]
    if isinstance(tree, dict):
        if not rest and random.random() < 0.15:  # the key itself: gone, or another
            left = {k: v for k, v in tree.items() if k != key}
            return left if random.random() < 0.6 else {**left, random.choice(_KEYS): tree[key]}
        return {k: _changed(v, rest, random) if k == key else v for k, v in tree.items()}
    changed = [_changed(value, rest, random) if index == key else value for index, value in enumerate(tree)]
    return type(tree)(changed) if type(tree) in (list, tuple) else changed


_KEYS = ("", "x", "a" * 300, "a.b", "__class__", "../x", "a\nb", "name", 1, None, 2**70)


def _other(value: Any, random: Random) -> Any:
    if isinstance(value, torch.Tensor) and random.random() < 0.8:
        return _other_tensor(value, random)
    if isinstance(value, np.ndarray) and random.random() < 0.9:
        return _other_array(value, random)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and random.random() < 0.3:
        return random.choice((-value, value + 1, value * 1_000_000, float(value), str(value), [value], value - 1))
    return random.choice(_VALUES)()


def _other_array(value: np.ndarray, random: Random) -> Any:
    changed = value.copy()
    kind = random.randrange(12)
    if kind < 3 and changed.size and changed.dtype.kind in "fiub":
        numbers = (math.nan, math.inf, -math.inf, 1e30, -1.0, 0.0) if changed.dtype.kind == "f" else (-1, 0, 127, 1)
        changed.flat[random.randrange(changed.size)] = np.asarray(random.choice(numbers)).astype(changed.dtype)
    elif kind == 3:
        changed = changed[: len(changed) // 2] if changed.ndim else changed.reshape(1)
    elif kind == 4:
        changed = changed[:0] if changed.ndim else np.zeros(0)
    elif kind == 5:
        changed = changed[None]
    elif kind == 6:
        changed = changed.ravel()
    elif kind == 7:
        return np.array(random.choice(("a", "x" * 10_000, ["a\nb"] * 3, 5, -1, math.nan, [], [[]], True, 10**18)))
    elif kind == 8:
        changed = np.zeros(changed.shape, random.choice(("c16", "f2", "U3", "S3", "i1", "?", "M8[s]", "u8", "f4,i4")))
    elif kind == 9:
        changed = np.zeros_like(changed)
    elif kind == 10:
        changed = np.concatenate([changed, changed]) if changed.ndim else changed
    else:
        changed = np.full(changed.shape, "é" * 40 if changed.dtype.kind == "U" else 1).astype(changed.dtype)
    return changed


def _other_tensor(value: torch.Tensor, random: Random) -> torch.Tensor:
    number = random.choice((math.nan, math.inf, -math.inf, 1e30, -1.0, 0.0))
    changed = value.clone()
    kind = random.randrange(11)
    if kind < 3 and changed.numel() and changed.is_floating_point():
        changed.view(-1)[random.randrange(changed.numel())] = number
    elif kind == 3:
        changed = changed.to(random.choice((torch.float64, torch.int64, torch.complex64, torch.bool, torch.uint8)))
    elif kind == 4:
        changed = changed.reshape(-1)
    elif kind == 5:
        changed = torch.empty(random.choice(((0,), (0, 0), (0, 3, 3))))
    elif kind == 6:
        changed = torch.zeros(1).expand(random.choice((10**9, 10**12)))  # four bytes in the file
    elif kind == 7:
        changed = changed[None]
    elif kind == 8:
        changed = torch.empty(value.shape, device="meta")
    elif kind == 9:
        changed = torch.zeros(value.shape).to_sparse() if value.ndim else torch.zeros(1)
    else:
        changed = torch.full_like(value, random.choice((0, 1, 2))) if value.numel() else torch.zeros(3)
    return changed


def _load_npz(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def _dump_npz(tree: Any) -> bytes:
    out = io.BytesIO()
    arrays = {str(key).replace("/", "_") or "x": np.asarray(value) for key, value in tree.items()}
    np.savez(out, **{key: value for key, value in arrays.items() if "\0" not in key})
    return out.getvalue()


def _load_pt(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


def _dump_pt(tree: Any) -> bytes:
    out = io.BytesIO()
    torch.save(tree, out)
    return out.getvalue()


def _dump_safetensors(tree: Any) -> bytes:
    assert all(value.numel() < 10**6 for value in tree.values())  # no expanded ones, which would be written whole
    return safetensors.torch.save({str(key): value.contiguous() for key, value in tree.items()})


def _dump_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _dump_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True).encode()


_TORCH = (_load_pt, _dump_pt)
_CODECS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    ".json": (json.loads, _dump_json),
    ".yaml": (yaml.safe_load, _dump_yaml),
    ".npz": (_load_npz, _dump_npz),
    ".bin": (pickle.loads, lambda tree: pickle.dumps(tree, 4)),
    **dict.fromkeys((".pt", ".pth", ".ckpt"), _TORCH),
    ".safetensors": (safetensors.torch.load, _dump_safetensors),
}
