"""The registry of parsers: what makes valid inputs of one, and what reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Make = Callable[[Path], object]
Parse = Callable[[Path, Path], object]

PARSERS: dict[str, Parser] = {}


@dataclass(frozen=True)
class Parser:
    """One reader of files.

    Attributes:
        name: in reports and on the command line.
        reads: the modules of ``sphereface`` whose readers it calls, such as ``data.bins``.
        make: writes valid, small inputs into an empty folder.
        parse: reads them again. It gets the folder and the file that was mutated. It may check what it read with
            ``assert``, and may write below ``folder/output`` only.
        files: glob of the files in the folder that are mutated.
        output: the folder below which ``parse`` may write.
    """

    name: str
    reads: tuple[str, ...]
    make: Make
    parse: Parse
    files: str = "**/*"
    output: str = "out"

    def inputs(self, folder: Path) -> list[Path]:
        """Return the files that are mutated, sorted."""
        return sorted(path for path in folder.glob(self.files) if path.is_file())


def register(name: str, make: Make, parse: Parse, *, reads: str, files: str = "**/*", output: str = "out") -> None:
    """Add a parser; ``reads`` has its modules between spaces."""
    assert name not in PARSERS, name
    PARSERS[name] = Parser(name, tuple(reads.split()), make, parse, files, output)
