"""Build the null CUDA: shared libraries in the place of CUDA's, which do nothing but count.

PyTorch's own CUDA side (dispatcher, allocator, streams, autocast, inductor, Triton) then runs on a
machine without a GPU. Devices, waits of the host, launches and memory are real. Values and times
mean nothing. ``runtime.c`` and ``driver.c`` hold the functions that have to do something; the
others that PyTorch links, or that cuda.h declares, are generated here and return 0.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch

HERE = Path(__file__).parent
_HEADERS = ("cuda.h", "crt/host_defines.h", "cublas_v2.h", "cudnn.h")
_LINKED = re.compile(r"\b(?:__cuda|cuda|cublas|cudnn)[A-Z]\w*")
_DECLARED = re.compile(r"\bcu[A-Z]\w*")


def why_not() -> str | None:
    """Return why the null CUDA cannot be built here; None where it can."""
    if sys.platform != "linux":
        return f"the null CUDA needs Linux, not {sys.platform}"
    if not (torch.version.cuda or "").startswith("13."):
        return f"the null CUDA needs PyTorch for CUDA 13, not {torch.__version__}"
    if torch.cuda.is_available():
        return "this machine has a GPU: see tests/gpu"
    if missing := [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]:
        return f"the null CUDA needs {missing[0]}"
    if missing := [name for name in _HEADERS if _header(name) is None]:
        return f"the null CUDA needs the header {missing[0]}"
    return None


def include_folders() -> list[Path]:
    """The folders of CUDA's and cuDNN's headers: of PyTorch's own packages, then /usr/local."""
    packages = Path(sysconfig.get_paths()["purelib"])
    parts = ("nvidia/cu13", "nvidia/cudnn", "triton/backends/nvidia")
    folders = [*(packages / part / "include" for part in parts), Path("/usr/local/cuda/include")]
    return [folder for folder in folders if folder.is_dir()]


def _header(name: str) -> Path | None:
    found = (folder / name for folder in include_folders() if (folder / name).is_file())
    return next(found, None)


def build(folder: Path) -> dict[str, str]:
    """Compile the libraries into a folder.

    Returns:
        The environment variables under which Python uses them.

    Raises:
        subprocess.CalledProcessError: the compiler refuses the sources.
    """
    linked = _output("nm", "-D", "--undefined-only", *map(str, (Path(torch.__file__).parent / "lib").glob("*.so")))
    header = _header("cuda.h")
    assert header is not None
    declared = header.read_text(encoding="utf-8", errors="replace")
    driver = folder / "driver"
    driver.mkdir()
    runtime = _library("runtime", set(_LINKED.findall(linked)), folder, folder / "libnullcuda.so")
    _library("driver", set(_DECLARED.findall(declared)), folder, driver / "libcuda.so.1")
    (driver / "libcuda.so").symlink_to("libcuda.so.1")
    return {
        "LD_PRELOAD": str(runtime),
        "LD_LIBRARY_PATH": str(driver),
        "TRITON_LIBCUDA_PATH": str(driver),
        "TORCH_CUDNN_V8_API_DISABLED": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),  # what it compiles here serves no real GPU
        "OMP_NUM_THREADS": "1",
    }


def _library(name: str, functions: set[str], folder: Path, library: Path) -> Path:
    """Compile a source, and a function that returns 0 for each of ``functions`` that it lacks."""
    compiled, rest = folder / f"{name}.o", folder / f"{name}_rest.c"
    folders = [f"-I{path}" for path in include_folders()]
    _output("gcc", "-O1", "-w", "-c", "-fPIC", *folders, str(HERE / f"{name}.c"), "-o", str(compiled))
    own = {line.split()[-1] for line in _output("nm", "--defined-only", str(compiled)).splitlines()}
    rest.write_text("".join(f"int {function}() {{ return 0; }}\n" for function in sorted(functions - own)))
    options = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{library.name}", "-o", str(library)]
    _output("gcc", *options, str(compiled), str(rest), "-lpthread", "-ldl")
    return library


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
