"""Turn published SphereFace weights into a checkpoint: for eval_lfw.py --ckpt and train.init_from.

    python scripts/import_weights.py sphereface_model.caffemodel sphereface-caffe.pt
    python scripts/import_weights.py sphere20a_20171020.pth sphereface-port.pt

FILE is a binary .caffemodel with the layer names of the authors' release, or a .pth with those of the PyTorch port
clcarwin/sphereface_pytorch. Neither Caffe nor the port is needed, and no code in FILE is run.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sphereface.errors import UserError, reports_user_errors
from sphereface.models.released import import_released, save_released


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="the published weights: .caffemodel or .pth")
    add("output", metavar="OUT.pt", type=Path, help="the checkpoint to write")
    add("--input-size", metavar="HxW", help="of the pictures, where the file does not tell (112x96, or 112x112)")
    add("--rgb", action="store_true", help="the network was trained on RGB pictures: make it read BGR")
    return parser.parse_args(argv)


def size_of(text: str | None) -> tuple[int, int] | None:
    """What ``--input-size`` asks for."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{1,3})x([1-9]\d{1,3})", text)
    if found is None:
        raise UserError(f"--input-size: got {text!r} · allowed: height x width in pixels, such as 112x96")
    return int(found[1]), int(found[2])


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Read, check, write, and say what it is."""
    args = parse(argv)
    output: Path = args.output
    if output.suffix != ".pt":
        raise UserError(f"{output}: got the ending {output.suffix!r} · allowed: .pt")
    if any(path.exists() for path in (output, output.with_suffix(".json"))):
        raise UserError(f"{output}: there already · move it and its .json away, or give another name")
    released = import_released(args.file, input_size=size_of(args.input_size), rgb=args.rgb)
    try:
        save_released(released, output, origin=f"imported from {args.file.name}")
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error} · give another place") from error
    model = released.model
    size, widths = "x".join(map(str, model.input_size)), ", ".join(map(str, model.widths))
    print(f"{output}: SphereNet of {model.depth} layers ({widths}), {size} pixels → {model.embedding_dim} numbers")
    for note in released.notes:
        print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
