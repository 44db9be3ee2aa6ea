"""Start from a trained network (``train.init_from``), with the head's rows of known identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..backbone_options import BackboneOptions
from ..checkpoint import BadCheckpoint, load_with_sha256, origin_of, teacher_of, trained_people
from ..config_sections import TeacherConfig, TrainConfig
from ..data.identities import Labels
from ..errors import UserError
from ..files import regular_file, sha256_of_open
from ..losses.whole_head import take_known
from ..models.loading import check_finite, load_weights, model_options
from ..plugins import OF_NETWORK, OTHER_CODE, changed_code
from ..weights import resolve
from .learner import Learner
from .resuming import network_changes

_NAMES = ("model.name:", "model.architecture:")


def start_from(
    learner: Learner, path: Path, class_names: Sequence[str], sample: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Load the network of a checkpoint, and start the head as ``train.init_head`` sets.

    Averaged weights are used if the checkpoint has them.

    Args:
        learner: with fresh weights.
        path: the checkpoint.
        class_names: the identities of the training set, in label order.
        sample: hashes of some of its images, see :func:`.training_set.sample_of`.

    Returns:
        What was loaded, in one line for the log; and warnings, a line each.

    Raises:
        BadCheckpoint: the file is not a checkpoint, or is of another network.
        UserError: the network reads another input than the configuration gives it, or ``keep``
            has nothing to keep.
    """
    state, sha256 = load_with_sha256(path, device=learner.device)
    theirs, weights = model_options(state, path)
    about = state["meta"]
    if theirs.networks > 1:
        names = ", ".join(map(str, about.get("networks", ())))  # an export names none
        raise BadCheckpoint(
            f"{path}: holds an ensemble of {theirs.networks} networks · allowed: the checkpoint of one network"
            f"{f' · give one of them: {names}' if names else ''}"
        )
    check_finite(weights, path)
    load_weights(learner.model, weights, path)
    _check_input(learner, theirs, path)
    of_teacher = () if learner.teacher is None else learner.teacher.people
    more = sorted({*trained_people(about), *of_teacher}.difference(class_names))
    learner.origin = {"init_from": {"file": path.name, "sha256": sha256}, "more_people": more}
    if learner.average is not None:
        learner.average.restore(learner.model.state_dict(), 0)
    head, by_number = _start_head(learner, state, class_names, path)
    line = (
        f"network from {path} ({about.get('run', 'an unnamed run')}, step {about.get('step', '?')}); {head}; "
        f"λ is {learner.config.train.lambda_start} updates ahead of its schedule"
    )
    other = [each for each in network_changes(theirs, learner.config.model) if each.startswith(_NAMES)]
    warning = f"train.init_from: {path} is of another network, whose weights fit but may mean something else"
    warnings = [f"{warning}: {' · '.join(other)}"] if other else []
    if changed_code(about, {OF_NETWORK: learner.codes()[OF_NETWORK]}):
        warnings.append(f"train.init_from: {path} {OTHER_CODE}: its weights fit but may mean something else")
    theirs_sample = {*about.get("sample", ())} - {""}
    if by_number and theirs_sample and sample and theirs_sample.isdisjoint(sample):
        warnings.append(
            f"train.init_head: the rows from {path} are of identities with equal numbers, and none of the compared "
            "images of data.train is one of its training set · allowed: numbers of one set · otherwise set "
            "train.init_head=new"
        )
    return line, warnings


def changed_start(meta: Mapping[str, Any], train: TrainConfig, checkpoint: Path) -> list[str]:
    """Return a line if the file of ``train.init_from`` is another one than when a run began.

    Another name is a change of the settings, and told there.

    Args:
        meta: of the run's checkpoint.
        train: of the configuration that resumes it.
        checkpoint: its path, for the message.
    """
    path = None if train.init_from is None else resolve(train.init_from)
    if path is None or not _is_another(path, origin_of(meta)):
        return []
    return [
        f"train.init_from: {path} is another file than when the run of {checkpoint} began, which keeps its weights · "
        "to train from the file of today, start without --resume"
    ]


def changed_teacher(meta: Mapping[str, Any], teacher: TeacherConfig, checkpoint: Path) -> list[str]:
    """Return a line if a teacher's file is another one than when a finished run learned from it.

    Args:
        meta: of the run's checkpoint.
        teacher: of today's configuration.
        checkpoint: its path, for the message.
    """
    # An ONNX file may have others beside it.
    files = {"checkpoint": teacher.checkpoint, "embeddings": teacher.embeddings}
    return [
        f"train.teacher.{key}: {file} is another file than when {checkpoint} was trained, which learned from that one "
        "· to train by the file of today, start without --resume"
        for key, file in files.items()
        if file is not None and _is_another(resolve(file), teacher_of(meta))
    ]


