"""Verification sets during training: which are seen, and which of them may choose the best checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import nn

from ..config import Config
from ..data.pairs import is_lfw_view2
from ..errors import UserError
from ..evaluation.lfw import Verification, evaluate, load_pair_set

log = logging.getLogger(__name__)


class Validator:
    """Loads the sets of ``eval.sets`` once and evaluates a network on them.

    Raises:
        UserError: a set cannot be read, or ``eval.select`` names LFW's view 2, which only reports.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.sets = [
            load_pair_set(name, given.images, given.pairs, dev_train=given.dev_train)
            for name, given in config.pair_sets().items()
        ]
        for pair_set in self.sets:
            if pair_set.name == config.eval.select and is_lfw_view2(pair_set.pairs):
                raise UserError(
                    f"eval.select: got {pair_set.name!r}, which is LFW's view 2 · allowed: LFW's view 1 "
                    "(pairsDevTest.txt) or pairs of other people · view 2 reports, and a checkpoint chosen on it "
                    "would report too much"
                )

    def evaluate(self, model: nn.Module) -> Iterator[tuple[str, Verification]]:
        """(name, outcome) of each set. The network's mode and all random generators are left as they were."""
        for pair_set in self.sets:
            verification = evaluate(
                model,
                pair_set,
                input_size=self.config.model.input_size,  # type: ignore[arg-type]
                device=self.device,
                batch_size=self.config.eval.batch_size,
                precision=self.config.eval.precision,
            )
            yield pair_set.name, verification
