"""Start a Python process on the null CUDA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run(environment: Mapping[str, str], *arguments: str, checkout: Path = ROOT, text: str = "") -> str:
    """Run Python on the null CUDA and return what it prints.

    Args:
        environment: what :func:`~tests.nullcuda.build.build` returned.
        arguments: of Python.
        checkout: whose ``sphereface`` is imported.
        text: what it reads from stdin.

    Raises:
        RuntimeError: it failed; with what it wrote to stderr.
    """
    variables = {**os.environ, **environment, "PYTHONPATH": str(checkout)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=variables, cwd=checkout, input=text, capture_output=True, text=True, timeout=800)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def run_cases(
    environment: Mapping[str, str], cases: Sequence[Mapping[str, Any]], checkout: Path = ROOT
) -> list[dict[str, Any]]:
    """Return the counts of some training steps, in one process.

    Args:
        environment: what :func:`~tests.nullcuda.build.build` returned.
        cases: each with the keys of :class:`~tests.nullcuda.session.Case`.
        checkout: whose ``sphereface`` is measured.
    """
    found = run(environment, str(HERE / "session.py"), checkout=checkout, text=json.dumps(list(cases)))
    results: list[dict[str, Any]] = json.loads(found)
    return results
