"""Judge a case: how the parser ended, what memory it took, and what it wrote where."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import sphereface
from sphereface.errors import UserError

PACKAGE = str(Path(sphereface.__file__).resolve().parent)
MOST_LINES, MOST_CHARACTERS = 12, 4_000


@dataclass(frozen=True)
class Limits:
    """What a case may take: seconds of processor time, and bytes of resident memory."""

    seconds: float = 5.0
    memory: int = 2**30


def fault_of(error: BaseException | None) -> str | None:
    """Say what is wrong with how a parser ended; None where nothing is."""
    if error is None:
        return None
    if not isinstance(error, UserError):
        text = " ".join(str(error).split())[:200]
        return f"{type(error).__name__}: {text}"
    text = str(error)
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        return f"a message of {len(lines)} lines"
    if len(text) > MOST_CHARACTERS:
        return f"a message of {len(text):,} characters: {text[:80]!r}"
    if any(not line.startswith("  ") for line in lines[1:]):
        return f"a message with a line break: {text[:80]!r}"
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text.replace("\n", "")):
        return f"a message with control characters: {text[:80]!r}"
    return None


def place_of(error: BaseException) -> str:
    """The innermost frame in the package, and the innermost of all where that is another."""
    frames = traceback.extract_tb(error.__traceback__)
    shown = [*[frame for frame in frames if _is_ours(frame.filename)][-1:], *frames[-1:]]
    places = [f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}" for frame in shown]
    return " < ".join(dict.fromkeys(places))


def _is_ours(path: str) -> bool:
    return path.startswith(PACKAGE + os.sep)


class Memory:
    """How far the resident set of this process grew."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):  # elsewhere than on Linux it is the peak of all cases so far
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
        self._start = _resident()

    def fault(self, limits: Limits) -> str | None:
        grown = _peak() - self._start
        return f"{grown >> 20} MiB of memory" if grown > limits.memory else None


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)


def _peak() -> int:
    return _status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    return _status("VmRSS:") or _peak()


def virtual_size() -> int:
    return _status("VmSize:") or 2**40


class Watch:
    """What a process writes outside of one folder, or starts: told by Python's audit events and by a listing.

    Args:
        folder: of the case.
        output: the folder below it in which files may be written.
    """

    def __init__(self, folder: Path, output: str) -> None:
        self.folder, self._allowed = folder, os.path.realpath(folder / output)
        self._on, self.seen = False, list[str]()
        sys.addaudithook(self._hook)

    def begin(self) -> None:
        self._on, self.seen = True, []

    def end(self) -> None:
        self._on = False

    def listing(self) -> dict[str, int]:
        """Name → size of every file that must stay as it is."""
        files = (Path(top) / name for top, _, names in os.walk(self.folder) for name in names)
        return {str(file): file.lstat().st_size for file in files if not self._may(str(file))}

    def fault(self, before: dict[str, int]) -> str | None:
        if self.seen:
            return f"did {self.seen[0]}"
        changed = sorted(set(before.items()) ^ set(self.listing().items()))
        return f"changed {changed[0][0]}" if changed else None

    def _may(self, path: str) -> bool:
        path = os.path.realpath(path)
        return path == self._allowed or path.startswith(self._allowed + os.sep)

    def _hook(self, event: str, args: tuple) -> None:
        if not self._on:
            return
        if event == "open":
            path, mode, flags = args
            writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or (mode or "r")[0] in "wax"
            if (
                writes
                and not isinstance(path, int)
                and os.fsdecode(path) != os.devnull
                and not self._may(os.fsdecode(path))
            ):
                self.seen.append(f"open {os.fsdecode(path)} for writing")
        elif event in _CHANGES:
            paths = [os.fsdecode(each) for each in args[: _CHANGES[event]]]
            self.seen += [f"{event} {path}" for path in paths if not self._may(path)]
        elif event in _STARTS:
            self.seen.append(f"{event} {str(args)[:100]}")


_CHANGES = {
    "os.mkdir": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
}
_STARTS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"})
