"""Run ``sphereface join``; its options are in :mod:`.parsers.join`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import load_checkpoint, save_checkpoint
from ..checkpoint_place import new_checkpoint
from ..config import differences
from ..errors import UserError, refusing
from ..models.joining import join
from .printed_options import word


def run(args: argparse.Namespace) -> int:
    """Join the networks, then print what was written."""
    paths, output = args.checkpoints, args.output
    if output.suffix != ".pt":
        raise UserError(f"--output: got {output} · allowed: a name that ends in .pt, such as joined.pt")
    with refusing(f"{output}: cannot be written"):
        states = [load_checkpoint(path, mapped=True) for path in paths]
        state = join(states, paths)
        meta = state["meta"]
        meta["run"] = output.stem
        with new_checkpoint(output, "--output"):
            save_checkpoint(output, state, {"networks": len(meta["networks"]), "of": meta["networks"]})
    for path, other in zip(paths[1:], states[1:], strict=True):
        if lines := _unlike(states[0]["meta"], other["meta"]):
            print(f"note: {path} differs from {paths[0]}: {' · '.join(lines)}")
    for path, twin in _same_seeds(paths, states):
        print(f"note: {path} has the same seed and settings as {twin}: possibly one network, trained twice")
    dim = len(meta["networks"]) * meta["config"]["model"]["embedding_dim"]
    evaluation = "sphereface eval" if args.program == "sphereface join" else "python eval_lfw.py"
    what = f"{len(meta['networks'])} networks, embeddings of {dim} numbers"
    print(f"{output}: {what} · evaluate it: {evaluation} --ckpt {word(str(output))}")
    return 0


def _unlike(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the differences between two joined networks: settings, images, template, people."""
    both = [key for key in ("data", "train", "loss") if key in first["config"] and key in other["config"]]
    one, two = ({key: meta["config"][key] for key in both} for meta in (first, other))
    lines = differences(one, two)
    if "num_images" in first and "num_images" in other:
        lines += differences({"images": first["num_images"]}, {"images": other["num_images"]})
    if (first.get("template") is None) != (other.get("template") is None):
        lines.append("only one of them records the template of its crops; photographs are aligned to that template")
    if first.get("class_names") != other.get("class_names"):
        lines.append("other people, or unknown people")
    return lines


def _same_seeds(paths: Sequence[Path], states: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Path, Path]]:
    """Yield each checkpoint with an earlier one that has the same seed and settings."""
    configs = [{k: v for k, v in state["meta"]["config"].items() if k not in ("name", "runs_dir")} for state in states]
    for number, path in enumerate(paths):
        for other in range(number):
            if "seed" in configs[number] and configs[number] == configs[other]:
                yield path, paths[other]
