"""Run ``sphereface export``; its options are in :mod:`.parsers.export`."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..alignment.crop import Finder
from ..alignment.crop_template import CropTemplate
from ..alignment.like import measure_template
from ..alignment.mtcnn import Mtcnn
from ..checkpoint_place import check_new, new_checkpoint
from ..choices import DEFAULT_OPSET, IR_VERSIONS
from ..errors import UserError
from ..export.card import CARD_MARK, Exported, Quantised, card
from ..export.checkpoint_file import CHECKPOINT_DTYPES, write_small_checkpoint
from ..export.formats import Export, check_embeddings, write_onnx, write_safetensors, write_torchscript
from ..export.graph import InputFormat, example_crops, expected
from ..export.quantise import LEAST_MEDIAN, calibration_crops, quantise
from ..export.staging import staged
from ..files import write_whole
from ..models import LoadedModel, load_model
from ..models.loading import sizes_seen
from ..small_files import check_replaceable
from ..weights import output_place
from .parsers.export import SUFFIXES

log = logging.getLogger(__name__)

_SHA256 = "checkpoint_sha256"
_MARK = _SHA256.encode()  # every exported file contains it, as the name of an entry


def run(args: argparse.Namespace) -> int:
    """Export the network, compare the file with PyTorch, write the model card."""
    args.dtype = args.dtype or ("float32" if args.format == "checkpoint" else "uint8")
    output = _checked(args)
    loaded = load_model(args.checkpoint)
    opset = DEFAULT_OPSET if args.opset is None else args.opset
    form = InputFormat(args.order, args.layout, args.dtype)
    export = Export(loaded.model, form, args.mirror, batch=args.batch, opset=opset)
    check_embeddings(expected(loaded.model, example_crops(export.size)), args.checkpoint)
    crops = calibration_crops(args.int8, loaded.input_size) if args.int8 else None
    about = Exported(output, args.format, export, args.checkpoint, loaded.sha256, loaded.meta, licence=args.licence)
    as_checkpoint = args.format == "checkpoint"
    lines = _export_checkpoint(args, loaded, about) if as_checkpoint else _export(loaded, about, crops)
    print("\n".join([*lines, f"model card: {_card_path(output)}"]))
    return 0


def _export_checkpoint(args: argparse.Namespace, loaded: LoadedModel, about: Exported) -> list[str]:
    """Write a checkpoint and its card; return the lines to print."""
    output = about.path
    with new_checkpoint(output, "--output"), staged(_card_path(output)) as (card_part,):
        template = None if args.like is None else _template_like(args.like, loaded.input_size)
        sha256 = {_SHA256: loaded.sha256}
        difference = write_small_checkpoint(loaded, output, dtype=args.dtype, about=sha256, template=template)
        write_whole(card_part, card(replace(about, difference=difference)))
    return [
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, weights in {args.dtype}",
        f"largest difference from {args.checkpoint}: {difference:.1e} of the largest number",
    ]


def _export(loaded: LoadedModel, about: Exported, crops: npt.NDArray[np.uint8] | None) -> list[str]:
    """Write a file, its 8-bit copy and the card; return the lines to print.

    Earlier files are replaced only after all new ones pass their checks.
    """
    output, export, eight_bits = about.path, about.export, _int8_path(about.path)
    more = [] if crops is None else [eight_bits]
    with staged(output, _card_path(output), *more) as (part, card_part, *int8_part):
        difference = _write(export, loaded, part, about.file_format)
        quantised = None
        if crops is not None:
            quantised = Quantised(eight_bits, quantise(export, part, int8_part[0], crops))
        write_whole(card_part, card(replace(about, difference=difference, quantised=quantised)))
    if difference is None:
        return [f"{output}: weights"]
    lines = [
        f"{output}: {export.form.describe(export.size, export.batch)}",
        f"largest difference from PyTorch: {difference:.1e} of the largest number",
    ]
    if crops is None and about.file_format == "onnx" and eight_bits.is_file():
        lines.append(
            f"{eight_bits}: there already, and not of this export · delete it, or give --int8 DIR to make it again"
        )
    return lines + ([] if quantised is None else [_about_copy(quantised)])


def _about_copy(quantised: Quantised) -> str:
    """Return the line about an 8-bit copy, after a warning if the copy is damaged."""
    if not quantised.median >= LEAST_MEDIAN:
        log.warning(
            "%s: the 8-bit copy is damaged: its median cosine with PyTorch is %.3f, usual is %g or more · use the "
            "network without --int8, or compare both with sphereface eval --compare",
            *(quantised.path, quantised.median, LEAST_MEDIAN),
        )
    return (
        f"{quantised.path}: 8-bit integers, ranges from {len(quantised.cosines)} crops · cosine with PyTorch on these: "
        f"smallest {quantised.smallest:.3f}, median {quantised.median:.3f} · evaluate it before you use it"
    )


def _checked(args: argparse.Namespace) -> Path:
    """Refuse options that exclude each other; return the file to write."""
    if args.int8 and args.format != "onnx":
        raise UserError(f"--int8: got --format {args.format} · allowed: onnx")
    if args.int8 and args.dtype == "float16":
        raise UserError("--int8: got --dtype float16 · allowed: uint8, float32 · export the two files one by one")
    if args.opset is not None and args.format != "onnx":
        raise UserError(f"--opset: got --format {args.format} · allowed: onnx · omit --opset")
    if args.opset is not None and args.opset not in IR_VERSIONS:
        allowed = f"{min(IR_VERSIONS)} to {max(IR_VERSIONS)}"
        raise UserError(f"--opset: got {args.opset} · allowed: {allowed} · omit it for {DEFAULT_OPSET}")
    if args.batch is not None and args.batch < 1:
        raise UserError(f"--batch: got {args.batch} · allowed: 1 or more · omit it for any batch size")
    plain = InputFormat(args.order, args.layout) == InputFormat() and args.mirror == "none" and args.batch is None
    if args.format == "safetensors" and not (plain and args.dtype == "uint8"):
        raise UserError(
            "--order, --layout, --dtype, --mirror, --batch: safetensors hold only the weights, without a graph · "
            "omit these options"
        )
    if args.format == "checkpoint":
        _check_for_checkpoint(args, plain)
    elif args.like is not None:
        raise UserError(f"--like: got --format {args.format} · allowed: checkpoint · omit --like")
    output: Path = args.output or output_place(args.checkpoint).with_suffix(f".{args.format}")
    if output.is_dir():
        raise UserError(f"--output: got the folder {output} · allowed: the name of a file")
    if output.suffix.lower() not in (allowed_suffixes := SUFFIXES[args.format]):
        raise UserError(f"--output: got {output} · allowed: a name that ends in {' or '.join(allowed_suffixes)}")
    if args.format == "checkpoint":
        check_new(output, "--output")
    for path in (output, *([_int8_path(output)] if args.int8 else [])):
        check_replaceable(path, _MARK, "--output")
    check_replaceable(_card_path(output), CARD_MARK.encode(), "--output")
    return output


def _check_for_checkpoint(args: argparse.Namespace, plain: bool) -> None:
    """Refuse options that a checkpoint cannot store."""
    if not plain:
        raise UserError("--order, --layout, --mirror, --batch: a checkpoint has no graph · omit these options")
    if args.dtype not in CHECKPOINT_DTYPES:
        raise UserError(f"--dtype: got {args.dtype} with --format checkpoint · allowed: {', '.join(CHECKPOINT_DTYPES)}")
    if args.output is None:
        raise UserError("--output: got none with --format checkpoint · allowed: a new name that ends in .pt")


def _int8_path(output: Path) -> Path:
    return output.with_name(f"{output.stem}-int8{output.suffix}")


def _card_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.md")


def _template_like(crops: Path, size: tuple[int, int]) -> CropTemplate:
    """Measure and print where faces lie in training crops, cut to ``size`` as in training."""
    measured = measure_template(crops, Finder(Mtcnn()), progress=True)
    print(f"{crops}: {measured.describe()}")
    if measured.size != size and (measured.size, size) != ((112, 112), (112, 96)):
        (height, width), (high, wide) = measured.size, size
        raise UserError(f"--like: got crops of {height}x{width} · allowed: {high}x{wide}, which the network reads")
    return CropTemplate(measured.size, measured.points).cut_to(size)


def _write(export: Export, loaded: LoadedModel, path: Path, file_format: str) -> float | None:
    """Write the file; return the largest difference from PyTorch, or None if it has no graph."""
    about = {
        _SHA256: loaded.sha256,
        "step": str(loaded.meta.get("step")),
        "model": json.dumps(loaded.meta["config"]["model"]),
        "seen_size": json.dumps(sizes_seen(loaded.model)),
        **({"template": json.dumps(loaded.meta["template"])} if "template" in loaded.meta else {}),
    }
    if file_format == "safetensors":
        spec = loaded.model.input_spec
        write_safetensors(loaded.model, path, {**about, "input": spec.describe().replace("−", "-")})
        return None
    write = write_onnx if file_format == "onnx" else write_torchscript
    about |= {"input": export.form.describe(export.size, export.batch), "mirror": export.mirror}
    return write(export, path, about)
