"""Join networks that were trained apart to one checkpoint: their embeddings side by side, the mean of their cosines.

    sphereface join runs/a/<time>/last.pt runs/b/<time>/last.pt --output joined.pt
    sphereface eval --ckpt joined.pt

What model.networks does with networks that one command trains one after another, this does with any of one
architecture: trained at once on several machines, from other seeds, with other settings. A joined checkpoint brings
each of its networks. Ten networks of a configuration, five on each of two machines, each network of its own seed:

    sphereface train --config faces-long.yaml --set model.networks=5 --set seed=0     # on one
    sphereface train --config faces-long.yaml --set model.networks=5 --set seed=1     # on the other

Then join the two files that these commands name at their end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import load_checkpoint, occupied, save_checkpoint
from ..config import differences
from ..errors import UserError
from ..files import locked
from ..models.joining import join
from .checkpoint_option import HELP, checkpoint_path
from .parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "join", program)
    add = parser.add_argument
    add("checkpoints", metavar="CKPT", type=checkpoint_path, nargs="+", help=f"{HELP}; two networks or more in all")
    add("--output", metavar="FILE.pt", type=Path, required=True, help="the checkpoint to write")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None, program: str = "sphereface join") -> int:
    """Join, then say what was written."""
    args = parse(argv, program)
    paths, output = args.checkpoints, args.output
    if output.suffix != ".pt":
        raise UserError(f"--output: got {output} · allowed: a name that ends in .pt, such as joined.pt")
    try:
        states = [load_checkpoint(path, mapped=True) for path in paths]
        state = join(states, paths)
        meta = state["meta"]
        meta["run"] = output.stem
        with locked(output.with_name(f".{output.stem}.lck")) as alone:
            if not alone:
                raise UserError(f"--output: another process is writing {output} · wait for it, or give another name")
            _check_free(output)  # within the lock, which removes what a kill left of it
            save_checkpoint(output, state, {"networks": len(meta["networks"]), "of": meta["networks"]})
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from error
    for path, other in zip(paths[1:], states[1:], strict=True):
        if lines := _unlike(states[0]["meta"], other["meta"]):
            print(f"note: {path} differs from {paths[0]}: {' · '.join(lines)}")
    for path, twin in _same_seeds(paths, states):
        print(f"note: {path} has seed and settings of {twin}: one network, trained twice?")
    dim = len(meta["networks"]) * meta["config"]["model"]["embedding_dim"]
    evaluation = "sphereface eval" if program == "sphereface join" else "python eval_lfw.py"
    print(
        f"{output}: {len(meta['networks'])} networks, {dim} numbers a face · evaluate it: {evaluation} --ckpt {output}"
    )
    return 0


def _check_free(output: Path) -> None:
    if (there := occupied(output)) is not None:
        raise UserError(f"--output: {there} is there already · allowed: the name of a new checkpoint")


def _unlike(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between two networks that are joined, and a user should know: people, pictures, settings."""
    both = [key for key in ("data", "train", "loss") if key in first["config"] and key in other["config"]]
    one, two = ({key: meta["config"][key] for key in both} for meta in (first, other))
    lines = differences(one, two)
    if "num_images" in first and "num_images" in other:
        lines += differences({"pictures": first["num_images"]}, {"pictures": other["num_images"]})
    if first.get("class_names") != other.get("class_names"):
        lines.append("other people, or not known which")
    return lines


def _same_seeds(paths: Sequence[Path], states: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Path, Path]]:
    told = [{k: v for k, v in state["meta"]["config"].items() if k not in ("name", "runs_dir")} for state in states]
    for number, path in enumerate(paths):
        for other in range(number):
            if "seed" in told[number] and told[number] == told[other]:
                yield path, paths[other]
