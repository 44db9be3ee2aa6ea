"""What an embedding is worth: pictures to features, features to accuracy, accuracy to reports."""

from .embed import embed_files
from .lfw import PairSet, Verification, evaluate, load_pair_set, verify, verify_view1
from .report import Report, format_table, roc_figure, write_report

__all__ = [
    "PairSet",
    "Report",
    "Verification",
    "embed_files",
    "evaluate",
    "format_table",
    "load_pair_set",
    "roc_figure",
    "verify",
    "verify_view1",
    "write_report",
]
