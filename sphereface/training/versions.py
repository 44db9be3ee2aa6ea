"""The versions of the packages, and the git revision of this code."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch


def versions() -> dict[str, str]:
    """Return versions of packages and Python, the platform, and the git revision of this code.

    The revision ends with '+' if the code was changed since.
    """
    names = ("sphereface", "torchvision", "numpy", "opencv-python")
    found = {"torch": str(torch.__version__)}  # with the build, such as +cu130
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return {**found, "python": platform.python_version(), "platform": platform.platform(), "revision": _git_revision()}


def _git_revision() -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "unknown"
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "unknown"
