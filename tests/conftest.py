"""What holds for every test: one thread a process, for tensors are small and workers share the processors.

No test cuts the power, so none waits until the disk has what it wrote: these waits were a sixth of the time of a run.
"""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, and by the processes that tests start
os.fsync = lambda descriptor: None
gc.disable()  # nearly half of the time that 10,000 tests are collected in was the search for garbage among them


def pytest_collection_modifyitems(items):
    """Start with the tests that take a minute each: at the end, one worker would run them alone."""
    items.sort(key=lambda item: "/nullcuda/" not in item.nodeid and "_under_the_interpreter" not in item.nodeid)


def pytest_collection_finish():
    """Look for garbage from here on, but among new objects only: what was imported and collected stays."""
    gc.freeze()
    gc.enable()
