"""The network that ships with this package: finds its checkpoint, beside which its calibration and
model card lie.
"""

from __future__ import annotations

from pathlib import Path

DEFAULT = "sphere10-small"
"""Its name, which commands and :class:`~sphereface.FaceEmbedder` take in place of a file."""

CHECKPOINT = Path(__file__).parent / f"{DEFAULT}.pt"
CARD = CHECKPOINT.with_name(f"{CHECKPOINT.name}.md")


def resolve(checkpoint: str | Path) -> Path:
    """Return the file that ``checkpoint`` names: the shipped one for :data:`DEFAULT`, else the path
    itself.

    A file or folder of that name in the current folder comes first.
    """
    path = Path(checkpoint)
    return CHECKPOINT if str(path) == DEFAULT and not path.exists() else path


def output_place(checkpoint: Path) -> Path:
    """Return the path whose folder takes the results of a checkpoint: its own, or for the shipped
    one a run folder.

    An installed package is no place for results, and is often read-only.
    """
    return Path("runs", DEFAULT, CHECKPOINT.name) if checkpoint == CHECKPOINT else checkpoint
