"""The null CUDA, built once a session."""

from __future__ import annotations

import pytest

from .build import build, why_not


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    if reason := why_not():
        pytest.skip(reason)
    return build(tmp_path_factory.mktemp("nullcuda"))