def _is_another(path: Path, before: Mapping[str, str] | None) -> bool:
    """Return whether a file of the same name has another content than ``file`` and ``sha256``."""
    if not before or path.name != before.get("file"):
        return False
    try:
        with open(path, "rb", opener=regular_file) as file:
            return sha256_of_open(file) != before.get("sha256")
    except OSError:  # not needed any more
        return False


def start_head_from_teacher(learner: Learner, labels: Labels) -> None:
    """Set the head's rows to the teacher's mean of each identity, in the student's width.

    A (T, D) matrix with orthonormal rows keeps the angles between them if D ≥ T. With fewer
    dimensions, the angles are those of a random projection.

    Args:
        learner: with a teacher.
        labels: (N,) of the training images.
    """
    assert learner.teacher is not None
    means = torch.from_numpy(learner.teacher.class_means(labels, learner.head.num_classes))  # (C, T)
    dim = learner.model.embedding_dim
    noise = torch.randn(max(means.shape[1], dim), min(means.shape[1], dim), generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(noise)[0]
    lifted = means @ (basis if len(basis) == means.shape[1] else basis.T)
    take_known(learner.head, {"weight": lifted}, torch.arange(len(lifted)))


def _check_input(learner: Learner, options: BackboneOptions, path: Path) -> None:
    """Refuse an input that differs from that of the network's training.

    Its weights would fit, but its embeddings would be wrong without a message.
    """
    theirs, ours = options.input_spec, learner.model.input_spec
    if (theirs.order, theirs.mean, theirs.std) != (ours.order, ours.mean, ours.std):
        mean, std = ([*values] if len(values) > 1 else values[0] for values in (theirs.mean, theirs.std))
        raise UserError(
            f"train.init_from: {path} reads {theirs.scale()} in {theirs.order.upper()}, this configuration gives it "
            f"{ours.scale()} in {ours.order.upper()} · set model.input_order={theirs.order}, "
            f"model.input_mean={mean}, model.input_std={std}"
        )
    eps, wanted = options.batch_norm.eps, learner.config.model.batch_norm.eps
    if eps != wanted:
        raise UserError(
            f"train.init_from: {path} has model.batch_norm.eps {eps}, this configuration {wanted} · set "
            f"model.batch_norm.eps={'null' if eps is None else eps}"
        )


def _start_head(learner: Learner, state: Mapping[str, Any], class_names: Sequence[str], path: Path) -> tuple[str, bool]:
    """Fill the head's rows of known identities.

    Returns:
        In words what was done, and whether all these identities have only numbers.
    """
    wanted = learner.config.train.init_head
    if wanted in ("new", "teacher"):
        return "the head is new", False
    rows, why_not = _known_rows(state, class_names, learner.model.embedding_dim, by_number=wanted == "keep")
    if rows is None:
        if wanted == "keep":
            raise UserError(f"train.init_head: got keep, but {path} {why_not} · allowed there: new, for a fresh head")
        return f"the head is new, because the checkpoint {why_not}", False
    left = take_known(learner.head, state["head"], rows)
    known = [name for name, row in zip(class_names, rows.tolist(), strict=True) if row >= 0]
    fresh = f"; its {', '.join(left)} starts fresh too" if left else ""
    line = f"the head has the rows of {len(known):,} of {len(class_names):,} identities, the rest start fresh{fresh}"
    return line, all(name.rpartition("/")[2].isdecimal() for name in known)


def _known_rows(
    state: Mapping[str, Any], class_names: Sequence[str], dim: int, *, by_number: bool
) -> tuple[torch.Tensor | None, str]:
    """Return (C,) int64, the row of each identity or −1; or None, and the reason."""
    head = state.get("head")
    weight = head.get("weight") if isinstance(head, Mapping) else None
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2:
        return None, "has no head"
    if weight.shape[1] != dim:
        return None, f"has a head for embeddings of {weight.shape[1]} numbers, not {dim}"
    if not bool(torch.isfinite(weight).all()):
        return None, "has a head with numbers that are not finite"
    names = state["meta"].get("class_names")
    if names is None and not by_number:
        return None, "does not name its identities"
    if names is None:
        if len(weight) != len(class_names):
            here = f"{len(class_names):,}"
            return None, f"does not name its identities, and has {len(weight):,} of them where data.train has {here}"
        return torch.arange(len(class_names)), ""
    if not isinstance(names, list) or len(names) != len(weight):
        return None, f"has a head of {len(weight):,} rows, but another number of names"
    row_of = {name: row for row, name in enumerate(names) if isinstance(name, str)}
    rows = torch.tensor([row_of.get(name, -1) for name in class_names])
    if not bool((rows >= 0).any()):
        return None, "has none of the identities of data.train"
    return rows, ""
