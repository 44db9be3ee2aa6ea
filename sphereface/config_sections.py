"""The sections of a configuration and all their defaults. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .augmentation import Augment
from .errors import shown, shown_key
from .options import option, suggest

_MOST_BATCH = 2**20


@dataclass(frozen=True)
class DataConfig:
    """The training crops, and how training reads them."""

    train: str | tuple[str, ...] = option()
    root: str | None = option(None)
    merge: bool = option(False)
    exclude: tuple[str, ...] = option(())
    exclude_file: str | None = option(None)
    min_images: int = option(1, low=1)
    mirror: bool = option(True)
    crop_shift: int = option(0, low=0, high=16)
    augment: Augment = field(default_factory=Augment)
    balance: float = option(0.0, low=0, high=1)
    workers: int = option(2, low=0, high=256)
    keep_mb: int = option(1024, low=0, high=2**20 - 1)
    max_bad_share: float = option(0.01, low=0, high=1)


@dataclass(frozen=True)
class MuonConfig:
    """The settings of Muon, for the weights of convolutions; everything else has those of SGD."""

    lr: float = option(0.02, above=0)
    weight_decay: float = option(0.005, low=0)


@dataclass(frozen=True)
class DecayConfig:
    """Parameters that ``train.weight_decay`` acts on, besides convolution and linear weights."""

    biases: bool = option(False)
    norms: bool = option(False)
    slopes: bool = option(True)


TEACHER_LOSSES = ("cosine", "l2", "rkd-distance", "rkd-angle", "similarity", "correlation", "queue")
"""Losses that compare a network with its teacher (see :mod:`sphereface.losses.teacher`)."""


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher, from which the network learns: ``embeddings``, ``onnx`` or ``checkpoint``."""

    embeddings: str | None = option(None)
    onnx: str | None = option(None)
    checkpoint: str | None = option(None)
    input: dict[str, Any] = option({})
    losses: dict[str, float] = option({}, above=0)
    label_weight: float = option(1.0, low=0)
    warmup_steps: int = option(0, low=0)
    view: str = option("stored", choices=["stored", "same"])
    center: bool = option(False)
    queue_size: int = option(16384, low=1, high=2**20)
    temperatures: tuple[float, ...] = option((0.2, 0.01), above=0)

    @property
    def given(self) -> dict[str, str]:
        """Return the keys that name a teacher, with their values."""
        keys = {"embeddings": self.embeddings, "onnx": self.onnx, "checkpoint": self.checkpoint}
        return {key: value for key, value in keys.items() if value is not None}

    def problems(self) -> Iterator[str]:
        """Yield the problems of keys that are valid alone, but not together, a line each."""
        prefix = "train.teacher"
        given = self.given
        for name in (name for name in self.losses if name not in TEACHER_LOSSES):
            yield f"{prefix}.losses.{shown_key(name)}: unknown loss{suggest(name, TEACHER_LOSSES)}"
        if len(given) > 1:
            yield f"{prefix}: got {' and '.join(given)} · allowed: one of embeddings, onnx, checkpoint"
        if given and not self.losses:
            yield f"{prefix}.losses: missing · allowed: {{name: weight}}, such as {{cosine: 10}}"
        if not given and self != TeacherConfig():
            yield f"{prefix}: got no teacher · allowed: one of embeddings, onnx, checkpoint, each a file"
        if self.input and self.onnx is None:
            yield f"{prefix}.input: got {shown(self.input)} without {prefix}.onnx · allowed there: nothing"
        if self.view == "same" and self.embeddings is not None:
            yield f"{prefix}.view: got same with {prefix}.embeddings · allowed there: stored"
        if len(self.temperatures) != 2:
            got = shown(list(self.temperatures))
            yield f"{prefix}.temperatures: got {got} · allowed: two numbers, of the student and of the teacher"


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation: duration, learning rate and arithmetic."""

    batch_size: int = option(512, low=1, high=_MOST_BATCH)
    steps: int | None = option(None, low=1)
    epochs: float | None = option(None, above=0, high=1e6)
    max_minutes: float | None = option(None, above=0)
    lr: float = option(0.1, above=0)
    schedule: str = option("step", choices=["step", "cosine", "linear", "one-cycle"])
    milestones: tuple[int, ...] = option((), low=1)
    lr_decay: float = option(0.1, above=0, high=1)
    warmup_steps: int = option(0, low=0)
    stages: tuple[dict[str, Any], ...] = option(())
    optimizer: str = option("sgd", choices=["sgd", "adamw", "muon"])
    muon: MuonConfig = field(default_factory=MuonConfig)
    momentum: str = option("caffe", choices=["caffe", "torch"])
    mu: float = option(0.9, low=0, high=0.9999)
    betas: tuple[float, ...] = option((0.9, 0.999), low=0, high=0.9999)
    weight_decay: float = option(5e-4, low=0)
    decay: DecayConfig = field(default_factory=DecayConfig)
    bias_lr_mult: float | None = option(None, low=0)
    lr_mult: dict[str, float] = option({}, low=0)
    clip_grad_norm: float | None = option(None, above=0)
    micro_batch: int | None = option(None, low=1)
    ema: float | None = option(None, above=0, high=0.999999)
    init_from: str | None = option(None)
    init_head: str = option("new", choices=["new", "keep", "auto", "teacher"])
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    lambda_start: int = option(0, low=0)
    on_nonfinite: str = option("stop", choices=["stop", "skip"])
    nonfinite_limit: int = option(10, low=1)
    precision: str = option("fp32", choices=["fp32", "bf16", "fp16"])
    matmul: str = option("fp32", choices=["fp32", "tf32"])
    compile: bool = option(False)
    recompute: bool = option(False)


@dataclass(frozen=True)
class StageConfig:
    """A part of a run that ends at ``until``, a share of the run: another loss, smaller crops."""

    until: float = option(above=0, high=0.9999)
    loss: dict[str, Any] = option({})
    input_size: tuple[int, ...] | None = option(None, low=16)


@dataclass(frozen=True)
class Stage:
    """A resolved stage: ``loss`` is an options object, and crops are shrunk to ``input_size``."""

    until: float
    loss: Any
    input_size: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PairSetConfig:
    """A list of pairs in ``eval.sets`` with its images; :mod:`sphereface.places` has the others."""

    images: str = option()
    pairs: str = option()
    dev_train: str | None = option(None)


@dataclass(frozen=True)
class EvalConfig:
    """Verification sets during training, and the one that selects best.pt."""

    every_steps: int = option(1000, low=1)
    sets: dict[str, Any] = option({})
    select: str | None = option(None)
    batch_size: int = option(128, low=1, high=_MOST_BATCH)
    precision: str = option("fp32", choices=["fp32", "bf16"])


@dataclass(frozen=True)
class LogConfig:
    """What training writes to its log, and how often."""

    every_steps: int = option(20, low=1)
    histogram_every_steps: int = option(500, low=1)
    sinks: tuple[str, ...] = option(("jsonl", "tensorboard"))


def current_log(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``log:`` section whose ``sinks`` replaces the older key ``tensorboard``."""
    rest = {key: value for key, value in values.items() if key != "tensorboard"}
    sinks = rest.get("sinks", LogConfig().sinks)
    wanted = values.get("tensorboard")
    if not isinstance(wanted, bool) or not isinstance(sinks, (list, tuple)):
        return dict(values)
    others = [name for name in sinks if name != "tensorboard"]
    kept = sinks if wanted and "tensorboard" in sinks else [*others, "tensorboard"] if wanted else others
    return {**rest, "sinks": list(kept)}


@dataclass(frozen=True)
class CheckpointConfig:
    """How often the whole state is saved, and how many checkpoints are kept."""

    every_steps: int = option(1000, low=1)
    keep: int = option(3, low=1)
