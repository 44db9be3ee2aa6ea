"""What a wheel carries."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_carries_every_module_and_config(tmp_path):
    source = tmp_path / "source"  # built elsewhere, so that the checkout gets no build/ of its own
    for name in ("sphereface", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        carried = set(file.namelist())
        (entries,) = (name for name in carried if name.endswith(".dist-info/entry_points.txt"))
        assert "sphereface = sphereface.cli:main" in file.read(entries).decode()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sphereface").rglob("*.py")}
    weights = {f"sphereface/weights/sphere10-small{end}" for end in (".pt", ".json", ".calibration.json", ".pt.md")}
    configs = {f"sphereface/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    templates = {
        f"sphereface/{name}" for name in ("evaluation/page.css", "evaluation/report.html.j2", "export/card.md.j2")
    }
    assert modules | configs | weights | templates | {"sphereface/py.typed"} <= carried
