"""Checkpoint files: whole or not there, checked when read, and never able to run code.

A checkpoint is ``NAME.pt`` (tensors and plain values, loaded with ``weights_only=True``) with ``NAME.json`` beside it:
the human-readable part and the SHA-256 of the ``.pt``. This module knows nothing of training; what the entries
mean is the business of whoever saves them.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import UserError, first_line
from .files import flush_folder, sha256_of, write_whole

FORMAT = 1


class BadCheckpoint(UserError):
    """A checkpoint file that is missing, damaged, altered, or not one of this project's."""


def save_checkpoint(path: Path, state: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves either the old file or the new one.

    Args:
        path: ``….pt``. It is written under another name in the same folder, flushed to disk, then renamed.
        state: nested dicts and lists of tensors, numbers, texts and None.
        summary: a few plain values for people, written to the ``.json`` (step, run, accuracy, …).

    Raises:
        OSError: the disk is full or not writable; an earlier file under ``path`` is untouched.
    """
    save_id = uuid.uuid4().hex
    write_whole(path, lambda file: torch.save({"format": FORMAT, "id": save_id, **state}, file))
    sidecar = {"id": save_id, "sha256": sha256_of(path), "bytes": path.stat().st_size, **summary}
    write_whole(path.with_suffix(".json"), json.dumps(sidecar, indent=2) + "\n")


def link_checkpoint(path: Path, name: str) -> Path:
    """Give a saved checkpoint a second name in its folder (``last``, ``best``), atomically, without a second copy.

    Where the file system has no hard links, it is copied.
    """
    target = path.with_name(f"{name}.pt")
    for source, other in ((path, target), (path.with_suffix(".json"), target.with_suffix(".json"))):
        unfinished = other.with_name(f".{other.name}.part")
        unfinished.unlink(missing_ok=True)
        try:
            os.link(source, unfinished)
        except OSError:
            shutil.copyfile(source, unfinished)
        unfinished.replace(other)
    flush_folder(path.parent)
    return target


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu", mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint, refusing whatever is not whole.

    Args:
        path: ``….pt``, with or without its ``.json``.
        device: where its tensors go.
        mapped: leave them in the file until they are used, which one of many processes does with a part of them only.

    Raises:
        BadCheckpoint: one line that says which file and what is wrong with it.
    """
    if not path.is_file():
        raise BadCheckpoint(f"{path}: no such checkpoint file")
    try:
        state = torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except Exception as error:  # damage anywhere in the file can surface as any exception of the unpickler
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):  # names a class or function
            raise BadCheckpoint(
                f"{path}: refused: holds objects other than tensors and plain values, which could run code"
            ) from error
        # torch's own words on its unpickler, half a page on how to switch its safety off, tell a user nothing
        reason = "" if "Weights only load failed" in str(error) else f" ({first_line(error)})"
        raise BadCheckpoint(f"{path}: truncated, damaged or not a checkpoint{reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("id"), str):
        raise BadCheckpoint(
            f"{path}: not a checkpoint of this program (no format {FORMAT} mark) · published weights? "
            "sphereface import makes a checkpoint of them"
        )
    _check_sidecar(path, state["id"])
    return state


def _check_sidecar(path: Path, save_id: str) -> None:
    try:
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # a checkpoint that was copied without it
    if not isinstance(sidecar, dict) or sidecar.get("id") != save_id:
        return  # the kill came between the two files: this one describes the checkpoint before
    if sidecar.get("sha256") != sha256_of(path):
        raise BadCheckpoint(f"{path}: altered since it was saved (its SHA-256 is not the one in {path.stem}.json)")
