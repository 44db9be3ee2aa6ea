"""Open the network or table that ``sphereface eval`` evaluates; see :mod:`.parsers.eval`."""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path

from ..archives import DAMAGED
from ..errors import UserError
from ..evaluation.embedding_table import EmbeddingTable
from ..evaluation.source import Source
from ..onnx_input import OnnxOptions
from ..weights import output_place
from .input_options import parse_numbers, parse_size

_LARGEST = 1e6  # mean or standard deviation of pixels
_ALL = {"--ckpt", "--onnx", "--embeddings"}
_OF_ONNX = ("spec", "size", "layout", "order", "pixel_mean", "pixel_std", "input", "output_name")
_FITS = {key: {"--onnx"} for key in _OF_ONNX} | {"precision": {"--ckpt"}}
_FITS |= {key: {"--ckpt", "--onnx"} for key in ("device", "batch_size", "no_cache")}
"""The kinds of file that each option applies to. ``--mirror`` applies to all."""


def source_path(args: argparse.Namespace) -> Path:
    """Return the file to evaluate (not to compare); results go to a folder beside it."""
    path: Path = args.ckpt or args.onnx or args.embeddings
    return path


def open_source(path: Path, args: argparse.Namespace) -> Source:
    """Open a checkpoint, an ONNX file or a table of embeddings.

    Raises:
        UserError: the file cannot be used, or an option does not apply to it.
    """
    _check_options(args)
    if args.embeddings or (args.compare and kind_of(path) == "--embeddings"):
        return EmbeddingTable(path, mirror=args.mirror)
    # import PyTorch here: a table does not need it
    import torch

    from ..device import choose_device
    from ..evaluation.embedder import Embedder

    device = choose_device(args.device or "auto")
    cache = None if args.no_cache else output_place(path).parent / "embeddings"
    batch_size = 64 if args.batch_size is None else args.batch_size
    if args.onnx or (args.compare and kind_of(path) == "--onnx"):
        from ..evaluation.onnx_embedder import OnnxEmbedder
        from ..models.onnx_backbone import runs_on

        if args.device in (None, "auto") and not runs_on(device):
            device = torch.device("cpu")
        source = OnnxEmbedder(
            path, _onnx_options(args), mirror=args.mirror, device=device, batch_size=batch_size, cache=cache,
            progress="embedding",
        )  # fmt: skip
        sys.stderr.writelines(f"note: {path}: {note}\n" for note in source.model.notes)
        return source
    return Embedder.of_checkpoint(
        path, device=device, mirror=args.mirror or "join", precision=args.precision or "fp32", batch_size=batch_size,
        cache=cache, progress="embedding",
    )  # fmt: skip


def kind_of(path: Path) -> str:
    """Return the option for a file: by the content of a zip archive, otherwise by the suffix."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = all(name.endswith(".npy") for name in archive.namelist())
        return "--embeddings" if arrays else "--ckpt"
    except (OSError, *DAMAGED):  # missing, damaged or no archive: the code that opens it reports this
        pass
    return {".onnx": "--onnx", ".npz": "--embeddings"}.get(path.suffix.lower(), "--ckpt")


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that apply to none of the files."""
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size: got {args.batch_size} · allowed: 1 or more")
    kinds = {kind_of(path) for path in args.compare or ()} or {
        kind for kind in _ALL if getattr(args, kind.removeprefix("--")) is not None
    }
    for name, fits in _FITS.items():
        if getattr(args, name) not in (None, False) and not kinds & fits:
            option = "--" + name.removeprefix("pixel_").replace("_", "-")
            got = " and ".join(sorted(kinds)) if args.compare is None else "these two files"
            raise UserError(f"{option}: got {got} · allowed: with {' or '.join(sorted(fits))} · omit {option}")


def _onnx_options(args: argparse.Namespace) -> OnnxOptions:
    size = parse_size("--size", args.size)
    mean = parse_numbers("--mean", args.pixel_mean, fits=lambda mean: abs(mean) < _LARGEST)
    std = parse_numbers("--std", args.pixel_std, fits=lambda std: 0 < std < _LARGEST, which=" above 0")
    return OnnxOptions(args.spec, size, args.layout, args.order, mean, std, args.input, args.output_name)
