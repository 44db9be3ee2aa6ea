"""Join several checkpoints into one that holds an :class:`Ensemble` of their networks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbone_options import MOST_NETWORKS, BackboneOptions
from ..checkpoint import BadCheckpoint, origin_of, teacher_of, trained_people
from ..config import differences
from ..errors import UserError, shown
from ..plugins import OF_NETWORK, OTHER_CODE, versions_of
from .loading import check_network, model_options, seen_sizes, stored_sizes

log = logging.getLogger(__name__)

_SAME = 0.01  # largest difference between landmarks of one template, by rounding, in pixels
_TOTALS = ("step", "total_steps", "images_seen", "seconds")
_OF_ONE = ("best", "best_step", "evaluated_step")  # keys that describe only one of the networks


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint.

    Attributes:
        origin: path of the file that training saved it to.
        model: its architecture, with ``networks`` 1.
        weights: its state, averaged (``train.ema``) where the checkpoint has averages.
        seen_size: (height, width) of the crops that it was last trained on.
    """

    origin: str
    model: BackboneOptions
    weights: Mapping[str, Tensor]
    seen_size: tuple[int, int]


def networks_of(state: Mapping[str, Any], path: Path) -> list[Part]:
    """Return the networks that a checkpoint holds: one, or all that were joined into it.

    Args:
        state: the result of :func:`load_checkpoint`.
        path: of the checkpoint, for messages.

    Raises:
        BadCheckpoint: it holds no network, or the weights of one do not fit its architecture.
    """
    config, weights = model_options(state, path)
    check_network(config, weights, path)
    one, sizes = replace(config, networks=1), seen_sizes(state, config, path)
    if config.networks == 1:
        return [Part(str(path), one, weights, sizes[0])]
    starts = [f"networks.{number}." for number in range(config.networks)]
    origins = state["meta"].get("networks", [str(path)] * config.networks)
    if len(origins) != config.networks:
        raise BadCheckpoint(
            f"{path}: meta.networks: got {shown(origins)} · allowed: the names of its {config.networks} files"
        )
    return [
        Part(str(origin), one, {n.removeprefix(start): w for n, w in weights.items() if n.startswith(start)}, size)
        for origin, start, size in zip(origins, starts, sizes, strict=True)
    ]


def join(states: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> dict[str, Any]:
    """Join several checkpoints into one.

    Args:
        states: results of :func:`load_checkpoint`; a joined checkpoint contributes all its
            networks.
        paths: of the checkpoints.

    Returns:
        ``meta``, ``seen_size`` and ``model`` of a checkpoint with ``model.networks`` N. In
        ``meta``, steps, images and seconds are sums, and ``networks`` lists the N files. Sections
        of ``config``, names and the number of training images are kept where they are equal in all
        checkpoints. Where the identities differ, ``more_people`` names those of all. ``template``
        is that of the checkpoints that record one.

    Raises:
        UserError: networks of different architectures or templates, one network twice, fewer than
            two, or too many.
    """
    _check_templates([state["meta"] for state in states], paths)
    parts = [(part, path) for state, path in zip(states, paths, strict=True) for part in networks_of(state, path)]
    if not 2 <= len(parts) <= MOST_NETWORKS:
        raise UserError(f"networks to join: got {len(parts)} · allowed: 2 to {MOST_NETWORKS}")
    first, first_path = parts[0]
    for number, (part, path) in enumerate(parts):
        if lines := differences(first.model.to_dict(), part.model.to_dict()):
            raise UserError(
                f"{path}: another architecture than {first_path} (model.{lines[0]}) · allowed: networks of one "
                "architecture"
            )
        for other, other_path in parts[:number]:
            if all(torch.equal(part.weights[name], value) for name, value in other.weights.items()):
                where = "that file" if path == other_path else str(other_path)
                raise UserError(f"{path}: holds the same network as {where} · give each network once")
    codes = {path: versions_of(state["meta"]).get(OF_NETWORK) for path, state in zip(paths, states, strict=True)}
    known = [path for path, code in codes.items() if code is not None]  # earlier versions kept none
    if unlike := next((path for path in known if codes[path] != codes[known[0]]), None):
        log.warning("%s %s than %s: one of them does not compute what it was trained to", unlike, OTHER_CODE, known[0])
    weights = {f"networks.{k}.{name}": w for k, (part, _) in enumerate(parts) for name, w in part.weights.items()}
    model = replace(first.model, networks=len(parts)).to_dict()
    meta = _joined_meta([state["meta"] for state in states], model, [part.origin for part, _ in parts])
    if unlike:
        meta["versions"][OF_NETWORK] = ""  # so that each load of the file warns
    return {"meta": meta, "seen_size": stored_sizes([part.seen_size for part, _ in parts]), "model": weights}


def _check_templates(metas: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> None:
    """Refuse crops of different templates: a photograph is aligned once for all networks."""
    pairs = zip(metas, paths, strict=True)
    known = [(_points(meta, path), path) for meta, path in pairs if meta.get("template") is not None]
    for points, path in known[1:]:
        first, first_path = known[0]
        if points.shape != first.shape or not bool(((points - first).abs() <= _SAME).all()):
            texts = (" ".join(f"{x:.1f},{y:.1f}" for x, y in each[1:].tolist()) for each in (first, points))
            listed = " and ".join(texts)
            raise UserError(
                f"{path}: its crops have another template than those of {first_path} (meta.template: {listed}) · "
                "allowed: networks of one template, because each photograph is aligned once for all networks"
            )


def _points(meta: Mapping[str, Any], path: Path) -> Tensor:
    """Return (height, width) and the five landmarks (x, y) of a template: (6, 2) float64."""
    try:
        size, points = meta["template"]["size"], meta["template"]["points"]
        found = torch.tensor([size, *points], dtype=torch.float64)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise BadCheckpoint(
            f"{path}: meta.template: got {shown(meta['template'])} · allowed: size and points of the training crops"
        ) from error
    if found.ndim != 2 or found.shape[1] != 2:
        raise BadCheckpoint(f"{path}: meta.template: got {shown(meta['template'])} · allowed: a size and points (x, y)")
    return found


def _joined_meta(metas: Sequence[Mapping[str, Any]], model: Any, origins: list[str]) -> dict[str, Any]:
    def common(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in values[0].items() if all(other.get(key) == value for other in values)}

    template = next(({"template": meta["template"]} for meta in metas if meta.get("template") is not None), {})
    summed = [key for key in _TOTALS if all(isinstance(meta.get(key), (int, float)) for meta in metas)]
    origins_of = {"init_from": origin_of, "taught_by": teacher_of}
    started = {key: dict[str, str]() for key, of in origins_of.items() if any(of(meta) is not None for meta in metas)}
    same = all(meta.get(key) == metas[0].get(key) for meta in metas for key in ("class_names", "more_people"))
    people = [] if same else sorted({name for meta in metas for name in trained_people(meta)})
    return {
        **started,
        **{key: value for key, value in common(metas).items() if key not in (*_TOTALS, *_OF_ONE)},
        "versions": common([versions_of(meta) for meta in metas]),
        **template,
        **({"more_people": people} if people else {}),
        **{key: sum(meta[key] for meta in metas) for key in summed},
        "config": {**common([meta["config"] for meta in metas]), "model": model},
        "networks": origins,
    }
