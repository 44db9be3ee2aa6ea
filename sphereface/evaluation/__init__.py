"""Evaluate recognisers: compute embeddings of images, results of embeddings, reports of results.

Each name is imported at its first use. So the evaluation of a table needs no PyTorch, and the
comparison of two images needs no matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calibration import calibration_path as calibration_path
    from .calibration import fit_calibration as fit_calibration
    from .calibration import write_calibration as write_calibration
    from .comparison import compare as compare
    from .comparison import format_comparison as format_comparison
    from .comparison import write_comparison as write_comparison
    from .embed import embed_files as embed_files
    from .embedder import Embedder as Embedder
    from .embeddings import Embeddings as Embeddings
    from .evaluate_network import evaluate as evaluate
    from .html_report import write_html as write_html
    from .images import Images as Images
    from .lfw import Verification as Verification
    from .lfw import verify as verify
    from .lfw import verify_view1 as verify_view1
    from .protocols import EvaluationSet as EvaluationSet
    from .protocols import PairSet as PairSet
    from .protocols import PairsResult as PairsResult
    from .protocols import QualitySet as QualitySet
    from .protocols import Rule as Rule
    from .protocols import TemplateSet as TemplateSet
    from .protocols import allowed_forms as allowed_forms
    from .protocols import load_pair_set as load_pair_set
    from .protocols import load_set as load_set
    from .protocols import parse_sets as parse_sets
    from .protocols import register_protocol as register_protocol
    from .result import Chart as Chart
    from .result import Example as Example
    from .result import Examples as Examples
    from .result import Report as Report
    from .result import Result as Result
    from .result import Rows as Rows
    from .run_set import evaluate_set as evaluate_set
    from .table import format_table as format_table
    from .write import to_dict as to_dict
    from .write import write_report as write_report

_NAMES_OF = {
    "calibration": "calibration_path fit_calibration write_calibration",
    "comparison": "compare format_comparison write_comparison",
    "embed": "embed_files",
    "embedder": "Embedder",
    "embeddings": "Embeddings",
    "evaluate_network": "evaluate",
    "html_report": "write_html",
    "images": "Images",
    "lfw": "Verification verify verify_view1",
    "protocols": "EvaluationSet PairSet PairsResult QualitySet Rule TemplateSet allowed_forms load_pair_set load_set "
    "parse_sets register_protocol",
    "result": "Chart Example Examples Report Result Rows",
    "run_set": "evaluate_set",
    "table": "format_table",
    "write": "to_dict write_report",
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}
__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
