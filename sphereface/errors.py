"""The errors that a user can cause, and how a program ends on them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Protocol

_MOST_LISTED = 10


class Main(Protocol):
    """The entry point of a program: arguments in, exit code out."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


class UserError(Exception):
    """Something the user can mend: one line saying what was got, what is allowed and what to do.

    Programs print it without a traceback and leave with exit code 2 (see :func:`reports_user_errors`).
    """


class Stopped(Exception):
    """The work ended early on request, with everything saved.

    Args:
        message: one line: what was saved, and how to go on.
        exit_code: of the process, not 0, so that ``train && eval`` does not go on to the second.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ToldElsewhere(Exception):
    """One of several processes ends for a reason that another one tells.

    Args:
        exit_code: of the process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("told by another process")
        self.exit_code = exit_code


class ConfigError(UserError):
    """Every problem found in one configuration, reported together.

    Args:
        source: where the configuration came from, as the user named it.
        problems: one line each: key, value received, what is allowed.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            text = f"{source}: {self.problems[0]}"
        else:
            listed = "".join(f"\n  - {problem}" for problem in self.problems)
            text = f"{source}: {len(self.problems)} problems:{listed}"
        super().__init__(text)


def listed(lines: Sequence[object]) -> str:
    """The first ten, each on a line of its own after a dash, and how many more there are."""
    first = "".join(f"\n  - {line}" for line in lines[:_MOST_LISTED])
    return first + (f"\n  … and {len(lines) - _MOST_LISTED} more" if len(lines) > _MOST_LISTED else "")


def first_line(error: BaseException) -> str:
    """Return what an error says in one line of at most 160 characters: its first, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def reports_user_errors(main: Main) -> Main:
    """Make ``main(argv) -> exit code`` end on one line instead of a traceback.

    A :class:`UserError` returns 2, :class:`Stopped` its own code, Ctrl-C 130; :class:`ToldElsewhere` prints nothing.
    """

    @functools.wraps(main)
    def wrapper(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Stopped as stop:
            print(stop, file=sys.stderr)
            return stop.exit_code
        except ToldElsewhere as told:
            return told.exit_code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return wrapper
