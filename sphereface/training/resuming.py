"""Check whether a run can resume from a checkpoint, before anything is changed or written."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..backbone_options import BackboneOptions
from ..checkpoint import BadCheckpoint
from ..config import Config, config_from_dict, differences, parse_model
from ..config_sections import TrainConfig
from ..errors import UserError, count_of, first_line, shown, shown_key
from ..losses.margins import MARGINS
from ..losses.teacher import TeacherHead
from ..losses.whole_head import whole_shapes
from ..models import BACKBONES
from ..models.loading import check_finite, check_weights, seen_sizes
from ..plugins import changed_code
from .learner import Learner
from .validation import Validator

_SCALER = {
    "scale": (0.0, 1e38), "growth_factor": (1.0, 1e6), "backoff_factor": (0.0, 1.0),
    "growth_interval": (0.0, 1e9), "_growth_tracker": (-1.0, 1e9),
}  # fmt: skip
"""Open lower and closed upper bounds of the saved values of a loss scale."""
_MOST_NAMED = 5
_NOT_COMPUTED = ("networks", "dropout", "drop_path", "depth", "units")
"""Keys of ``model`` that do not change what a network of given weights computes."""


def check_state(learner: Learner, state: Mapping[str, Any], path: Path, *, finite: bool = True) -> None:
    """Compare a checkpoint with the learner that is to restore it; nothing is changed.

    Args:
        learner: of the configuration.
        state: what :func:`load_checkpoint` read.
        path: the checkpoint's path, for messages.
        finite: refuse weights that are not finite.

    Raises:
        BadCheckpoint: an entry is missing or damaged, or of another network or optimiser.
    """
    check_sections(state, path)
    shapes = {name: value.shape for name, value in learner.model.state_dict().items()}
    check_weights(shapes, state["model"], path)
    head = {f"head.{name}": value for name, value in state["head"].items()}
    check_weights({f"head.{name}": shape for name, shape in whole_shapes(learner.head).items()}, head, path)
    weights = [state["model"], head]
    if learner.average is not None and "average" in state:
        check_weights(shapes, state["average"], path)
        weights.append(state["average"])
    if learner.teacher_head is not None:
        weights.append(_teacher_weights(learner.teacher_head, state, path))
    for each in weights if finite else ():
        check_finite(each, path)
    updates = state.get("average_updates", 0)
    if isinstance(updates, bool) or not isinstance(updates, int) or not 0 <= updates <= 2**53:
        raise BadCheckpoint(f"{path}: average_updates: got {shown(updates)} · allowed: a number of updates")
    seen_sizes(state, learner.config.model, path)
    _check_network(learner.config.model, state["meta"], path)
    _check_kind(learner.config.train, state["meta"], path)
    _check_optimizer(learner, state["optimizer"], path)
    if learner.loss_scale.enabled and state["scaler"]:  # empty: the run had another precision
        _check_scaler(state["scaler"], path)
    _check_rng(state["rng"], learner.device, path)


def _teacher_weights(head: TeacherHead, state: Mapping[str, Any], path: Path) -> Mapping[str, torch.Tensor]:
    """Return the checkpoint's projection and queue of the teacher, after checking their shapes."""
    if not isinstance(state.get("teacher"), Mapping):
        raise BadCheckpoint(f"{path}: has no 'teacher' entry, so no training with train.teacher can resume from it")
    found = {f"teacher.{name}": value for name, value in state["teacher"].items()}
    _check_parts(head, state["teacher"], path)
    check_weights({f"teacher.{name}": value.shape for name, value in head.state_dict().items()}, found, path)
    return found


def _check_parts(head: TeacherHead, saved: Mapping[str, Any], path: Path) -> None:
    """Refuse other losses of the teacher, or another size of its queue, by their keys."""
    for name in ("weight", "queue"):
        had, now = saved.get(name), getattr(head, name)
        got = key = ""
        if (had is None) != (now is None):
            key, has, need = "losses", *(("no", "need") if had is None else ("a", "do not use"))
            got = f"{path} has {has} teacher.{name}, which these losses {need}"
        elif name == "queue" and isinstance(had, torch.Tensor) and had.ndim == 2 and len(had) != len(now):
            key, got = "queue_size", f"got {len(now):,}, {path} has a queue of {len(had):,}"
        if got:
            advice = f"resume with train.teacher.{key} of that run, {_new_run_advice(path)}"
            raise BadCheckpoint(f"train.teacher.{key}: {got} · {advice}")


