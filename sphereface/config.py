"""The configuration of a run: YAML over defaults, ``--set a.b=c`` over YAML, checked as a whole. No torch.

Defaults live here and nowhere else. A section that is chosen by its ``name`` (``model`` and ``loss``) is described by
the part that implements it; :func:`load_config` is given those descriptions as ``backbones`` and ``losses``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .augmentation import Augment
from .backbone_options import BackboneOptions
from .config_files import find_config, merge, read_yaml, set_value
from .errors import ConfigError, UserError
from .options import fill_options, option, parse_options, suggest, to_plain
from .places import Places, check_set_name, parse_places


@dataclass(frozen=True)
class DataConfig:
    """Where the training crops are and how they are fed."""

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
    workers: int = option(2, low=0)
    keep_mb: int = option(1024, low=0, high=2**20 - 1)
    max_bad_share: float = option(0.01, low=0, high=1)


@dataclass(frozen=True)
class MuonConfig:
    """Of ``train.optimizer: muon``: for the weights of convolutions; everything else has the settings of SGD."""

    lr: float = option(0.02, above=0)
    weight_decay: float = option(0.005, low=0)


@dataclass(frozen=True)
class DecayConfig:
    """Which parameters ``train.weight_decay`` acts on, besides the weights of convolutions and linear layers."""

    biases: bool = option(False)
    norms: bool = option(False)
    slopes: bool = option(True)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation: how long, how fast, in which arithmetic."""

    batch_size: int = option(512, low=1)
    steps: int | None = option(None, low=1)
    epochs: float | None = option(None, above=0)
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
    lr_mult: dict[str, Any] = option({})
    clip_grad_norm: float | None = option(None, above=0)
    micro_batch: int | None = option(None, low=1)
    ema: float | None = option(None, above=0, high=0.999999)
    init_from: str | None = option(None)
    init_head: str = option("new", choices=["new", "keep", "auto"])
    lambda_start: int = option(0, low=0)
    on_nonfinite: str = option("stop", choices=["stop", "skip"])
    nonfinite_limit: int = option(10, low=1)
    precision: str = option("fp32", choices=["fp32", "bf16", "fp16"])
    compile: bool = option(False)
    recompute: bool = option(False)


@dataclass(frozen=True)
class StageConfig:
    """A part of a run, from the stage before to ``until`` (a share of the run): another loss, smaller crops."""

    until: float = option(above=0, high=0.9999)
    loss: dict[str, Any] = option({})
    input_size: tuple[int, ...] | None = option(None, low=16)


@dataclass(frozen=True)
class Stage:
    """A resolved stage: its ``loss`` is an options object, as the configuration's is; crops are shrunk to its size."""

    until: float
    loss: Any
    input_size: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PairSetConfig:
    """One list of pairs among ``eval.sets``, with its images; other sets are a text, see :mod:`sphereface.places`."""

    images: str = option()
    pairs: str = option()
    dev_train: str | None = option(None)


@dataclass(frozen=True)
class EvalConfig:
    """Verification sets seen during training, and which of them picks best.pt."""

    every_steps: int = option(1000, low=1)
    sets: dict[str, Any] = option({})
    select: str | None = option(None)
    batch_size: int = option(128, low=1)
    precision: str = option("fp32", choices=["fp32", "bf16"])


@dataclass(frozen=True)
class LogConfig:
    """What is written while training."""

    every_steps: int = option(20, low=1)
    histogram_every_steps: int = option(500, low=1)
    tensorboard: bool = option(True)


@dataclass(frozen=True)
class CheckpointConfig:
    """How often the whole state is saved, and how many of those files stay."""

    every_steps: int = option(1000, low=1)
    keep: int = option(3, low=1)


