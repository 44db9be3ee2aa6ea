from __future__ import annotations

import os
import signal

import cv2
import pytest

from sphereface.alignment.workers import run_in_chunks
from sphereface.errors import UserError


def square(numbers):
    return [number * number for number in numbers]


def process_and_threads(numbers):
    return [(os.getpid(), cv2.getNumThreads()) for _ in numbers]


def die(numbers):
    os.kill(os.getpid(), signal.SIGKILL)


def complain(numbers):
    raise UserError(f"{numbers[0]} · too many")


@pytest.mark.parametrize(("count", "workers"), [(0, 0), (1, 0), (1000, 0), (0, 2), (33, 2), (1000, 2)])
def test_every_item_once(count, workers):
    assert sorted(run_in_chunks(square, range(count), workers)) == [i * i for i in range(count)]


def test_workers_are_other_processes_of_one_thread():
    found = set(run_in_chunks(process_and_threads, range(500), 2))
    assert {threads for _, threads in found} == {1}
    assert os.getpid() not in {process for process, _ in found}


@pytest.mark.parametrize("workers", [0, 2])
def test_user_errors_come_through(workers):
    with pytest.raises(UserError, match=r"0 · too many|32 · too many"):
        list(run_in_chunks(complain, range(64), workers))


def test_a_killed_worker_ends_the_run_instead_of_hanging():
    with pytest.raises(UserError, match=r"a worker process was killed.*run the same command again"):
        list(run_in_chunks(die, range(1000), 2))
