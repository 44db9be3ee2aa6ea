"""Margins: what each paper does to the N target cosines of a batch, and nothing else.

A margin is a frozen dataclass. Its fields are its keys in YAML (``loss: {name: a-softmax, m: 4}``)
with default and allowed range; its :meth:`Margin.target` is a pure function of N cosines, N norms
and λ that returns the N target logits with their derivatives. The engine in
:mod:`sphereface.losses.margin_softmax` does all the rest. To add a margin is to write one such
class in one of these files, and its oracle in
``tests/losses/oracles.py``: a margin without one fails the tests.

All of them fall, or stand still, with the angle, up to θ = π: where a formula of a paper would rise
again, it falls further, as ψ does (see :func:`falling_cosine`).

Importing this package does not import torch: a configuration can be checked without it.
"""

from . import adaptive, additive, binary, softmax  # noqa: F401 -- each enters its margins into MARGINS
from .base import MARGINS, Margin, Target, check_target, make_margin, register
from .multiplicative import multiple_angle

__all__ = ["MARGINS", "Margin", "Target", "check_target", "make_margin", "multiple_angle", "register"]
