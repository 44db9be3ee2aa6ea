"""What an embedding is worth: pictures to features, features to accuracy, accuracy to reports."""

from .calibration import calibration_path, fit_calibration, write_calibration
from .comparison import compare, format_comparison, write_comparison
from .embed import embed_files
from .embedder import Embedder
from .html_report import write_html
from .lfw import PairSet, Verification, evaluate, load_pair_set, verify, verify_view1
from .plain import to_dict
from .protocols import evaluate_set
from .report import Report
from .roc_plot import roc_figure
from .sets import parse_sets
from .table import format_table
from .write import write_report

__all__ = [
    "Embedder",
    "PairSet",
    "Report",
    "Verification",
    "calibration_path",
    "compare",
    "embed_files",
    "evaluate",
    "evaluate_set",
    "fit_calibration",
    "format_comparison",
    "format_table",
    "load_pair_set",
    "parse_sets",
    "roc_figure",
    "to_dict",
    "verify",
    "verify_view1",
    "write_calibration",
    "write_comparison",
    "write_html",
    "write_report",
]