@dataclass(frozen=True)
class Config:
    """A whole run, resolved.

    ``model`` is the options object of the backbone that ``model.name`` chooses, ``loss`` that of the margin that
    ``loss.name`` chooses; ``stages`` are those of ``train.stages``, before it.
    """

    name: str = option("run")
    seed: int = option(0, low=0, high=2**32 - 1)
    deterministic: bool = option(False)
    runs_dir: str = option("runs")
    model: BackboneOptions = field(default=BackboneOptions(), init=False)
    data: DataConfig = field(default_factory=lambda: DataConfig(train=""))
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    loss: Any = field(default=None, init=False)
    stages: tuple[Stage, ...] = field(default=(), init=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; :func:`config_from_dict` reads them back."""
        plain: dict[str, Any] = to_plain(self)
        plain["model"] = self.model.to_dict()
        plain["loss"] = {"name": self.loss.name, **plain["loss"]}
        del plain["stages"]  # train.stages has them as they were given
        return plain

    def evaluation_sets(self) -> dict[str, Places]:
        """Return ``eval.sets`` by name: where each set is, in the grammar of ``sphereface eval --sets``."""
        return _parse_sets(self.eval.sets, [])


_CHOOSING = ("loss=", "loss.name=", "model=", "model.name=")  # overrides that come first: they replace a section
_OF_YOUR_OWN = " · one of your own: name its file in SPHEREFACE_PLUGINS (docs/extend.md)"


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two plain configurations, a line each: 'train.steps: 12 → 24'."""
    lines = []
    for key in (*before, *(key for key in after if key not in before)):
        old, new, name = before.get(key), after.get(key), f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{name}.")
        elif old != new:
            lines.append(f"{name}: {old!r} → {new!r}")
    return lines


def load_config(
    name: str,
    overrides: Sequence[str] = (),
    *,
    losses: Mapping[str, type[Any]],
    backbones: Mapping[str, type[BackboneOptions]],
) -> Config:
    """Read, override and check one configuration.

    Args:
        name: what ``--config`` got (see :func:`find_config`).
        overrides: what each ``--set`` got, ``key.sub=value``; the value is read as YAML.
        losses: option class of each ``loss.name``.
        backbones: option class of each ``model.name``.

    Raises:
        ConfigError: with every problem found.
        UserError: no such file, or not YAML.
    """
    path = find_config(name)
    values = read_yaml(path)
    for override in sorted(overrides, key=lambda text: not text.startswith(_CHOOSING)):
        set_value(values, override)
    return config_from_dict(values, source=str(path), losses=losses, backbones=backbones)


def config_from_dict(
    values: Mapping[str, Any],
    *,
    source: str,
    losses: Mapping[str, type[Any]],
    backbones: Mapping[str, type[BackboneOptions]],
) -> Config:
    """Check a configuration given as nested mappings; see :func:`load_config`."""
    problems: list[str] = []
    rest = {key: value for key, value in values.items() if key not in ("loss", "model")}
    config = fill_options(Config, rest, prefix="", problems=problems)
    model = parse_model(values.get("model"), backbones, problems)
    object.__setattr__(config, "model", model or BackboneOptions())
    loss = _parse_named(values.get("loss"), losses, problems, "loss", "a-softmax")
    stages = _parse_stages(config.train.stages, values.get("loss"), losses, problems)
    wrong = [problem.partition(":")[0] for problem in problems]
    problems += [line for line in _contradictions(config) if not any(key in line.partition(":")[0] for key in wrong)]
    if problems:
        raise ConfigError(source, problems)
    object.__setattr__(config, "loss", loss)
    object.__setattr__(config, "stages", stages)
    if problems := [*_unlike_heads(config), *_wrong_sizes(config)]:
        raise ConfigError(source, problems)
    return config


def parse_model(
    values: object, backbones: Mapping[str, type[BackboneOptions]], problems: list[str]
) -> BackboneOptions | None:
    """Check a ``model:`` section by the options class that its ``name`` chooses.

    Args:
        values: what the configuration or a checkpoint says.
        backbones: option class of each ``model.name``.
        problems: gets a line for each thing that is wrong.

    Returns:
        The options; None where no such class could be filled.
    """
    model: BackboneOptions | None = _parse_named(values, backbones, problems, "model", "spherenet")
    if model is not None:
        problems += model.problems()
    return model


def _parse_named(
    values: object, classes: Mapping[str, type[Any]], problems: list[str], prefix: str, default: str
) -> Any:
    """Fill the option class that the key ``name`` of a section chooses; None where something is wrong."""
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        problems.append(f"{prefix}: got {values!r} · allowed: a mapping with the key name")
        return None
    name = values.get("name", default)
    if not isinstance(name, str) or name not in classes:
        problems.append(f"{prefix}.name: got {name!r}{suggest(str(name), classes)}{_OF_YOUR_OWN}")
        return None
    options = {key: value for key, value in values.items() if key != "name"}
    return parse_options(classes[name], options, prefix=prefix, problems=problems)


def _parse_stages(
    given: Sequence[object], loss: object, losses: Mapping[str, type[Any]], problems: list[str]
) -> tuple[Stage, ...]:
    """Stages with whole losses: what a stage does not say is as in ``loss``."""
    stages = []
    for number, values in enumerate(given):
        prefix = f"train.stages[{number}]"
        stage = parse_options(StageConfig, values, prefix=prefix, problems=problems)
        if stage is None:
            continue
        whole = merge({"loss": dict(loss) if isinstance(loss, Mapping) else {}}, {"loss": stage.loss})["loss"]
        resolved = _parse_named(whole, losses, problems, f"{prefix}.loss", "a-softmax")
        stages.append(Stage(stage.until, resolved, stage.input_size))
    shares = [stage.until for stage in stages]
    if shares != sorted(set(shares)):
        problems.append(f"train.stages: got until {shares} · allowed: increasing shares of the run")
    return tuple(stages)


def _unlike_heads(config: Config) -> list[str]:
    """Stages whose loss keeps other things in the head than the last one's does: one head cannot serve both."""

    def kept(loss: Any) -> dict[str, Any]:
        names = ("bias", "running", "distributed", "sample_rate")
        return {name: getattr(loss, name) for name in names if hasattr(loss, name)}

    return [
        f"train.stages[{number}].loss: got {stage.loss.name} with {key} {kept(stage.loss)[key]!r} before "
        f"{config.loss.name} with {value!r} · allowed: losses that keep the same in the head"
        for number, stage in enumerate(config.stages)
        for key, value in kept(config.loss).items()
        if kept(stage.loss)[key] != value
    ]


def _wrong_sizes(config: Config) -> list[str]:
    """Stages that would enlarge the crops, or whose size is no (height, width)."""
    whole = config.model.input_size
    return [
        f"train.stages[{number}].input_size: got {list(size)} · allowed: [height, width], at most {list(whole)}"
        for number, size in enumerate(stage.input_size for stage in config.stages)
        if size is not None and (len(size) != 2 or size[0] > whole[0] or size[1] > whole[1])
    ]


def _parse_sets(sets: Mapping[str, object], problems: list[str]) -> dict[str, Places]:
    """Return where each set is: a text ``[KIND:]PLACE[,PLACE…]``, or a mapping of a list of pairs."""
    parsed = {}
    for name, value in sets.items():
        try:
            check_set_name(name)
            if isinstance(value, str):
                parsed[name] = parse_places(value)
                continue
        except UserError as error:
            problems.append(f"eval.sets.{name}: {error}")
            continue
        pair_set = parse_options(PairSetConfig, value, prefix=f"eval.sets.{name}", problems=problems)
        if pair_set is not None:
            paths = (pair_set.images, pair_set.pairs, pair_set.dev_train)
            parsed[name] = Places("pairs", tuple(Path(path) for path in paths if path is not None))
    return parsed


def _contradictions(config: Config) -> list[str]:
    """What is wrong with keys that are each fine alone."""
    train = config.train
    problems: list[str] = []
    _parse_sets(config.eval.sets, problems)
    if not config.data.train:
        problems.append(
            "data.train: missing · allowed: a folder of identities, a .rec, a list, a .zip, or several of them · "
            "set it, or --set data.train=PATH"
        )
    if (train.steps is None) == (train.epochs is None):
        got = "neither" if train.steps is None else "both"
        problems.append(
            f"train.steps, train.epochs: got {got} · allowed: one of them · "
            "it is the length of the schedule, also where train.max_minutes ends the run"
        )
    if list(train.milestones) != sorted(set(train.milestones)):
        problems.append(f"train.milestones: got {list(train.milestones)} · allowed: increasing steps")
    if train.schedule != "step" and train.milestones:
        problems.append(f"train.milestones: got some with schedule {train.schedule} · allowed: only with schedule step")
    if len(train.betas) != 2:
        problems.append(f"train.betas: got {list(train.betas)} · allowed: two numbers")
    if train.micro_batch is not None and train.micro_batch > train.batch_size:
        problems.append(f"train.micro_batch: got {train.micro_batch} · allowed: at most batch_size {train.batch_size}")
    if train.init_head != "new" and train.init_from is None:
        problems.append(f"train.init_head: got {train.init_head} without train.init_from · allowed there: new")
    if train.batch_size == 1 and config.model.batch_statistics:
        problems.append("train.batch_size: got 1 with batch normalisation in the model · allowed there: 2 or more")
    if config.eval.select is not None and config.eval.select not in config.eval.sets:
        known = suggest(config.eval.select, config.eval.sets) if config.eval.sets else " · eval.sets is empty"
        problems.append(f"eval.select: got {config.eval.select!r}{known}")
    return problems
