"""Checkpoint files: complete or absent, checked when read, and unable to run code.

A checkpoint is ``NAME.pt`` (tensors and plain values, loaded with ``weights_only=True``) with
``NAME.json`` beside it: the human-readable part and the SHA-256 of the ``.pt``.

This module checks the form of a checkpoint: types and ranges of ``meta``, and plain tensors by name
in ``model``, ``average`` and ``head``. It does not depend on training.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import stat
import uuid
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .archives import DAMAGED, costly_pickle, damaged_entry
from .checkpoint_meta import checked_meta
from .checkpoint_meta import origin_of as origin_of
from .checkpoint_meta import teacher_of as teacher_of
from .checkpoint_meta import trained_people as trained_people
from .checkpoint_meta import training_data as training_data
from .errors import UserError, first_line, shown, shown_key
from .file_kinds import TORCHSCRIPT, kind_of
from .files import flush_folder, regular_file, sha256_of, sha256_of_open, write_whole
from .small_files import mode_of, read_json

FORMAT = 1
NUMBERS = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8}
    | {torch.uint8, torch.bool}
)
"""The types of plain numbers in a file of weights."""
_MOST_SHARED = 64  # bytes of all weights for each byte of the file
_SAVABLE = frozenset({torch.Tensor, torch.nn.Parameter, int, float, bool, str, bytes, type(None)})
_MAPPINGS, _LISTS = frozenset({dict, OrderedDict}), frozenset({list, tuple})


class BadCheckpoint(UserError):
    """A checkpoint file that is missing, damaged, altered, or not one of this project's."""


def check_savable(state: Mapping[str, Any], what: str) -> None:
    """Refuse a state that :func:`load_checkpoint` would refuse once it is saved.

    Args:
        state: as of :func:`save_checkpoint`.
        what: the state, for messages.

    Raises:
        BadCheckpoint: one line with the first entry that cannot be saved.
    """
    check_types(state, what)
    try:
        weights = [value for _, value in _weights_of(what, state) if isinstance(value, torch.Tensor)]
        held = [each.untyped_storage() for each in weights if each.layout is torch.strided]
        stored = {storage.data_ptr(): storage.nbytes() for storage in held}
        advice = " · write expanded tensors with .clone()"
        _check_tensors(f"{what} cannot be saved", state, sum(stored.values()), advice)
        checked_meta(state.get("meta", {}))
    except ValueError as error:
        raise BadCheckpoint(f"{what} cannot be saved: {error}") from error


def check_types(state: Mapping[str, Any], what: str) -> None:
    """Do the quick part of :func:`check_savable`: the types of all entries."""
    for name, leaf in _leaves(state, ""):
        if type(leaf) not in _SAVABLE:
            kind = f"{type(leaf).__module__}.{type(leaf).__qualname__}"
            raise BadCheckpoint(
                f"{what} cannot be saved: {shown_key(name)}: got a {kind} · allowed: tensors, numbers, texts, lists "
                "and mappings · convert it, such as by float(), or keep it out of the state of your plugin"
            )


def _leaves(value: Any, name: str) -> Iterator[tuple[str, object]]:
    """Yield what mappings and lists contain at any depth, with names such as ``model.weight``."""
    if type(value) in _MAPPINGS or (isinstance(value, Mapping) and not name):
        for key, each in value.items():
            inside = f"{name}.{key}" if name else str(key)
            yield from _leaves(key, f"{inside}, its key")
            yield from _leaves(each, inside)
    elif type(value) in _LISTS:
        if not _SAVABLE.issuperset(map(type, value)):  # a list of names may have two million
            for number, each in enumerate(value):
                yield from _leaves(each, f"{name}[{number}]")
    else:
        yield name, value


