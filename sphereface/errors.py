"""Errors that a user can cause, and how a program ends on them."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import reprlib
import select
import sys
import traceback
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Protocol

MOST_LISTED = 10
_MOST_SHOWN = 200  # characters of a value in a message
_BROKEN_PIPE = 141  # a shell's exit code for a program that SIGPIPE ended
_NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|insufficient memory|storage size calculation overflowed|bad alloc"
    r"|can't start new thread",
    re.I,
)
_LOST_WORKER = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)")  # torch's words
_VALUES = reprlib.Repr()
_VALUES.maxlevel = 3
_VALUES.maxlist = _VALUES.maxtuple = _VALUES.maxdict = _VALUES.maxset = MOST_LISTED
_VALUES.maxstring = _VALUES.maxother = _VALUES.maxlong = 120


class Main(Protocol):
    """The entry point of a program, which takes arguments and returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


class UserError(Exception):
    """An error that the user can correct: one line with value, allowed values and remedy.

    Programs print it without a traceback and exit with code 2 (see :func:`reports_user_errors`).
    """


class Stopped(Exception):
    """The work ended early on request, with everything saved.

    Args:
        message: one line: what was saved, and how to resume.
        exit_code: of the process; not 0, so that ``train && eval`` does not start the second.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ReportedElsewhere(Exception):
    """End of this process for a reason that another process reports.

    Args:
        exit_code: of the process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process reports the reason")
        self.exit_code = exit_code


class ConfigError(UserError):
    """All problems of one configuration, reported together.

    Args:
        source: of the configuration, as the user named it.
        problems: one line each: key, received value, allowed values.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        several = f"{len(problems)} problems:{listed(self.problems)}"
        super().__init__(f"{source}: {problems[0] if len(problems) == 1 else several}")


@contextlib.contextmanager
def refusing(what: str, advice: str = "") -> Iterator[None]:
    """Turn an OSError of a block into a :class:`UserError`: ``WHAT (reason) · ADVICE``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} ({error.strerror}){advice and f' · {advice}'}") from error


def listed(lines: Sequence[object]) -> str:
    """Return the first ten lines as a list, and the number of the others."""
    first = "".join(f"\n  - {printable(str(line))}" for line in lines[:MOST_LISTED])
    return first + (f"\n  … and {len(lines) - MOST_LISTED} more" if len(lines) > MOST_LISTED else "")


def count_of(number: int, one: str, several: str) -> str:
    """Return a number with the words for one or for several, such as ``1 pair is``."""
    return f"{number:,} {one if number == 1 else several}"


def shown(value: object) -> str:
    """Return a value for a message: its ``repr``, shortened where it is long or nested.

    A value from a file may contain itself. The result is one line of at most about 200 characters.
    """
    try:
        text = _VALUES.repr(value)
    except ValueError:  # of an integer with more digits than Python converts to text
        text = f"a value of type {type(value).__name__} that is too long to show"
    if "\n" in text:  # of an array
        text = " ".join(text.split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def shown_key(key: object) -> str:
    """Return a key for a message: a short printable text unchanged, others by :func:`shown`."""
    plain = isinstance(key, str) and 0 < len(key) <= _MOST_SHOWN and key.isprintable()
    return str(key) if plain else shown(key)


def printable(name: str) -> str:
    r"""Return a name as one printable line, with escapes such as ``\n`` and ``\udcxx``."""
    if name.isprintable():
        return name
    return "".join(repr(sign)[1:-1] if is_unprintable(sign) else sign for sign in name)


def printable_lines(text: str) -> str:
    """Apply :func:`printable` to each line of a text, which may quote control characters."""
    return "\n".join(map(printable, text.split("\n")))


def is_unprintable(sign: str) -> bool:
    """Return whether a sign is a control character, a line break, or a byte that is not UTF-8."""
    return unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")


def first_line(error: BaseException) -> str:
    """Return the first line of an error in printable characters, at most 160; its type if empty."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])[:160]


def reports_user_errors(main: Main) -> Main:
    """Make ``main(argv) -> exit code`` end with one line instead of a traceback.

    A :class:`UserError` returns 2, :class:`Stopped` its own code, Ctrl-C 130;
    :class:`ReportedElsewhere` prints nothing. Unhandled errors of the machine also return 2: no
    memory, a killed worker process, or a file that the system refuses. A reader that closes the
    pipe (``| head``) ends the program quietly, with 141.
    """

    @functools.wraps(main)
    def wrapper(argv: Sequence[str] | None = None) -> int:
        _replace_closed_streams()
        try:
            code = main(argv)
        except UserError as error:
            code = _report(str(error))
        except Stopped as stop:
            print(printable_lines(str(stop)), file=sys.stderr)
            code = stop.exit_code
        except ReportedElsewhere as reported:
            code = reported.exit_code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
        except Exception as error:
            line = _line_on_machine(error)
            if line is None:
                raise
            if isinstance(error, BrokenPipeError) and _output_is_closed():
                _drop_output()
                return _BROKEN_PIPE
            _forget_frames(error)
            return _flush_output() or _report(line)
        except SystemExit:  # of argparse, which printed its help
            if failed := _flush_output():
                return failed
            raise
        return _flush_output() or code

    return wrapper


def _replace_closed_streams() -> None:
    """Discard output of a closed stream (``>&-``); the next opened file would get its number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 -- until the end


def _report(line: str) -> int:
    print(f"error: {printable_lines(line)}", file=sys.stderr)
    return 2


def _forget_frames(error: Exception) -> None:
    """Free the objects of failed calls; half-built ones may fail at that, with a traceback."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        traceback.clear_frames(error.__traceback__)
    finally:
        sys.unraisablehook = hook


def _line_on_machine(error: Exception) -> str | None:
    """Return one line for an error of the machine: memory, a lost worker, a refused file; or None.

    torch, OpenCV and ONNX Runtime report missing memory in their own classes, so messages are
    matched. torch raises a worker's death at any line of the main process.
    """
    if _LOST_WORKER.search(str(error)):
        return (
            f"a worker process was killed, perhaps because memory ran out ({first_line(error)}) · finished files and "
            "checkpoints are complete · run the same command again, with fewer workers (data.workers, --workers) or "
            "more memory, for training with --resume auto"
        )
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM  # such as a process that could not start
    if isinstance(error, OSError) and not no_memory:
        if error.errno is None:
            return None
        place = f"{shown_key(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        return f"{place}{error.strerror} · check the path, its permissions, and the free space"
    if no_memory or isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return (
            f"out of memory ({first_line(error)}) · use smaller batches, smaller images or a smaller network, "
            "or a machine with more memory"
        )
    return None


def _flush_output() -> int:
    """Flush standard output; return 0, or 2 for a full disk, or 141 for a closed pipe."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return _BROKEN_PIPE
    except OSError as error:
        _drop_output()
        return _report(f"standard output: {error.strerror} · free some space, or write to another place")
    return 0


def _output_is_closed() -> bool:
    """Return whether standard output is a pipe without a reader, unlike a broken worker's pipe."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # not every system can poll
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return bool(poll.poll(0))
    return False


def _drop_output() -> None:
    """Discard what Python would flush at the exit: the flush would fail with a traceback."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
