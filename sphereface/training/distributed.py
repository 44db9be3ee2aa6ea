"""The processes of a run, as torchrun starts them, and how they communicate and end together.

All processes make the same decision from the same values. So they take the same branch, and none
waits for a message that never comes.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from ..device import choose_device, processors
from ..errors import ReportedElsewhere, Stopped, UserError
from ..losses.ranks import Ranks

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=30)  # longer than one process may save while the others wait for it
_GRACE_SECONDS = 3.0  # a failing process has this long to report, before another assumes that it was killed


@dataclass(frozen=True)
class World:
    """The R processes that train together; by default this process alone.

    Attributes:
        rank: number of this process, from 0.
        size: R.
        ranks: for messages between the processes; None if there is only one.
        store: where the first process that fails leaves its reason.
    """

    rank: int = 0
    size: int = 1
    ranks: Ranks | None = None
    store: Any = None

    @property
    def first(self) -> bool:
        """Return whether this is the process that logs, writes and saves."""
        return self.rank == 0

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Return the sums of a few plain numbers over all processes, without waiting for a GPU."""
        if self.size == 1:
            return list(values)
        packed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(packed)
        return [float(value) for value in packed]

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Return (R·n, …), the (n, …) of each process in order of ranks, on every process."""
        return rows if self.ranks is None else self.ranks.gather(rows)

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all processes in order of ranks. It pickles, so call it rarely."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: T) -> T:
        """Return the value of the first process on every process. It pickles, so call it rarely."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        sent: T = box[0]
        return sent

    def reason(self, error: BaseException) -> str:
        """Return in one line why this process ends.

        If another process failed first, it is the reason of that process.
        """
        if not _is_lost_connection(error):
            return str(error) or type(error).__name__
        try:
            assert self.store is not None
            self.store.wait(["reason"], timedelta(seconds=_GRACE_SECONDS))
            return str(self.store.get("reason").decode())
        except (RuntimeError, AssertionError):
            return (
                "another process of this run was lost: killed, out of memory, or its machine is gone · "
                "run the same command again, for training with --resume auto"
            )

    def is_first_to_report(self, reason: str) -> bool:
        """Return whether this process is the first to report why the run ends.

        If so, it must report the reason, and the other processes receive it.
        """
        if self.store is None:
            return True
        try:
            reported = self.store.add("reported", 1) > 1
            if not reported:
                self.store.set("reason", reason)
        except RuntimeError:  # the process with the store has ended: it, or what killed it, has reported
            return False
        return not reported


@contextmanager
def processes(device: str) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun, or a program with the same variables, has started.

    Without those variables this process is the only one. One process reports the error that ends
    the run; in the others the error becomes :class:`ReportedElsewhere`.

    Args:
        device: as for :func:`choose_device`. With several processes, each uses the GPU of its
            ``LOCAL_RANK``.

    Yields:
        The processes, and the device of this one.

    Raises:
        UserError: some of torchrun's variables are missing, several processes cannot use the
            device, or a process was lost.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield World(), choose_device(device)
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE: got {os.environ['WORLD_SIZE']} in the environment without {', '.join(missing)} · allowed: "
            "all of them, as torchrun sets them · start with torchrun, or unset WORLD_SIZE"
        )
    store, rank, size = next(rendezvous("env://", timeout=_TIMEOUT))
    store = dist.PrefixStore(_name_of_start(store, rank, size), store)  # type: ignore[attr-defined]
    world = World(rank, size, store=store)
    with _report_error_once(world):
        place = device_of(device, int(os.environ.get("LOCAL_RANK", "0")))
        _share_cores(local_processes())
        if place.type == "cuda":
            torch.cuda.set_device(place)
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
        try:
            yield World(rank, size, Ranks(), world.store), place
        except Stopped:  # on all of them together
            dist.destroy_process_group()
            raise
        dist.destroy_process_group()  # not after an error: it would wait for the others


def local_processes() -> int:
    """Return how many processes of the run are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def device_of(name: str, local_rank: int) -> torch.device:
    """Return the device of one of several processes on a machine.

    Args:
        name: what ``--device`` got.
        local_rank: number of the process on its machine, from 0.

    Raises:
        UserError: a device that only one process can use, or more processes than GPUs.
    """
    device = choose_device(name)
    if device.type == "mps" and name == "auto":
        return torch.device("cpu")
    if device.type not in ("cuda", "cpu") or device.index is not None:
        raise UserError(f"--device: got {name} with several processes · allowed there: auto, cuda, cpu")
    if device.type == "cpu":
        return device
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"torchrun: process {local_rank} of this machine finds {torch.cuda.device_count()} GPUs · allowed: one "
            "process for each · set --nproc-per-node gpu"
        )
    return torch.device("cuda", local_rank)


def _name_of_start(store: Any, rank: int, size: int) -> str:
    """Return a name for this start: the same on all processes, different for every start.

    The store survives a restart by torchrun, with the addresses and reasons of the earlier
    processes. So the first process sends its name to each process that says hello, until every
    process has confirmed this name.
    """
    if rank:
        own = uuid.uuid4().hex
        store.set(f"hello {rank}", own)
        name = str(store.get(f"welcome {own}").decode())  # waits
        store.set(f"here {name} {rank}", "")
        return name
    name, missing = uuid.uuid4().hex, list(range(1, size))
    deadline = time.monotonic() + _TIMEOUT.total_seconds()
    while missing:
        for other in missing:
            if store.check([f"hello {other}"]):  # perhaps of an earlier start: then no process reads the answer
                store.set(f"welcome {store.get(f'hello {other}').decode()}", name)
        missing = [other for other in missing if not store.check([f"here {name} {other}"])]
        if time.monotonic() > deadline:
            raise UserError(f"torchrun: processes {missing} of {size} did not start within {_TIMEOUT} · start them")
        time.sleep(0.005)
    return name


@contextmanager
def _report_error_once(world: World) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = world.reason(error)
        if not world.is_first_to_report(reason):
            raise ReportedElsewhere(error.exit_code if isinstance(error, Stopped) else 2) from error
        if _is_lost_connection(error):
            raise UserError(reason) from error
        raise


def _is_lost_connection(error: BaseException) -> bool:
    """Return whether a message between processes failed, and not something in this process."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _share_cores(processes_here: int) -> None:
    """Use the cores that this process has to itself, unless ``OMP_NUM_THREADS`` is set.

    torchrun sets it.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, processors() // processes_here))
