import multiprocessing

import pytest


@pytest.fixture(scope="session")
def server():
    """Starts each process as a fork of one that has torch imported but never used: in a tenth of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.session", "tests.faults.points"])
    return context