def check_sections(state: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint without the state of a training run, such as a joined one."""
    for part in ("meta", "model", "head", "optimizer", "scaler", "rng"):
        if not isinstance(state.get(part), Mapping):
            raise BadCheckpoint(f"{path}: has no {part!r} entry, so no training can resume from it")


def setting_changes(meta: Mapping[str, Any], config: Config, path: Path) -> list[str]:
    """Return the differences between the configuration of a checkpoint and this one, a line each.

    Keys that the version of the checkpoint did not have get their defaults.
    """
    before = meta.get("config", {})
    with contextlib.suppress(UserError):  # a key was removed since: compare the plain values
        before = config_from_dict(before, source=str(path), losses=MARGINS, backbones=BACKBONES).to_dict()
    return differences(before, config.to_dict())


def resume_warnings(learner: Learner, state: Mapping[str, Any], path: Path, total_steps: int) -> list[str]:
    """Return the warnings about a run that resumes.

    They name other settings, momentum that starts from zero, and steps beyond the end of the run
    (``total_steps``).
    """
    lines = [f"resumed with another setting: {line}" for line in setting_changes(state["meta"], learner.config, path)]
    changed = changed_code(state["meta"], learner.codes())
    lines += [f"the code of the {plugin} changed since step {state['meta']['step']:,}" for plugin in changed]
    if (step := state["meta"]["step"]) > total_steps:
        lines.append(f"{path}: has step {step:,}, beyond the end of this run at {total_steps:,}: nothing is trained")
    empty = [name for name, _ in learner.named_parameters() if not state["optimizer"][name]]
    if empty and step > 0:
        lines.append(
            f"{path}: optimizer: has no state of {count_of(len(empty), 'parameter', 'parameters')} "
            f"({', '.join(empty[:_MOST_NAMED])}"
            f"{', …' if len(empty) > _MOST_NAMED else ''}): their optimiser starts from zero"
        )
    return lines


def same_choice(meta: Mapping[str, Any], config: Config, validator: Validator) -> bool:
    """Return whether the same set chose the best checkpoint before and chooses it now.

    The content decides, wherever the set lies. Earlier versions kept no digests; then the texts of
    ``eval`` decide.

    Args:
        meta: of the checkpoint.
        config: the resolved configuration.
        validator: of this configuration.
    """
    before = meta.get("config", {}).get("eval", {})
    after = config.to_dict()["eval"]
    select, sets = before.get("select"), before.get("sets")
    if not isinstance(select, str) or after["select"] is None:
        return select is after["select"]
    if "digests" in meta:
        return bool(meta["digests"].get(select) == validator.digests[after["select"]])
    chosen = sets.get(select) if isinstance(sets, Mapping) else None
    return bool(select == after["select"] and chosen == after["sets"].get(select))


def other_choice(meta: Mapping[str, Any]) -> str:
    """Return a line on the best score of a checkpoint, if another set chooses now."""
    return (
        f"eval.select: the best score so far, {meta['best']:.4f} at step {meta['best_step']}, is of another set: "
        "eval.select names another one now, or its lists or images changed · it is not compared with later scores"
    )


def changed_sets(meta: Mapping[str, Any], validator: Validator) -> list[str]:
    """Return the names of the sets that had other content when the checkpoint was saved."""
    before = meta.get("digests", {})
    return [name for name, digest in validator.digests.items() if before.get(name, digest) != digest]


def changed_set(name: str, meta: Mapping[str, Any]) -> str:
    """Return a line on a set that has other content now."""
    return (
        f"eval.sets.{name}: its lists or images changed after step {meta['step']} · its figures up to that step are of "
        "the earlier set, and are not to be compared with later ones"
    )


def network_changes(before: BackboneOptions, after: BackboneOptions) -> list[str]:
    """Return the differences in what networks with weights of equal shapes compute, a line each.

    The number of networks, dropout and the momentum of batch normalisation may differ.
    """
    return differences(_computed(before), _computed(after), "model.")


def _computed(options: BackboneOptions) -> dict[str, Any]:
    plain = {key: value for key, value in options.to_dict().items() if key not in _NOT_COMPUTED}
    scale = {"input_mean": options.input_spec.mean, "input_std": options.input_spec.std}  # three equal numbers are one
    numbers = {key: list(values) if len(values) > 1 else values[0] for key, values in scale.items()}
    return {**plain, **numbers, "batch_norm": {"eps": options.batch_norm.eps}}


def _check_network(model: BackboneOptions, meta: Mapping[str, Any], path: Path) -> None:
    """Refuse another network whose weights have the same shapes."""
    before = parse_model(meta.get("config", {}).get("model", {}), BACKBONES, [])
    if before is not None and (lines := network_changes(before, model)):
        raise BadCheckpoint(
            f"{path}: its weights fit, but the network computes something else: {' · '.join(lines[:_MOST_NAMED])} · "
            f"resume with the model of that run, {_new_run_advice(path)}"
        )


def _check_kind(train: TrainConfig, meta: Mapping[str, Any], path: Path) -> None:
    """Refuse another optimiser or momentum form, because its state has another meaning."""
    before, usual = meta.get("config", {}).get("train", {}), TrainConfig()
    optimizer, momentum = before.get("optimizer", usual.optimizer), before.get("momentum", usual.momentum)
    if optimizer != train.optimizer:
        key, got, had = "train.optimizer", train.optimizer, optimizer
    elif train.optimizer == "sgd" and momentum != train.momentum:
        key, got, had = "train.momentum", train.momentum, momentum
    else:
        return
    raise BadCheckpoint(
        f"{key}: got {got}, {path} was trained with {shown(had)}, whose state cannot be used · resume with "
        f"{key}={shown_key(had)}, {_new_run_advice(path)}"
    )


def _new_run_advice(path: Path) -> str:
    return f"or start a new run from its weights: train.init_from={path}, without --resume"


def _check_optimizer(learner: Learner, optimizer: Mapping[str, Any], path: Path) -> None:
    head = {f"head.{name}": shape for name, shape in whole_shapes(learner.head).items()}
    keys = frozenset(learner.optimizer.state_keys)
    for name, parameter in learner.named_parameters():
        entries = optimizer.get(name)
        if entries is None:
            raise BadCheckpoint(
                f"train.lr_mult: {name} is trained now, {path} has no state of the optimiser for it (it was fixed "
                f"then) · resume with the same fixed parts, {_new_run_advice(path)}"
            )
        if not isinstance(entries, Mapping) or (entries and frozenset(entries) != keys):
            raise BadCheckpoint(f"{path}: optimizer.{name}: got {shown(entries)} · allowed: {', '.join(sorted(keys))}")
        for key, value in entries.items():
            shape = () if key == "step" else tuple(head.get(name, parameter.shape))
            _check_numbers(value, shape, f"{path}: optimizer.{name}.{key}", at_least_0=key in ("step", "exp_avg_sq"))


def _check_numbers(value: object, shape: Sequence[int], where: str, *, at_least_0: bool) -> None:
    plain = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta
    if not isinstance(value, torch.Tensor) or not plain or not value.is_floating_point():
        raise BadCheckpoint(f"{where}: got {shown(value)} · allowed: a tensor of floating numbers")
    if tuple(value.shape) != tuple(shape):
        raise BadCheckpoint(f"{where}: got the shape {tuple(value.shape)} · allowed: {tuple(shape)}")
    good = (value >= 0) if at_least_0 else value.isfinite()  # a mean of squares may overflow in a healthy run
    if not bool(good.all()):
        raise BadCheckpoint(f"{where}: holds numbers that are {'negative' if at_least_0 else 'not finite'}")


def _check_scaler(scaler: Mapping[str, Any], path: Path) -> None:
    for key, (above, most) in _SCALER.items():
        value = scaler.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value <= most:
            raise BadCheckpoint(f"{path}: scaler.{key}: got {shown(value)} · allowed: above {above:g}, up to {most:g}")


def _check_rng(rng: Mapping[str, Any], device: torch.device, path: Path) -> None:
    for key, place in {"torch": torch.device("cpu"), device.type: device}.items():
        if key == "cpu" or (key != "torch" and key not in rng):
            continue
        try:
            torch.Generator(place).set_state(rng[key].cpu())
        except (KeyError, AttributeError, TypeError, RuntimeError) as error:
            reason = "missing" if isinstance(error, KeyError) else first_line(error)
            raise BadCheckpoint(f"{path}: rng.{key}: no state of a random generator ({reason})") from error