def save_checkpoint(path: Path, state: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves either the old file or the new one.

    Args:
        path: ``….pt``. The file is written under another name in the same folder, flushed to disk,
            then renamed.
        state: nested dicts and lists of tensors, numbers, texts and None.
        summary: a few plain values for people, written to the ``.json`` (step, run, accuracy, …).

    Raises:
        OSError: the disk is full or not writable; an earlier file at ``path`` is unchanged.
    """
    save_id, beside = uuid.uuid4().hex, path.with_suffix(".json")

    def write(file: BinaryIO) -> None:
        try:
            torch.save({"format": FORMAT, "id": save_id, **state}, file)
        except RuntimeError as error:  # torch tries to finish the archive on the full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        written = Path(file.name)
        sidecar = {"id": save_id, "sha256": sha256_of(written), "bytes": written.stat().st_size, **summary}
        write_whole(beside, json.dumps(sidecar, indent=2) + "\n")  # first, so that a complete checkpoint has its .json

    try:
        write_whole(path, write)
    except BaseException:
        if not path.exists():
            beside.unlink(missing_ok=True)
        raise


class _Counted(io.BytesIO):
    """A file that keeps only its length."""

    length = 0

    def write(self, data: Any) -> int:
        """Count the bytes."""
        self.length += len(data)
        return len(data)


def saved_bytes(state: Mapping[str, Any]) -> int:
    """Return the length of the ``.pt`` that :func:`save_checkpoint` would write."""
    file = _Counted()
    torch.save({"format": FORMAT, "id": uuid.uuid4().hex, **state}, file)
    return file.length


def link_checkpoint(path: Path, name: str) -> Path:
    """Give a saved checkpoint a second name in its folder (``last``, ``best``), atomically.

    The second name is a hard link, or a copy where the file system has no hard links.
    """
    target = path.with_name(f"{name}.pt")
    for source, other in ((path, target), (path.with_suffix(".json"), target.with_suffix(".json"))):
        unfinished = other.with_name(f".{other.name}.part")
        unfinished.unlink(missing_ok=True)
        if not source.exists():  # a checkpoint that was copied without its .json
            other.unlink(missing_ok=True)
            continue
        try:
            os.link(source, unfinished)
        except OSError:
            shutil.copyfile(source, unfinished)
        unfinished.replace(other)
    flush_folder(path.parent)
    return target


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu", mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint, and refuse a file that is not complete.

    Args:
        path: ``….pt``, with or without its ``.json``.
        device: of its tensors.
        mapped: leave tensors in the file until they are used, for one of many processes that uses
            a part of them.

    Raises:
        BadCheckpoint: one line with the file and the reason.
    """
    return load_with_sha256(path, device=device, mapped=mapped)[0]


def load_with_sha256(
    path: Path, *, device: torch.device | str = "cpu", mapped: bool = False
) -> tuple[dict[str, Any], str]:
    """Read a checkpoint like :func:`load_checkpoint`, and the SHA-256 of the same bytes.

    The file is opened once, so a training run may replace ``last.pt`` at the same time.

    Returns:
        The checkpoint, and 64 hexadecimal digits.

    Raises:
        BadCheckpoint: see :func:`load_checkpoint`; or the file changed while it was read.
    """
    _check_kind(path)
    try:
        with open(path, "rb", opener=regular_file) as file:
            before = os.fstat(file.fileno())
            state = _read(path, file, before.st_size, device=device, mapped=mapped)
            sha256 = sha256_of_open(file)
            after = os.fstat(file.fileno())
            replaced = mapped and not os.path.samestat(after, path.stat())  # torch opened the file again by name
            if replaced or (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
                raise BadCheckpoint(f"{path}: changed while it was read · run the command again")
            if not _is_confirmed(path, state["id"], sha256):
                _check_entries(path, file)
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error
    return state, sha256


def _read(path: Path, file: BinaryIO, size: int, *, device: torch.device | str, mapped: bool) -> dict[str, Any]:
    """Read an open checkpoint of ``size`` bytes and check its form."""
    _check_archive(path, file, size)
    file.seek(0)
    try:
        state = torch.load(path if mapped else file, map_location=device, weights_only=True, mmap=mapped)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a damaged file can make the unpickler raise any exception
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):  # names a class or function
            raise BadCheckpoint(
                f"{path}: refused: it holds objects other than tensors and plain values, which could run code"
            ) from error
        # torch's own message is half a page on how to switch the unpickler's safety off
        reason = "" if "Weights only load failed" in str(error) else f" ({first_line(error)})"
        raise BadCheckpoint(f"{path}: truncated, damaged or not a checkpoint{reason}") from error
    mark = state.get("format") if isinstance(state, dict) else None  # in another program's file it may be a tensor
    known = type(mark) is int and mark == FORMAT
    if not isinstance(state, dict) or not known or not isinstance(state.get("id"), str):
        raise BadCheckpoint(
            f"{path}: not a checkpoint of this program (no format {FORMAT} mark) · for published weights "
            "use sphereface import, which converts them"
        )
    _check_tensors(path, state, size)
    if "meta" in state:
        try:
            state["meta"] = checked_meta(state["meta"])
        except ValueError as error:
            raise BadCheckpoint(f"{path}: {error}") from error
    return state


def _check_kind(path: Path) -> None:
    """Refuse a path that is not a regular file."""
    mode = mode_of(path, BadCheckpoint)
    if mode == 0:
        raise BadCheckpoint(f"{path}: no such checkpoint file")
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise BadCheckpoint(f"{path}: got {what} · allowed: a checkpoint file")


def _check_archive(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse an archive that unpacks to more than its size: torch does not compress."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries, costly = archive.infolist(), costly_pickle(archive)
    except (*DAMAGED, OSError) as error:
        raise BadCheckpoint(f"{path}: {kind_of(path) or 'truncated, damaged or not a checkpoint'}") from error
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise BadCheckpoint(f"{path}: {TORCHSCRIPT}")
    if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > size:
        raise BadCheckpoint(
            f"{path}: refused: its entries unpack to more than the file · allowed: as torch.save writes"
        )
    if costly:
        raise BadCheckpoint(f"{path}: refused: {costly}")


def _check_tensors(path: Path | str, state: Mapping[str, Any], size: int, advice: str = "") -> None:
    """Refuse weights that are not plain tensors by name, or that claim more than is stored."""
    room = min(_MOST_SHARED * size, 2 * size + 2**29)  # a network may use one layer several times
    for name, value in _weights_of(path, state):
        if not isinstance(value, torch.Tensor) or not isinstance(name, str):
            raise BadCheckpoint(f"{path}: its weights are not tensors with names")
        if value.layout is not torch.strided or value.dtype not in NUMBERS or value.is_meta:
            raise BadCheckpoint(f"{path}: {shown_key(name)}: got a tensor of {value.dtype} · allowed: plain numbers")
        room -= value.nbytes
        if value.nbytes > value.untyped_storage().nbytes() or room < 0:
            raise BadCheckpoint(f"{path}: {shown_key(name)}: claims more numbers than the file holds{advice}")


def _weights_of(path: Path | str, state: Mapping[str, Any]) -> Iterator[tuple[object, object]]:
    for part in ("model", "average", "head"):
        if not isinstance(weights := state.get(part, {}), Mapping):
            raise BadCheckpoint(f"{path}: its weights are not tensors with names")
        yield from weights.items()


def _is_confirmed(path: Path, save_id: str, sha256: str) -> bool:
    """Return whether the ``.json`` beside the checkpoint is of these bytes; refuse other bytes."""
    try:
        sidecar = read_json(path.with_suffix(".json"))
    except (OSError, ValueError):
        return False  # a checkpoint that was copied without it
    if sidecar.get("id") != save_id:
        return False  # a kill between the two files: this one describes the earlier checkpoint
    if sidecar.get("sha256") != sha256:
        raise BadCheckpoint(f"{path}: altered since it was saved (its SHA-256 is not the one in {path.stem}.json)")
    return True


def _check_entries(path: Path, file: BinaryIO) -> None:
    """Refuse an archive with a part that its checksum contradicts; torch compares none."""
    with zipfile.ZipFile(file) as archive:
        if damaged := damaged_entry(archive):
            raise BadCheckpoint(f"{path}: its part {shown(damaged)} is not as it was saved · copy the file again")
