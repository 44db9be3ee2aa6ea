"""Process many small items in worker processes that end with the caller."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2

from ..errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNKS_AHEAD = 4  # queued chunks per worker; bounds memory for any length of the list


def run_in_chunks(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], workers: int, *, chunk: int = 32
) -> Iterator[Result]:
    """Yield the results of ``work`` on all items, in no particular order.

    Args:
        work: maps a chunk of items to their results; picklable if ``workers`` > 0; raises only
            UserError. Each process keeps one copy, with all that it has loaded.
        items: picklable if ``workers`` > 0.
        workers: number of processes; 0 works in this one.
        chunk: number of items in a chunk; use fewer if each takes long.

    Raises:
        UserError: ``work`` raised one, or a process died.
    """
    chunks = (items[start : start + chunk] for start in range(0, len(items), chunk))
    if workers == 0:
        for some in chunks:
            yield from work(some)
        return

    # Spawn, not fork: it is the same on every system, and it copies no thread in mid-work.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(work,))
    pending: set[Future[list[Result]]] = set()
    try:
        for some in chunks:
            pending.add(pool.submit(_do, some))
            if len(pending) >= workers * _CHUNKS_AHEAD:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        for future in pending:
            yield from future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps because memory ran out · finished files are complete"
            " · run the same command again, with fewer --workers if memory was short"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_work: Callable[[Sequence[Any]], list[Any]]  # of a worker, set when it starts


def _do(items: Sequence[Item]) -> list[Any]:
    return _work(items)


def _start_worker(work: Callable[[Sequence[Any]], list[Any]]) -> None:
    """Set up a worker: one thread, since each core has a process; the parent handles Ctrl-C."""
    global _work
    _work = work
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this process when its parent is killed; otherwise it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
