"""Turn a file of published weights into a checkpoint of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...backbone_options import BackboneOptions
from ...checkpoint import BadCheckpoint, save_checkpoint
from ...config import parse_model
from ..backbone import BACKBONES
from ..loading import build_model, model_options
from .adapters import Adapter, publishers_with_same_keys, recognise
from .files import Contents, read_contents
from .heads import find_head, is_finite, read_names
from .own_export import SOURCE, is_own, own_state
from .shapes import input_size

_MOST_LISTED = 10


@dataclass(frozen=True)
class InputOverrides:
    """The user's values for the network's input; None keeps the published value.

    Attributes:
        size: (height, width) in pixels.
        order: ``"bgr"`` or ``"rgb"``.
        mean, std: a pixel p from 0 to 255 becomes (p − mean) / std; one number, or one for each
            channel.
    """

    size: tuple[int, int] | None = None
    order: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def options(self) -> dict[str, Any]:
        """Return them as options of ``model:``, without the size."""
        given = {"input_order": self.order, "input_mean": _plain(self.mean), "input_std": _plain(self.std)}
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class Published:
    """A published network in this project's terms.

    Attributes:
        source: repository and network that the file was recognised as.
        options: ``model:`` of a configuration, with the input that the network reads.
        weights: state dict of the network; float32, except for counters.
        head: ``weight`` (C, D), and ``bias`` (C,) where it exists; or empty.
        class_names: of the C identities, where the user gave them.
        notes: for the user, one line each.
        stated: further entries of the checkpoint, which an export of this program states.
    """

    source: str
    options: BackboneOptions
    weights: dict[str, Tensor]
    head: dict[str, Tensor]
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    stated: Mapping[str, Any] = field(default_factory=dict)


def import_published(
    path: Path,
    *,
    publisher: str | None = None,
    overrides: InputOverrides | None = None,
    head_files: Sequence[Path] = (),
    names_file: Path | None = None,
) -> Published:
    """Read published weights. Depth, widths and embedding length follow from the shapes.

    Args:
        path: a file of any known publisher, or a Hugging Face folder.
        publisher: a name of :data:`~sphereface.choices.PUBLISHERS`; None recognises it by content.
        overrides: of the input.
        head_files: files that hold the head, or the parts of it in order of their ranks.
        names_file: a text file with the name of an identity on each line.

    Raises:
        BadCheckpoint: one line: what in the file is missing, damaged, unknown, or of another shape.
    """
    contents = read_contents(path)
    overrides = overrides or InputOverrides()
    if is_own(contents):
        if publisher is not None or head_files or names_file is not None:
            raise BadCheckpoint(f"{path}: {SOURCE} and has no head · leave out --publisher, --head and --names")
        return _own(contents, path, overrides)
    try:
        adapter, prefix = recognise(contents, publisher)
        options, notes = _options(contents, adapter, prefix, overrides)
        weights = _weights(contents, adapter, prefix, options)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    if publisher is None and (others := publishers_with_same_keys(adapter, prefix, contents)):
        whose = f"{', '.join(others)}, whose networks read another input"
        notes = (*notes, f"its key names are also those of {whose} · if it is of such a publisher, give --publisher")
    sources = [contents, *(read_contents(file) for file in head_files)]
    head, about_head = find_head(sources, adapter.heads, options.embedding_dim, path, head_files)
    if names_file and not head:
        raise BadCheckpoint(f"{path}: --names: there is no head to name ({about_head}) · leave --names out")
    class_names = read_names(names_file, len(head["weight"])) if names_file else None
    if head and class_names is None:
        about_head += ", without their names"
    return Published(adapter.source, options, weights, head, class_names, (*notes, about_head))


def save_published(published: Published, path: Path, *, origin: str) -> None:
    """Write a checkpoint that ``sphereface eval --ckpt`` and ``train.init_from`` read.

    It holds no optimiser and no step, so no run can resume from it.

    Args:
        published: the network.
        path: ``….pt``; its ``.json`` is written beside it.
        origin: describes the source; kept as the name of the run.
    """
    model = published.options.to_dict()
    meta: dict[str, Any] = {"config": {"model": model}, "run": origin, "source": published.source}
    meta = {**published.stated.get("meta", {}), **meta}
    if published.class_names is not None:
        meta["class_names"] = list(published.class_names)
    head = {"head": published.head} if published.head else {}
    summary = {"run": origin, "source": published.source, "model": model, "notes": list(published.notes)}
    save_checkpoint(path, {**published.stated, "meta": meta, "model": published.weights, **head}, summary)


def _own(contents: Contents, path: Path, overrides: InputOverrides) -> Published:
    size = {} if overrides.size is None else {"input_size": list(overrides.size)}
    state = own_state(contents, path, {**overrides.options(), **size})
    options, weights = model_options(state, path)
    return Published(SOURCE, options, dict(weights), {}, None, ("no head in the file",), state)


# ---------------------------------------------------------------- the network


def _options(
    contents: Contents, adapter: Adapter, prefix: str, overrides: InputOverrides
) -> tuple[BackboneOptions, tuple[str, ...]]:
    """Return the network that names and shapes describe, and notes on the source of its input."""
    own = {key: tensor for key, tensor in contents.tensors.items() if key.startswith(prefix)}
    shapes = {key.removeprefix(prefix): tuple(tensor.shape) for key, tensor in own.items()}
    found = adapter.options_of(shapes)
    stated = overrides.size or contents.input_size
    size = input_size(found.pop("columns"), found.pop("channels"), stated)
    beside = {"input_order": contents.order} if adapter.order_beside and contents.order else {}
    if adapter.order_beside and contents.unknown_order and overrides.order is None:
        raise BadCheckpoint(
            f"the channel order is not known: {contents.unknown_order} · download that file again, or give --order rgb "
            "or --order bgr"
        )
    values = {**adapter.given, **beside, **overrides.options(), **found, "input_size": list(size)}
    problems: list[str] = []
    options = parse_model(values, BACKBONES, problems)
    if options is None or problems:
        raise BadCheckpoint(problems[0])
    notes = [contents.about_order] if beside and overrides.order is None else []
    if adapter.order_beside and not beside and overrides.order is None:
        notes.append(
            f"channel order: {options.input_spec.order.upper()}, because no config.json or model.yaml beside the file "
            "states one · compare --order rgb with --order bgr on your own pairs"
        )
    if not stated and size != adapter.size:
        notes.append(f"the file does not state the size of its images: taken as {size[0]}x{size[1]}")
    return options, tuple(notes)


def _weights(contents: Contents, adapter: Adapter, prefix: str, options: BackboneOptions) -> dict[str, Tensor]:
    """Return the state dict of the network after comparing all names and shapes."""
    with torch.device("meta"):  # shapes only, so no file makes this allocate
        wanted = build_model(options).state_dict()
    theirs = {key: f"{prefix}{name}" for key in wanted if (name := adapter.names(key)) is not None}
    problems = _differences(contents.tensors, {theirs[key]: wanted[key] for key in theirs}, adapter, prefix)
    if problems:
        more = f"; and {len(problems) - _MOST_LISTED} more" if len(problems) > _MOST_LISTED else ""
        raise BadCheckpoint(f"not the network of {adapter.source}: {'; '.join(problems[:_MOST_LISTED])}{more}")
    weights = {}
    for key, like in wanted.items():
        value = contents.tensors.get(theirs.get(key, ""))
        if value is None:
            weights[key] = torch.zeros(like.shape, dtype=like.dtype)
            continue
        weights[key] = value.detach().to(like.dtype).contiguous()
        if like.is_floating_point() and not (value.is_floating_point() and is_finite(weights[key])):
            raise BadCheckpoint(f"{theirs[key]}: has values that are not finite real numbers · download the file again")
        if key.endswith("running_var") and bool((weights[key] < 0).any()):
            raise BadCheckpoint(f"{theirs[key]}: holds a negative variance · download the file again")
    return weights


def _differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], adapter: Adapter, prefix: str) -> list[str]:
    """Return one text for each key that is missing, unknown or of another shape."""
    problems = []
    for key, like in wanted.items():
        if key not in found:
            if not key.endswith("num_batches_tracked"):  # PyTorch before 0.4.1 kept no such counters
                problems.append(f"{key} is missing")
        elif found[key].shape != like.shape:
            problems.append(f"{key} is {tuple(found[key].shape)}, not {tuple(like.shape)}")
    dictionary = prefix[: prefix.rfind("/") + 1]  # the dictionary of the file that holds the network
    beside = {*adapter.heads, *adapter.ignored}
    for key in found:
        inside = key.startswith(dictionary) and "/" not in key[len(dictionary) :]
        if inside and key not in wanted and key not in beside:
            problems.append(f"{key} is unknown")
    return problems


def _plain(numbers: tuple[float, ...] | None) -> float | list[float] | None:
    if numbers is None:
        return None
    return numbers[0] if len(numbers) == 1 else list(numbers)
