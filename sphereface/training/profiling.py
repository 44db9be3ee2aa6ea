"""Profile training steps: a trace for a viewer, and a table of where the time goes."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from ..errors import UserError
from ..files import temporary_name, write_whole
from .deferred import NotFinite
from .trainer import Trainer

WARM_UP = 3
"""Steps before the recorded ones: they allocate buffers, choose convolutions and start workers."""
MOST = 100
"""Largest number of steps: viewers cannot open a longer trace."""
PHASES = ("data", "forward", "backward", "optimiser")
_TOP = 15  # operators in the table


def profile_training(trainer: Trainer, steps: int, folder: Path) -> str:
    """Train some steps under torch's profiler. The trained weights are not kept.

    On CUDA, the phases have the host's time, which is mostly launching. The operators have the
    device's time.

    Args:
        trainer: before its first step.
        steps: number of recorded steps, after :data:`WARM_UP` others.
        folder: receives ``steps.pt.trace.json`` (for TensorBoard's profile plugin or
            ui.perfetto.dev) and ``table.txt``.

    Returns:
        The table: milliseconds per step and share, of the phases and the most expensive operators.

    Raises:
        UserError: a number of steps out of range, a folder that cannot be written, or a loss that
            is not finite.
    """
    if not 1 <= steps <= MOST:
        raise UserError(f"--profile: got {steps} · allowed: 1 to {MOST} steps")
    for name, level in (("KINETO_LOG_LEVEL", "99"), ("TORCH_CPP_LOG_LEVEL", "ERROR")):
        os.environ.setdefault(name, level)  # else the profiler logs every device that is missing
    cuda = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(trainer.feed()) as feed:
            for _ in range(WARM_UP):
                trainer.train_step(next(feed))
            with profile(activities=activities) as record:
                for _ in range(steps):
                    with record_function("step"):
                        with record_function("data"):
                            batch = next(feed)
                        trainer.train_step(batch)
        _write_trace(record, folder / "steps.pt.trace.json")
        table = describe(record.key_averages(), steps, cuda=cuda)
        write_whole(folder / "table.txt", table.encode(), durable=False)
    except NotFinite as error:
        raise UserError(f"--profile: step {trainer.progress.step + 1}: {error} · use a lower train.lr") from error
    except OSError as error:
        raise UserError(f"--profile: {folder} cannot be written ({error.strerror}) · set another runs_dir") from error
    return table


def _write_trace(record: profile, path: Path) -> None:
    """Write the whole trace. If it cannot be written, raise OSError and leave no file.

    The profiler only logs that its write failed, and leaves ``NAME.tmp``.
    """
    part = temporary_name(path)
    try:
        record.export_chrome_trace(str(part))
        if not part.is_file():
            raise OSError(errno.EIO, "the profiler could not write its trace; the disk may be full", str(path))
        part.replace(path)
    finally:
        for left in (part, part.with_name(f"{part.name}.tmp")):
            left.unlink(missing_ok=True)


def describe(events: Any, steps: int, *, cuda: bool) -> str:
    """Return the table of :func:`profile_training`.

    Args:
        events: ``key_averages()`` of the profiler; times in microseconds over all steps.
        steps: number of recorded steps.
        cuda: sort operators by the device's time.
    """
    found = {event.key: event for event in events}
    whole = found["step"].cpu_time_total
    phases = {name: found[name].cpu_time_total for name in PHASES}
    phases["the rest"] = whole - sum(phases.values())

    def line(name: str, time: float, note: str = "") -> str:
        return f"{name[:44]:46}{time / steps / 1000:10.2f}{time / whole:8.1%}{note}\n"

    def own(event: Any) -> float:
        return float(event.self_device_time_total if cuda else event.self_cpu_time_total)

    operators = [event for event in events if event.key not in (*PHASES, "step")]
    top = sorted(operators, key=own, reverse=True)[:_TOP]
    head = f"{f'mean of {steps} steps':46}{'ms':>10}{'share':>8}\n"
    return (
        head
        + line("step", whole)
        + "".join(line(f"  {name}", time) for name, time in phases.items())
        + f"\n{'operator, its own time':46}{'ms':>10}{'share':>8}{'calls':>8}\n"
        + "".join(line(event.key, own(event), f"{event.count / steps:8.0f}") for event in top)
    )
