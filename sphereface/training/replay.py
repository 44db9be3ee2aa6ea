"""Repeat a step that was not finite, and find the layer where the problem begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import BadCheckpoint, load_checkpoint
from ..config import Config, config_from_dict
from ..data.batch import Batch
from ..errors import first_line, shown, shown_key
from ..losses.margins import MARGINS
from ..models import BACKBONES
from ..models.loading import check_network
from .learner import Learner
from .plan import Plan
from .resuming import check_state
from .teacher import Teacher, same_view


def replay(path: Path, device: torch.device) -> str:
    """Repeat the forward and backward pass of a saved step, without an update.

    Args:
        path: ``nonfinite-<step>.pt``, which training saved.
        device: where to repeat it.

    Returns:
        A report: the batch, the first layer whose output is not finite, the loss, and the
        parameters whose gradients are not finite.

    Raises:
        BadCheckpoint: the file does not exist, is damaged, or is of another kind.
    """
    state = load_checkpoint(path, device=device)
    if "batch" not in state or "position" not in state or "meta" not in state:
        raise BadCheckpoint(f"{path}: holds no batch · allowed: a nonfinite-….pt of a run folder")
    meta = state["meta"]
    for key in ("config", "class_names", "total_steps", "step"):
        if key not in meta:
            raise BadCheckpoint(f"{path}: has no meta.{key} · allowed: a nonfinite-….pt of a run folder")
    config = config_from_dict(meta["config"], source=str(path), losses=MARGINS, backbones=BACKBONES)
    compiled = config.train.compile
    config = replace(config, train=replace(config.train, compile=False))  # in pieces for a look at each layer: a minute
    batch, position = _checked_batch(state, config, path), _checked_position(state, path)
    check_network(config.model, state.get("model", {}), path, finite=False)
    teacher = _teacher(batch, config, device)
    learner = Learner(config, len(meta["class_names"]), device, teacher=teacher)
    setting = Plan(config, meta["total_steps"]).at(position, meta["step"])
    check_state(learner, state, path, finite=False)
    learner.restore(state, path)
    bad_outputs: list[str] = []
    for name, layer in learner.model.named_modules():
        layer.register_forward_hook(lambda _m, _i, out, name=name: _note(bad_outputs, name, out))
    try:
        given = learner.forward(batch, setting)
        output = given.output
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError) as error:
        raise BadCheckpoint(f"{path}: its batch cannot be repeated ({first_line(error)})") from error
    given.total.backward()  # type: ignore[no-untyped-call]
    trained = list(learner.named_parameters())
    bad_weights = [name for name, p in trained if not p.isfinite().all()]
    bad_gradients = [name for name, p in trained if p.grad is not None and not p.grad.isfinite().all()]
    rows = {
        "step": f"{meta['step'] + 1}, λ {setting.lam:.4g}, rate {setting.lr:.4g}",
        "batch": f"{len(batch.labels)} images, labels {int(batch.labels.min())} … {int(batch.labels.max())}",
        "weights not finite": ", ".join(bad_weights) or "none",
        "first layer not finite": bad_outputs[0] if bad_outputs else "none",
        "largest embedding": f"‖x‖ = {float(output.norms.max()):.4g}",
        "loss": f"{float(output.loss.detach()):.6g}",
        **({"network": "not compiled here, unlike in the run"} if compiled else {}),
        **({} if given.teacher is None else {"loss of the teacher": f"{float(given.teacher.detach()):.6g}"}),
        "gradients not finite": ", ".join(bad_gradients) or "none",
    }
    return "".join(f"{name:26}{value}\n" for name, value in rows.items())


def _checked_position(state: Mapping[str, Any], path: Path) -> float:
    position, last = state["position"], state["meta"]["total_steps"]
    if isinstance(position, bool) or not isinstance(position, (int, float)) or not 0 <= position <= last:
        raise BadCheckpoint(f"{path}: position: got {shown(position)} · allowed: a number from 0 to {last}")
    return position


def _checked_batch(state: Mapping[str, Any], config: Config, path: Path) -> Batch:
    """Return the batch of a saved step, after checking types and shapes (see :class:`Batch`)."""
    given = state["batch"]
    if not isinstance(given, Mapping) or not {"images", "labels", "mirror"} <= given.keys():
        raise BadCheckpoint(f"{path}: batch: got {shown(given)} · allowed: images, labels and mirror")
    number = len(given["labels"]) if isinstance(given["labels"], torch.Tensor) and given["labels"].ndim else 0
    wanted = {
        "images": (torch.uint8, (number, *config.model.input_spec.size, 3)),
        "labels": (torch.int64, (number,)),
        "mirror": (torch.bool, (number,)),
    }
    for name, (dtype, shape) in wanted.items():
        value = given[name]
        if not isinstance(value, torch.Tensor) or value.dtype is not dtype or tuple(value.shape) != shape or not number:
            raise BadCheckpoint(f"{path}: batch.{name}: not a {dtype} tensor of the shape {shape}")
    labels, num_classes = given["labels"], len(state["meta"]["class_names"])
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise BadCheckpoint(f"{path}: batch.labels: got labels outside of 0 … {num_classes - 1}")
    augment = _checked_augment(given.get("augment", {}), number, config, path)
    taught = given.get("teacher")
    stored = bool(config.train.teacher.given) and config.train.teacher.view == "stored"
    floats = (torch.float16, torch.float32)
    fits = isinstance(taught, torch.Tensor) and taught.dtype in floats and taught.ndim == 2 and len(taught) == number
    if stored and not fits:
        raise BadCheckpoint(f"{path}: batch.teacher: not a floating point tensor of the shape ({number}, T)")
    return Batch(given["images"], labels, given["mirror"], [], augment, teacher=taught if stored else None)


def _teacher(batch: Batch, config: Config, device: torch.device) -> Teacher | None:
    """Return the teacher of the run.

    The batch holds its embeddings, or its network processes the batch again.
    """
    if batch.teacher is not None:
        return Teacher(batch.teacher.shape[1], "")
    return same_view(config, device) if config.train.teacher.given else None


def _checked_augment(
    augment: object, number: int, config: Config, path: Path
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    checked: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    kinds = config.data.augment
    columns = {kind.name: getattr(kinds, kind.name).columns for kind in fields(kinds)}
    for name, pair in augment.items() if isinstance(augment, Mapping) else [("", augment)]:
        rows, strengths = pair if isinstance(pair, (tuple, list)) and len(pair) == 2 else (None, None)
        if (
            not isinstance(rows, torch.Tensor)
            or not isinstance(strengths, torch.Tensor)
            or (rows.dtype, rows.ndim, strengths.ndim) != (torch.int64, 1, 2)
            or tuple(strengths.shape) != (len(rows), columns.get(name))
            or not bool(((rows >= 0) & (rows < number)).all() and strengths.isfinite().all())
        ):
            raise BadCheckpoint(f"{path}: batch.augment.{shown_key(name)}: not rows of the batch and their strengths")
        checked[str(name)] = rows, strengths
    return checked


def _note(found: list[str], name: str, output: object) -> None:
    if isinstance(output, torch.Tensor) and not bool(output.isfinite().all()):
        found.append(name or "the network")
