"""Work on many small things in several processes, none of which outlives, outruns or holds up the caller."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from ..errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 32  # items handed over at a time: pictures take about a millisecond each, handing over as long
_CHUNKS_AHEAD = 4  # chunks waiting per worker; bounds what is in flight, however long the list


def run_in_chunks(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Yield the results of ``work`` on all items, in no particular order.

    Args:
        work: chunk of items → their results; picklable where ``workers`` > 0; raises nothing but UserError.
        items: picklable where ``workers`` > 0.
        workers: processes; 0 works in this one.

    Raises:
        UserError: ``work`` raised one, or a process died.
    """
    chunks = (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
    if workers == 0:
        for chunk in chunks:
            yield from work(chunk)
        return

    # Spawned, not forked: the same on every system, and no thread of this process is caught half way.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    pending: set[Future[list[Result]]] = set()
    try:
        for chunk in chunks:
            pending.add(pool.submit(work, chunk))
            if len(pending) >= workers * _CHUNKS_AHEAD:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        for future in pending:
            yield from future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, killed by hand or for want of memory · what was written so far is whole"
            " · run the same command again, with fewer --workers if memory was short"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Set up a worker: one thread, for there is a process per core; Ctrl-C is the parent's to handle."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this process when its parent is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
