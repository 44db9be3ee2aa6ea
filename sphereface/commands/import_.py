"""Turn published weights into a checkpoint: to evaluate, to fine-tune, to embed.

    sphereface import backbone.pth arcface-r50.pt
    sphereface import adaface_ir50_ms1mv2.ckpt adaface-r50.pt --names identities.txt
    sphereface import cvlface_adaface_ir50_ms1mv2 cvlface-r50.pt         # a Hugging Face folder
    sphereface import backbone_70000.pth sfnet20.pt --publisher opensphere-deprecated --head head_70000.pth
    sphereface import sphereface_model.caffemodel sphereface-caffe.pt

The publisher is recognised by the contents of FILE: Caffe and PyTorch SphereFace, arcface_torch, AdaFace, CVLface,
MagFace, OpenSphere, yakhyo/face-recognition. The channel order and scale that the network reads are kept in the
checkpoint, and every command uses them. No code in FILE is run. docs/pretrained.md lists the published files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..backbone_options import BackboneOptions
from ..checkpoint import occupied
from ..errors import UserError
from ..export.formats import check_embeddings
from ..export.graph import example_crops, expected
from ..input_spec import ORDERS
from ..models.loading import build_model
from ..models.published import PUBLISHERS, InputOverrides, Published, import_published, save_published
from ..yaml_text import dump_yaml
from .input_options import parse_numbers, parse_size
from .parser import new_parser

_WHITE = 255


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "import", program)
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="the published weights, or a Hugging Face folder of CVLface")
    add("output", metavar="OUT.pt", type=Path, help="the checkpoint to write")
    add("--publisher", choices=PUBLISHERS, help="default: by the contents of FILE")
    add("--head", metavar="FILE", type=Path, nargs="+", default=[], help="files with the head, in order of their ranks")
    add("--names", metavar="FILE", type=Path, help="names of the identities of the head, one on each line")
    add("--input-size", metavar="HxW", help="of the images, where FILE does not tell (112x96, or 112x112)")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--order", choices=ORDERS, help="of the channels that the network reads (default: as published)")
    order.add_argument("--rgb", dest="order", action="store_const", const="rgb", help="the same as --order rgb")
    add("--mean", metavar="M", help="subtracted from a pixel of 0 to 255: one number or three (default: as published)")
    add("--std", metavar="S", help="by which the difference is divided (default: as published)")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None, program: str = "sphereface import") -> int:
    """Read, check, write, and report what it is."""
    args = parse(argv, program)
    output: Path = args.output
    if output.suffix != ".pt":
        raise UserError(f"{output}: got the ending {output.suffix!r} · allowed: .pt")
    if occupied(output) is not None:
        raise UserError(f"{output}: exists already · move it and its .json away, or give another name")
    published = import_published(
        args.file,
        publisher=args.publisher,
        overrides=InputOverrides(
            parse_size("--input-size", args.input_size),
            args.order,
            parse_numbers("--mean", args.mean, fits=lambda mean: 0 <= mean <= _WHITE, which=f" from 0 to {_WHITE}"),
            parse_numbers("--std", args.std, fits=lambda std: 1e-3 <= std <= 1e3, which=" from 0.001 to 1000"),
        ),
        head_files=args.head,
        names_file=args.names,
    )
    model = build_model(published.options).eval()
    model.load_state_dict(published.weights)
    check_embeddings(expected(model, example_crops(model.input_spec.size)), args.file)
    try:
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
        f"to train from it: --set train.init_from={output} --set 'model={_changed(options)}'",
    ]
    return "\n".join(lines)


def _changed(options: BackboneOptions) -> str:
    """Return what a configuration must say of the network, as YAML on one line; defaults are left out."""
    usual = type(options)().to_dict()
    changed = {key: value for key, value in options.to_dict().items() if key == "name" or value != usual.get(key)}
    return dump_yaml(changed, default_flow_style=True, width=10**6).strip()
