"""Read the head of published weights: its rows, and the names of its identities."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ...checkpoint import BadCheckpoint
from ...errors import UserError, count_of
from ...files import regular_file
from .files import Contents

_NUMBER = re.compile(r"[0-9]+")
_MOST_NAMED = 5
_PARTS = ("state_dict_softmax_fc/weight", "partial_fc.weight")  # each process saves its own share of these


def find_head(
    sources: Sequence[Contents], layouts: Mapping[str, str], dim: int, path: Path, head_files: Sequence[Path] = ()
) -> tuple[dict[str, Tensor], str]:
    """Find the head, or the parts of it in several files.

    Args:
        sources: the files, in the order of the parts. Parts whose file names differ only in one
            number are put in the order of that number.
        layouts: where a weight may be, and its layout: ``"CD"``, ``"DC"``, or ``"either"`` to
            decide by ``dim``.
        dim: D, the length of an embedding.
        path: the file of the network.
        head_files: the other files.

    Returns:
        ``weight`` (C, D) float32 and, where it exists, ``bias`` (C,), or nothing; and a line that
        names the head.

    Raises:
        BadCheckpoint: the user gave parts, and one does not fit or occurs twice.
    """
    found = [(key, contents) for contents in sources for key in layouts if key in contents.tensors]
    if any(all(contents is not source for _, contents in found) for source in sources[1:]):
        raise BadCheckpoint(f"{path}: --head: a file without a head · allowed keys: {', '.join(layouts) or 'none'}")
    if not found:
        return {}, "no head in the file"
    ranks = _ranks(found, sources, [path, *head_files])
    if ranks:  # a shell's * gives 10 before 2
        found = [found[row] for row in sorted(range(len(found)), key=ranks.__getitem__)]
    parts: list[Tensor] = []
    first: dict[bytes, int] = {}  # which source each part was found in
    for key, contents in found:
        number = next(row for row, source in enumerate(sources) if source is contents)
        part = _rows(contents.tensors[key], layouts[key], dim)
        if isinstance(part, str):
            if len(sources) > 1:
                raise BadCheckpoint(f"{path}: --head: {key} {part} · allowed: finite rows of {dim} numbers")
            return {}, f"head left out: {key} {part}"
        before = first.setdefault(hashlib.sha256(part.numpy().data).digest(), number)
        if before != number:
            names = ["FILE" if row == 0 else f"file {row} of --head" for row in (before, number)]
            raise BadCheckpoint(
                f"{path}: --head: {names[1]} holds the same {len(part):,} identities as {names[0]} · allowed: the part "
                "of each process once"
            )
        if not parts or len(first) > len(parts):  # otherwise one file holds it under two names
            parts.append(part)
    head = {"weight": torch.cat(parts) if len(parts) > 1 else parts[0]}
    key, contents = found[0]
    bias = contents.tensors.get(f"{key.removesuffix('weight')}bias") if key.endswith("weight") else None
    if bias is not None:
        if tuple(bias.shape) != (len(head["weight"]),):
            return {}, f"head left out: its bias is {tuple(bias.shape)}, for {len(head['weight']):,} identities"
        if not is_finite(bias):
            return {}, "head left out: its bias has values that are not finite real numbers"
        head["bias"] = bias.detach().to(torch.float32).contiguous()
    about = f"head: {count_of(len(head['weight']), 'identity', 'identities')}"
    if len(parts) > 1:
        about += f" from {len(parts)} files{_about_order(ranks, first=0 if key in _PARTS else min(ranks, default=0))}"
    elif key in _PARTS:
        about += " of one process (--head takes the files of the others)"
    return head, about


def _ranks(found: Sequence[tuple[str, Contents]], sources: Sequence[Contents], files: Sequence[Path]) -> list[int]:
    """Return the number in each part's file name; [] if they do not differ in one number alone."""
    name_of = {id(source): file.name for source, file in zip(sources, files, strict=False)}
    names = [name_of.get(id(contents), "") for _, contents in found]
    numbers = [list(map(int, _NUMBER.findall(name))) for name in names]
    columns = [column for column in zip(*numbers, strict=False) if len(set(column)) > 1]
    alike = len({_NUMBER.sub("#", name) for name in names}) == 1
    return list(columns[0]) if alike and len(columns) == 1 else []


def _about_order(ranks: Sequence[int], *, first: int) -> str:
    """Return whether parts were sorted by number, and which numbers since ``first`` are missing."""
    text = "" if list(ranks) == sorted(ranks) else ", sorted by the number in their names"
    absent = (rank for rank in range(first, max(ranks, default=0)) if rank not in ranks)
    if missing := [str(rank) for rank in islice(absent, _MOST_NAMED + 1)]:
        more = ", …" if len(missing) > _MOST_NAMED else ""
        text += f"; none has the number {', '.join(missing[:_MOST_NAMED])}{more}, so check that no part is missing"
    return text


def read_names(path: Path, num_classes: int) -> tuple[str, ...]:
    """Read the names of identities, one on each line.

    Raises:
        UserError: the file cannot be read, or does not have a name for each row of the head.
    """
    try:
        with open(path, "rb", opener=regular_file) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"--names {path}: cannot be read as UTF-8 text ({error})") from error
    names = tuple(line.strip() for line in text.splitlines())
    if all(len(name) > 1 and name[0] == name[-1] == '"' for name in names):  # as R writes them
        names = tuple(name[1:-1].replace('""', '"') for name in names)
    if len(names) != num_classes:
        raise UserError(f"--names {path}: got {len(names):,} lines · allowed: {num_classes:,}, one for each identity")
    if "" in names or len(set(names)) != len(names):
        raise UserError(f"--names {path}: got an empty or repeated name · allowed: a name of its own on each line")
    return names


def _rows(weight: Tensor, layout: str, dim: int) -> Tensor | str:
    """Return the weight as (C, D) float32; a text that says why where it is not a clear head."""
    shape = tuple(weight.shape)
    if weight.ndim != 2 or dim not in shape or not weight.numel():
        return f"{shape} is no head for embeddings of {dim} numbers"
    if not is_finite(weight):
        return "has values that are not finite real numbers"
    rows, columns = shape
    if layout == "either":
        if rows == columns:
            return f"is {shape}, and either axis could be the identities"
        layout = "CD" if columns == dim else "DC"
    turned = weight.T if layout == "DC" else weight
    if turned.shape[1] != dim:
        return f"{shape} is no head for embeddings of {dim} numbers"
    return turned.detach().to(torch.float32).contiguous()


def is_finite(value: Tensor) -> bool:
    """Return whether a tensor holds floating-point numbers, at least one, all finite in float32."""
    return value.is_floating_point() and all(bool(torch.isfinite(end)) for end in torch.aminmax(value.float()))
