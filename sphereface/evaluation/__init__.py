"""Evaluate recognisers: compute embeddings of images, results of embeddings, reports of results.

Each name is imported at its first use. So the evaluation of a table needs no PyTorch, and the
comparison of two images needs no matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calibration import calibration_path, fit_calibration, write_calibration
    from .comparison import compare, format_comparison, write_comparison
    from .embed import embed_files
    from .embedder import Embedder
    from .embeddings import Embeddings
    from .evaluate_network import evaluate
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

_NAMES_OF = {
    "calibration": (
        "calibration_path",
        "fit_calibration",
        "write_calibration",
    ),
    "comparison": (
        "compare",
        "format_comparison",
        "write_comparison",
    ),
    "embed": ("embed_files",),
    "embedder": ("Embedder",),
    "embeddings": ("Embeddings",),
    "evaluate_network": ("evaluate",),
    "html_report": ("write_html",),
    "images": ("Images",),
    "lfw": (
        "Verification",
        "verify",
        "verify_view1",
    ),
    "protocols": (
        "EvaluationSet",
        "PairSet",
        "PairsResult",
        "QualitySet",
        "Rule",
        "TemplateSet",
        "allowed_forms",
        "load_pair_set",
        "load_set",
        "parse_sets",
        "register_protocol",
    ),
    "report": ("Report",),
    "result": (
        "Chart",
        "Example",
        "Examples",
        "Result",
        "Rows",
    ),
    "run_set": ("evaluate_set",),
    "table": ("format_table",),
    "write": (
        "to_dict",
        "write_report",
    ),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
