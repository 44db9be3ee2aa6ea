"""The tests of the GPU run through on the null CUDA, so that none fails on a GPU for a trivial reason."""

from __future__ import annotations

import pytest

from .process import run


@pytest.mark.slow
def test_the_gpu_tests_run_through(environment):
    options = ["-m", "gpu", "-p", "tests.nullcuda.counting", "-p", "no:logging", "-p", "no:cacheprovider"]
    found = run(environment, "-m", "pytest", "tests/gpu", *options)
    assert "passed" in found
    assert "failed" not in found
