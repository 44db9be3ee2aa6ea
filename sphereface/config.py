"""The configuration of a run: YAML over defaults, ``--set a.b=c`` over YAML. It needs no torch.

Sections and their defaults are in :mod:`sphereface.config_sections`. The sections ``model`` and
``loss`` depend on their ``name``. The module that implements a name describes its options, and
:func:`load_config` receives them as ``backbones`` and ``losses``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .backbone_options import BackboneOptions
from .config_files import check_stages, find_config, merge, read_yaml, set_value
from .config_sections import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    LogConfig,
    PairSetConfig,
    Stage,
    StageConfig,
    TrainConfig,
    current_log,
)
from .errors import ConfigError, UserError, shown, shown_key
from .input_spec import warn_of_scale
from .options import derived, fill_options, option, parse_options, suggest, to_plain
from .places import Places, check_set_name, check_set_names, parse_places, with_home

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """The resolved configuration of a whole run.

    ``model`` has the options of the backbone ``model.name``, and ``loss`` those of the margin
    ``loss.name``. ``stages`` are those of ``train.stages``, which come before ``loss``.
    """

    name: str = option("run")
    seed: int = option(0, low=0, high=2**32 - 1)
    deterministic: bool = option(False)
    runs_dir: str = option("runs")
    model: BackboneOptions = derived(BackboneOptions())
    data: DataConfig = field(default_factory=lambda: DataConfig(train=""))
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    loss: Any = derived(None)
    stages: tuple[Stage, ...] = derived(())

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers; :func:`config_from_dict` reads them back."""
        plain: dict[str, Any] = to_plain(self)
        plain["model"] = self.model.to_dict()
        plain["loss"] = {"name": self.loss.name, **plain["loss"]}
        del plain["stages"]  # train.stages has them as they were given
        return plain

    def evaluation_sets(self) -> dict[str, Places]:
        """Return the places of each set of ``eval.sets``, as ``sphereface eval --sets`` does."""
        return _parse_sets(self.eval.sets, [])


_CHOOSING = ("loss=", "loss.name=", "model=", "model.name=")  # these overrides replace a section, so they come first
_MOST_NAME = 100  # bytes
PLUGIN_HINT = " · one of your own: name its file in SPHEREFACE_PLUGINS (docs/extend.md)"


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the differences of two plain configurations, such as 'train.steps: 12 → 24'."""
    lines = []
    for key in (*before, *(key for key in after if key not in before)):
        old, new, name = before.get(key), after.get(key), f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{name}.")
        elif old != new:
            lines.append(f"{name}: {shown(old)} → {shown(new)}")
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
        name: the value of ``--config`` (see :func:`find_config`).
        overrides: the values of ``--set``, ``key.sub=value`` each; the value is read as YAML.
        losses: option class of each ``loss.name``.
        backbones: option class of each ``model.name``.

    Raises:
        ConfigError: with every problem found.
        UserError: the file does not exist, or is not YAML.
    """
    path = find_config(name)
    written = read_yaml(path)
    values = dict(written)
    for override in sorted(overrides, key=lambda text: not text.startswith(_CHOOSING)):
        set_value(values, override)
    check_stages(written, values, "--set")
    values = with_home(values)
    if isinstance(section := values.get("log"), Mapping) and "tensorboard" in section:
        log.warning("log.tensorboard: the key is log.sinks now, a list such as [jsonl, tensorboard]")
    config = config_from_dict(values, source=str(path), losses=losses, backbones=backbones)
    warn_of_scale("model.input_mean, model.input_std", config.model.input_spec)
    return config


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
    if isinstance(section := values.get("log"), Mapping):
        rest["log"] = current_log(section)
    config = fill_options(Config, rest, prefix="", problems=problems, others=("extends", "model", "loss"))
    model = parse_model(values.get("model"), backbones, problems)
    config = replace(config, model=model or BackboneOptions())
    loss = _parse_named(values.get("loss"), losses, problems, "loss", "a-softmax")
    stages = _parse_stages(config.train.stages, values.get("loss"), losses, problems)
    wrong = [problem.partition(":")[0] for problem in problems]
    problems += [line for line in _contradictions(config) if not any(key in line.partition(":")[0] for key in wrong)]
    if problems:
        raise ConfigError(source, problems)
    config = replace(config, loss=loss, stages=stages)
    if problems := [*_different_heads(config), *_wrong_sizes(config)]:
        raise ConfigError(source, problems)
    return config


def parse_model(
    values: object, backbones: Mapping[str, type[BackboneOptions]], problems: list[str]
) -> BackboneOptions | None:
    """Check a ``model:`` section by the options class that its ``name`` chooses.

    Args:
        values: the section of a configuration or a checkpoint.
        backbones: option class of each ``model.name``.
        problems: receives a line for each problem.

    Returns:
        The options; None if no such class could be filled.
    """
    model: BackboneOptions | None = _parse_named(values, backbones, problems, "model", "spherenet")
    if model is not None:
        problems += model.problems()
    return model


def _parse_named(
    values: object, classes: Mapping[str, type[Any]], problems: list[str], prefix: str, default: str
) -> Any:
    """Fill the option class that the ``name`` of a section selects; None if something is wrong."""
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        problems.append(f"{prefix}: got {shown(values)} · allowed: a mapping with the key name")
        return None
    name = values.get("name", default)
    if not isinstance(name, str) or name not in classes:
        problems.append(f"{prefix}.name: got {shown(name)}{suggest(shown(name), classes)}{PLUGIN_HINT}")
        return None
    options = {key: value for key, value in values.items() if key != "name"}
    return parse_options(classes[name], options, prefix=prefix, problems=problems, others=("name",))


