"""What an embedding is worth: images to embeddings, embeddings to results, results to reports.

What needs PyTorch is imported when it is used: a table of embeddings is evaluated without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .calibration import calibration_path, fit_calibration, write_calibration
from .comparison import compare, format_comparison, write_comparison
from .embeddings import Embeddings
from .html_report import write_html
from .images import Images
from .lfw import Verification, verify, verify_view1
from .protocols import (
    EvaluationSet,
    PairSet,
    PairsResult,
    QualitySet,
    Rule,
    TemplateSet,
    allowed_forms,
    load_pair_set,
    load_set,
    parse_sets,
    register_protocol,
)
from .report import Report
from .result import Chart, Example, Examples, Result, Rows
from .run_set import evaluate_set
from .table import format_table
from .write import to_dict, write_report

if TYPE_CHECKING:
    from .embed import embed_files
    from .embedder import Embedder
    from .evaluate_network import evaluate

__all__ = [
    "Chart",
    "Embedder",
    "Embeddings",
    "EvaluationSet",
    "Example",
    "Examples",
    "Images",
    "PairSet",
    "PairsResult",
    "QualitySet",
    "Report",
    "Result",
    "Rows",
    "Rule",
    "TemplateSet",
    "Verification",
    "allowed_forms",
    "calibration_path",
    "compare",
    "embed_files",
    "evaluate",
    "evaluate_set",
    "fit_calibration",
    "format_comparison",
    "format_table",
    "load_pair_set",
    "load_set",
    "parse_sets",
    "register_protocol",
    "to_dict",
    "verify",
    "verify_view1",
    "write_calibration",
    "write_comparison",
    "write_html",
    "write_report",
]

_WITH_TORCH = {"Embedder": "embedder", "embed_files": "embed", "evaluate": "evaluate_network"}


def __getattr__(name: str) -> object:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_WITH_TORCH[name]}", __name__), name)
