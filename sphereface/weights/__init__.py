"""Find the network that ships with this package.

Its calibration and its model card are beside its checkpoint.
"""

from __future__ import annotations

from pathlib import Path

DEFAULT = "sphere10-small"
"""Its name. Commands and :class:`~sphereface.FaceEmbedder` accept it in place of a file."""

CHECKPOINT = Path(__file__).parent / f"{DEFAULT}.pt"
CARD = CHECKPOINT.with_name(f"{CHECKPOINT.name}.md")


def resolve(checkpoint: str | Path) -> Path:
    """Return the shipped checkpoint for :data:`DEFAULT`, otherwise the path itself.

    A file or folder of that name in the current folder takes precedence.
    """
    path = Path(checkpoint)
    return CHECKPOINT if str(path) == DEFAULT and not path.exists() else path


def output_place(checkpoint: Path) -> Path:
    """Return a path whose folder is the place for results of a checkpoint.

    This is the checkpoint itself. For the shipped one it is a path in a run folder, since an
    installed package is often read-only.
    """
    return Path("runs", DEFAULT, CHECKPOINT.name) if checkpoint == CHECKPOINT else checkpoint
