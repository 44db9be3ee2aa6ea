"""Run ``sphereface import``; its options are in :mod:`.parsers.import_`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..backbone_options import BackboneOptions
from ..checkpoint_place import new_checkpoint, occupied
from ..errors import UserError
from ..export.formats import check_embeddings
from ..export.graph import example_crops, expected
from ..input_spec import warn_of_scale
from ..models.loading import build_all
from ..models.published import InputOverrides, Published, import_published, save_published
from ..yaml_text import dump_yaml
from .input_options import parse_numbers, parse_size
from .printed_options import setting, word

_WHITE = 255


def run(args: argparse.Namespace) -> int:
    """Read the published weights, check them, write the checkpoint and print what it is."""
    output: Path = args.output
    if output.suffix != ".pt":
        raise UserError(f"{output}: got the ending {output.suffix!r} · allowed: .pt")
    if occupied(output) is not None:
        raise UserError(f"{output}: exists already · move it and its .json, or give another name")
    size = parse_size("--input-size", args.input_size)
    mean = parse_numbers("--mean", args.mean, fits=lambda mean: 0 <= mean <= _WHITE, which=f" from 0 to {_WHITE}")
    std = parse_numbers("--std", args.std, fits=lambda std: 1e-3 <= std <= 1e3, which=" from 0.001 to 1000")
    overrides = InputOverrides(size, args.order, mean, std)
    published = import_published(
        args.file, publisher=args.publisher, overrides=overrides, head_files=args.head, names_file=args.names
    )
    spec = published.options.input_spec
    if mean is not None or std is not None:
        warn_of_scale(str(args.file), spec)
    model = build_all(published.options).eval()
    model.load_state_dict(published.weights)
    check_embeddings(expected(model, example_crops(spec.size)), args.file)
    try:
        with new_checkpoint(output, "OUT.pt"):
            save_published(published, output, origin=f"imported from {args.file.name}")
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error} · give another path") from error
    print(_report(published, output))
    return 0


def _report(published: Published, output: Path) -> str:
    options = published.options
    details = {key: value for key, value in options.to_dict().items() if key in ("depth", "units", "size", "norm")}
    network = " ".join([options.name, *(f"{key} {value}" for key, value in details.items() if value is not None)])
    lines = [
        f"{output}: {network}, embeddings of {options.embedding_dim} numbers",
        f"recognised as {published.source}",
        f"reads {options.input_spec.describe()}",
        *published.notes,
        f"to train from it: {setting('train.init_from', str(output))} --set {word(f'model={_changed(options)}')}",
    ]
    return "\n".join(lines)


def _changed(options: BackboneOptions) -> str:
    """Return the options of the network that differ from the defaults, as YAML on one line."""
    usual = type(options)().to_dict()
    changed = {key: value for key, value in options.to_dict().items() if key == "name" or value != usual.get(key)}
    return dump_yaml(changed, default_flow_style=True, width=10**6).strip()
