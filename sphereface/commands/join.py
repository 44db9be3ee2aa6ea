"""Join networks that were trained apart to one checkpoint: their embeddings side by side, the mean of their cosines.

    sphereface join runs/a/…/best.pt runs/b/…/best.pt --output joined.pt
    sphereface eval --ckpt joined.pt

What model.networks does with networks that one command trains one after another, this does with any of one
architecture: trained at once on several machines, from other seeds, with other settings. A joined checkpoint brings
each of its networks. Ten networks of a configuration, five on each of two machines, each network of its own seed:

    sphereface train --config faces-long.yaml --set model.networks=5 --set seed=0     # on one
    sphereface train --config faces-long.yaml --set model.networks=5 --set seed=1     # on the other
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..checkpoint import load_checkpoint, save_checkpoint
from ..config import differences
from ..errors import UserError
from ..models.joining import join
from .parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "join", program)
    add = parser.add_argument
    add("checkpoints", metavar="CKPT", type=Path, nargs="+", help="such as runs/…/best.pt; two networks or more in all")
    add("--output", metavar="FILE.pt", type=Path, required=True, help="the checkpoint to write")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None, program: str = "sphereface join") -> int:
    """Join, then say what was written."""
    args = parse(argv, program)
    output: Path = args.output
    if output.suffix != ".pt" or output.exists():
        got = "is there already" if output.exists() else "does not end in .pt"
        raise UserError(f"--output: {output} {got} · allowed: the name of a new checkpoint, such as joined.pt")
    states = [load_checkpoint(path, mapped=True) for path in args.checkpoints]
    state = join(states, args.checkpoints)
    origins = state["meta"]["networks"]
    state["meta"]["run"] = output.stem
    try:
        save_checkpoint(output, state, {"networks": len(origins), "of": origins})
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from error
    for path, other in zip(args.checkpoints[1:], states[1:], strict=True):
        lines = differences(_told(states[0]), _told(other))
        if lines:
            print(f"{path} differs from {args.checkpoints[0]}: {' · '.join(lines)}")
    dim = len(origins) * state["meta"]["config"]["model"]["embedding_dim"]
    evaluation = "sphereface eval" if program == "sphereface join" else "python eval_lfw.py"
    print(f"{output}: {len(origins)} networks, {dim} numbers a face · evaluate it: {evaluation} --ckpt {output}")
    return 0


def _told(state: dict[str, object]) -> dict[str, object]:
    """What may differ between networks that are joined, and a user should know: all but seed, places and number."""
    meta = state["meta"]
    assert isinstance(meta, dict)
    config = {key: value for key, value in meta["config"].items() if key not in ("seed", "name", "runs_dir")}
    config["model"] = {key: value for key, value in config["model"].items() if key != "networks"}
    return {**config, "pictures": meta.get("num_images")}
