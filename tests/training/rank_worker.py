"""Runs over several gloo processes for test_distributed.py, all at one start: ``train.py`` as torchrun would start it.

What takes long is imported once, then every run forks its processes, with torchrun's variables. What a process
found is in ``<case>/<rank>.json``, what it said in ``<case>/<rank>.err``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import train
from sphereface.errors import UserError
from sphereface.training.trainer import Trainer

with contextlib.suppress(ImportError):  # once, not in each process that trains one of its networks
    import timm  # noqa: F401

Hook = Callable[[Trainer], None]


def usr1(at: int, rank: int) -> Hook:
    """One process gets the signal."""

    def before(trainer: Trainer) -> None:
        if trainer.progress.step == at - 1 and trainer.world.rank == rank:
            os.kill(os.getpid(), signal.SIGUSR1)

    return before


def refused(trainer: Trainer) -> None:
    """One process meets what only it can meet."""
    if trainer.progress.step == 3 and trainer.world.rank == 1:
        raise UserError("data.train: only process 1 sees this")


def poisoned(trainer: Trainer) -> None:
    """The images of one process become infinite in the sixth batch."""
    inputs = type(trainer.learner).inputs.__get__(trainer.learner)
    bad = trainer.progress.images_seen == 5 * 8 and trainer.world.rank == 1

    def poisoned_inputs(batch: Any, *size: Any) -> Any:
        images, labels = inputs(batch, *size)
        return (images * math.inf if bad else images), labels

    trainer.learner.inputs = poisoned_inputs


def usr1_in_evaluation(trainer: Trainer) -> None:
    """One process gets the signal while it embeds."""
    embed = trainer.learner.model.fc5.forward

    def embedding(x: torch.Tensor) -> torch.Tensor:
        if not trainer.learner.model.training and trainer.world.rank == 1 and trainer.stop.signal is None:
            os.kill(os.getpid(), signal.SIGUSR1)
        return embed(x)

    trainer.learner.model.fc5.forward = embedding


HOOKS: dict[str, Hook] = {
    "": lambda trainer: None,
    "usr1 at 5 on 2": usr1(5, 2),
    "usr1 at 9 on 1": usr1(9, 1),
    "refused": refused,
    "poisoned": poisoned,
    "usr1 in evaluation": usr1_in_evaluation,
}


def digest(values: dict[str, torch.Tensor]) -> str:
    """Of all bits."""
    content = b"".join(name.encode() + value.contiguous().numpy().tobytes() for name, value in values.items())
    return hashlib.sha256(content).hexdigest()


def main(rank: int, size: int, port: int, folder: Path, case: dict[str, Any]) -> int:
    """One process of one run."""
    found: dict[str, Any] = {"evaluations": []}
    local = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    os.environ.update({key: str(value) for key, value in (local | where).items()})
    fit, train_step = Trainer.fit, Trainer.train_step
    hook = HOOKS[case.get("hook", "")]

    def hooked(self: Trainer, batch: Any) -> Any:
        hook(self)
        return train_step(self, batch)

    def listening(self: Trainer, *args: Any) -> Any:
        verify = self.validator.evaluate
        self.validator.evaluate = lambda model: kept(found["evaluations"], verify(model))
        try:
            return fit(self, *args)
        finally:
            found["steps"] = self.progress.step
            found["seconds"] = self.progress.seconds
            found["digest"] = digest(self.learner.model.state_dict())
            found["chosen"] = [self.progress.best, self.progress.best_step]

    Trainer.fit, Trainer.train_step = listening, hooked
    overrides = [*case["set"], *case.get("set on 1", [])] if rank == 1 else case["set"]
    arguments = [part for override in overrides for part in ("--set", override)]
    resume = ["--resume", case["resume"]] if "resume" in case else []
    code = train.main(["--config", case["config"], "--device", "cpu", *arguments, *resume, *case.get("more", [])])
    (folder / f"{rank}.json").write_text(json.dumps(found))
    return code


def kept(found: list[Any], outcomes: Any) -> Any:
    """Writes down all of an evaluation, and hands it on."""
    for name, result in outcomes:
        plain = {key: repr(value) for key, value in dataclasses.asdict(result.verification).items()}
        found.append([name, plain])
        yield name, result


def child(rank: int, size: int, port: int, folder: Path, case: dict[str, Any]) -> None:
    """Never returns."""
    for stream, number in (("out", 1), ("err", 2)):
        file = os.open(folder / f"{rank}.{stream}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    code = 99
    try:
        code = main(rank, size, port, folder, case)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)


def run(root: Path, name: str, case: dict[str, Any]) -> list[int]:
    """Fork the processes of one run; returns their exit codes."""
    folder = root / name
    folder.mkdir()
    size = case["size"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            child(rank, size, port, folder, case)
        children.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    torch.set_num_threads(1)
    cases = json.loads((place / "cases.json").read_text())
    codes = {name: run(place, name, case) for name, case in cases.items()}
    (place / "codes.json").write_text(json.dumps(codes))
