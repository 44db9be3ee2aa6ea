"""A step that was not finite, made once more with an eye on every layer."""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoint import BadCheckpoint, load_checkpoint
from ..config import config_from_dict
from ..data.batch import Batch
from ..losses.margins import MARGINS
from ..models import BACKBONES
from .learner import Learner
from .plan import Plan


def replay(path: Path, device: torch.device) -> str:
    """Repeat the forward and backward pass of a kept step, updating nothing.

    Args:
        path: ``nonfinite-<step>.pt``, as training left it.
        device: where to repeat it.

    Returns:
        A report: the batch, the first layer whose output is not finite, the loss, and the parameters whose gradients
        are not finite.

    Raises:
        BadCheckpoint: no such file, damaged, or not of this kind.
    """
    state = load_checkpoint(path, device=device)
    if "batch" not in state or "position" not in state:
        raise BadCheckpoint(f"{path}: holds no batch · allowed: a nonfinite-….pt of a run folder")
    meta, batch = state["meta"], Batch(**state["batch"])
    config = config_from_dict(meta["config"], source=str(path), losses=MARGINS, backbones=BACKBONES)
    learner = Learner(config, len(meta["class_names"]), device)
    setting = Plan(config, meta["total_steps"]).at(state["position"], meta["step"])
    learner.restore(state, path)
    bad_outputs: list[str] = []
    for name, layer in learner.model.named_modules():
        layer.register_forward_hook(lambda _m, _i, out, name=name: _note(bad_outputs, name, out))
    output, _ = learner.forward(batch, setting)
    output.loss.backward()  # type: ignore[no-untyped-call]
    bad_weights = [name for name, p in learner.named_parameters() if not p.isfinite().all()]
    bad_gradients = [
        name for name, p in learner.named_parameters() if p.grad is not None and not p.grad.isfinite().all()
    ]
    rows = {
        "step": f"{meta['step'] + 1}, λ {setting.lam:.4g}, rate {setting.lr:.4g}",
        "batch": f"{len(batch.labels)} pictures, labels {int(batch.labels.min())} … {int(batch.labels.max())}",
        "weights not finite": ", ".join(bad_weights) or "none",
        "first layer not finite": bad_outputs[0] if bad_outputs else "none",
        "largest embedding": f"‖x‖ = {float(output.norms.max()):.4g}",
        "loss": f"{float(output.loss.detach()):.6g}",
        "gradients not finite": ", ".join(bad_gradients) or "none",
    }
    return "".join(f"{name:26}{value}\n" for name, value in rows.items())


def _note(found: list[str], name: str, output: object) -> None:
    if isinstance(output, torch.Tensor) and not bool(output.isfinite().all()):
        found.append(name or "the network")
