"""Count what a function does on the null CUDA: in a process that runs under it.

Convolutions are empty here as well: their kernels are cuDNN's, which PyTorch chooses by values that
do not exist. A bias counts as a launch, as PyTorch adds it.
"""

from __future__ import annotations

import collections
import ctypes
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("aten", "IMPL")
_convolutions = collections.Counter[str]()


@dataclass
class Counts:
    """What one call does."""

    waits: dict[str, int]
    """Where the host waits for the device: ``file:line`` of Python, or the function of CUDA."""
    launches: int
    """Kernels and products, without convolutions, copies and memsets."""
    convolutions: int
    copies: dict[str, int]
    peak_bytes: int
    kernels: dict[str, int] = field(default_factory=dict)
    """Launches by kernel."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def count(function: Callable[[], object]) -> Counts:
    """Call a function twice: where it waits, then what it launches."""
    with _waiting() as places:
        function()
    torch.cuda.reset_peak_memory_stats()
    library = ctypes.CDLL(None)
    library.nullcuda_reset()
    _convolutions.clear()
    function()
    with tempfile.NamedTemporaryFile() as file:
        library.nullcuda_report(file.name.encode())
        rows = [line.split("\t") for line in Path(file.name).read_text().splitlines()]
    events = {name: int(n) for kind, n, _, name in rows if kind == "E"}
    by_function = {name[5:]: n for name, n in events.items() if name.startswith("wait ")}
    copies = {name: n for name, n in events.items() if name.startswith(("copy", "memset"))}
    pageable = {name: n for name, n in copies.items() if "pageable" in name}
    return Counts(
        waits=dict(places) or by_function or pageable,
        launches=events.get("launch", 0),
        convolutions=_convolutions.total(),
        copies=copies,
        peak_bytes=torch.cuda.max_memory_allocated(),
        kernels=_readable(rows),
    )


@contextmanager
def _waiting() -> Iterator[collections.Counter[str]]:
    """Within, count the lines of Python at which PyTorch waits for the device."""
    places = collections.Counter[str]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "called a synchronizing" in str(warning.message):
            places[f"{Path(warning.filename).name}:{warning.lineno}"] += 1


def _readable(rows: list[list[str]]) -> dict[str, int]:
    """Launches by short kernel name: the kernel, and the functors that it is made for."""
    of_torch = [(name, int(n)) for kind, n, _, name in rows if kind == "K"]
    text = "\n".join(name for name, _ in of_torch)
    names = subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    found = collections.Counter[str]()
    for name, (_, n) in zip(names, of_torch, strict=True):
        words = re.findall(r"\w*(?:[kK]ernel|[Ff]unctor|Ops?\b|_cuda\b)\w*", name)
        found[" ".join(dict.fromkeys(words[:4])) or name[:60]] += n
    for kind, n, _, name in rows:
        if kind == "E" and name.startswith(("triton", "product")):
            found[name] += int(n)
    return dict(found.most_common())


def _size(x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> list[int]:
    sides = zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    return [x.shape[0], w.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)]


def _layout(x: Tensor, w: Tensor) -> torch.memory_format:
    last = any(t.shape[1] > 1 and t.is_contiguous(memory_format=torch.channels_last) for t in (x, w))
    return torch.channels_last if last else torch.contiguous_format


def _convolution(x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any, dilation: Any, *_: Any) -> Tensor:
    others = [w] if b is None else [w, b]
    assert all((t.dtype, t.device) == (x.dtype, x.device) for t in others), [(t.dtype, t.device) for t in (x, *others)]
    _convolutions["forward"] += len(others)
    size = _size(x, w, stride, padding, dilation)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=_layout(x, w))


def _convolution_backward(
    grad: Tensor, x: Tensor, w: Tensor, bias_sizes: Any, *options: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    assert grad.dtype == x.dtype == w.dtype, (grad.dtype, x.dtype, w.dtype)
    mask = options[-1]
    _convolutions["backward"] += sum(mask)
    layout = _layout(x, w)
    dx, dw = (
        torch.empty_like(t, memory_format=layout) if wanted else None
        for t, wanted in zip((x, w), mask[:2], strict=True)
    )
    return dx, dw, x.new_empty(bias_sizes) if mask[2] else None


torch._C._conv_determine_backend_memory_format = lambda x, w, backend: _layout(x, w)  # the compiler asks for it
_library.impl("convolution", _convolution, "CUDA")
_library.impl("convolution_backward", _convolution_backward, "CUDA")