def _parse_stages(
    given: Sequence[object], loss: object, losses: Mapping[str, type[Any]], problems: list[str]
) -> tuple[Stage, ...]:
    """Return stages with whole losses: a stage takes missing options from ``loss``."""
    stages = []
    for number, values in enumerate(given):
        prefix = f"train.stages[{number}]"
        if (stage := parse_options(StageConfig, values, prefix=prefix, problems=problems)) is None:
            continue
        whole = merge({"loss": dict(loss) if isinstance(loss, Mapping) else {}}, {"loss": stage.loss})["loss"]
        resolved = _parse_named(whole, losses, problems, f"{prefix}.loss", "a-softmax")
        stages.append(Stage(stage.until, resolved, stage.input_size))
    shares = [stage.until for stage in stages]
    if shares != sorted(set(shares)):
        problems.append(f"train.stages: got until {shown(shares)} · allowed: increasing shares of the run")
    return tuple(stages)


def _different_heads(config: Config) -> list[str]:
    """Return stages whose loss keeps other values than the last loss in their common head."""

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
    """Return stages that would enlarge the crops, or whose size is not (height, width)."""
    whole = config.model.input_size
    return [
        f"train.stages[{number}].input_size: got {shown(list(size))} · allowed: [height, width], at most {list(whole)}"
        for number, size in enumerate(stage.input_size for stage in config.stages)
        if size is not None and (len(size) != 2 or size[0] > whole[0] or size[1] > whole[1])
    ]


def _parse_sets(sets: Mapping[str, object], problems: list[str]) -> dict[str, Places]:
    """Return the places of each set: a text ``[KIND:]PLACE[,PLACE…]``, or a mapping of pairs."""
    parsed = {}
    for name, value in sets.items():
        try:
            check_set_name(name)
            if isinstance(value, str):
                parsed[name] = parse_places(value)
                continue
        except UserError as error:
            problems.append(f"eval.sets.{shown_key(name)}: {error}")
            continue
        pair_set = parse_options(PairSetConfig, value, prefix=f"eval.sets.{shown_key(name)}", problems=problems)
        if pair_set is not None:
            paths = (pair_set.images, pair_set.pairs, pair_set.dev_train)
            parsed[name] = Places("pairs", tuple(Path(path) for path in paths if path is not None))
    try:
        check_set_names(parsed)
    except UserError as error:
        problems.append(f"eval.sets: {error}")
    return parsed


def _empty_paths(config: Config) -> Iterator[str]:
    """Yield a line for each path that is an empty text, which would mean the current folder."""
    paths = {
        "runs_dir": config.runs_dir,
        "data.root": config.data.root,
        "data.exclude_file": config.data.exclude_file,
        "train.init_from": config.train.init_from,
        **{f"train.teacher.{key}": value for key, value in config.train.teacher.given.items()},
    }
    for key, path in paths.items():
        if path is not None and not path.strip():
            yield f"{key}: got {shown(path)} · allowed: a path{', or null for none' * (key != 'runs_dir')}"


def _contradictions(config: Config) -> Iterator[str]:
    """Yield the problems of keys that are valid alone, but not together."""
    train = config.train
    parts = config.name.split("/")  # folders of runs_dir
    if any(part in ("", ".", "..") or not part.isprintable() or len(part.encode()) > _MOST_NAME for part in parts):
        yield f"name: got {shown(config.name)} · allowed: the name of a folder, which is created in runs_dir"
    yield from _empty_paths(config)
    in_sets: list[str] = []
    _parse_sets(config.eval.sets, in_sets)
    yield from in_sets
    if not config.data.train or (isinstance(config.data.train, tuple) and "" in config.data.train):
        yield (
            "data.train: missing or empty · allowed: a folder of identities, a .rec, a list, a .zip, .tar, "
            ".parquet, .arrow or .lmdb, or several of them · set it, or --set data.train=PATH"
        )
    if (train.steps is None) == (train.epochs is None):
        got = "neither" if train.steps is None else "both"
        yield (
            f"train.steps, train.epochs: got {got} · allowed: one of them · "
            "it is the length of the schedule, even if train.max_minutes ends the run earlier"
        )
    if list(train.milestones) != sorted(set(train.milestones)):
        yield f"train.milestones: got {shown(list(train.milestones))} · allowed: increasing steps"
    if train.schedule != "step" and train.milestones:
        yield f"train.milestones: got milestones with schedule {train.schedule} · allowed: only with schedule step"
    if len(train.betas) != 2:
        yield f"train.betas: got {shown(list(train.betas))} · allowed: two numbers"
    if train.micro_batch is not None and train.micro_batch > train.batch_size:
        yield f"train.micro_batch: got {train.micro_batch} · allowed: at most batch_size {train.batch_size}"
    yield from train.teacher.problems()
    if train.init_head in ("keep", "auto") and train.init_from is None:
        yield f"train.init_head: got {train.init_head} without train.init_from · allowed there: new, teacher"
    if train.init_head == "teacher" and not train.teacher.given:
        yield "train.init_head: got teacher without train.teacher · allowed there: new, keep, auto"
    if train.batch_size == 1 and config.model.batch_statistics:
        yield "train.batch_size: got 1 with batch normalisation in the model · allowed there: 2 or more"
    if config.eval.select is not None and config.eval.select not in config.eval.sets:
        known = suggest(config.eval.select, config.eval.sets) if config.eval.sets else " · eval.sets is empty"
        yield f"eval.select: got {shown(config.eval.select)}{known}"
