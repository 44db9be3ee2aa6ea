"""Verification sets during training: which are seen, and which of them may choose the best checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..data.images import Picture
from ..data.pairs import is_lfw_view2
from ..errors import UserError
from ..evaluation import EvaluationSet, PairSet, Result, evaluate, load_set
from ..evaluation.embed import check_files, embed_files
from ..evaluation.embeddings import Features
from ..models import Backbone
from ..places import Places
from .distributed import World
from .stopping import Interruption, StopRequest

_PROBES = 32


class Validator:
    """Loads the sets of ``eval.sets`` once and evaluates a network on them.

    Args:
        config: ``eval`` names the sets.
        device: where the network is.
        world: the processes among which the pictures are shared out.
        stop: a signal, of any process, ends an evaluation at once on all of them.

    Raises:
        UserError: a set cannot be read, or ``eval.select`` names LFW's view 2, which only reports.
    """

    def __init__(
        self, config: Config, device: torch.device, world: World | None = None, stop: StopRequest | None = None
    ) -> None:
        self.config, self.device = config, device
        self.world, self.stop = world or World(), stop or StopRequest()
        self.sets = [self._load(name, places) for name, places in config.evaluation_sets().items()]
        for each in self.sets:
            if each.name == config.eval.select and isinstance(each, PairSet) and is_lfw_view2(each.pairs):
                raise UserError(
                    f"eval.select: got {each.name!r}, which is LFW's view 2 · allowed: LFW's view 1 "
                    "(pairsDevTest.txt) or pairs of other people · view 2 reports, and a checkpoint chosen on it "
                    "would report too much"
                )

    def _load(self, name: str, places: Places) -> EvaluationSet:
        """Read a set, and a few of its images, so that a set that does not fit ends the run now and not in hours."""
        try:
            loaded = load_set(name, places)
            files = loaded.images.found()
            check_files(files[:: max(1, len(files) // _PROBES)], self.config.model.input_spec.size)
        except UserError as error:
            raise UserError(f"eval.sets.{name}: {error} · or train without it: --set eval.sets={{}}") from error
        return loaded

    def evaluate(self, model: Backbone) -> Iterator[tuple[str, Result]]:
        """Yield (name, result) of each set, the same on all processes. The network's mode is left as it was.

        Raises:
            Interruption: a signal came; nothing was changed.
        """
        for each in self.sets:
            result = evaluate(
                model,
                each,
                device=self.device,
                batch_size=self.config.eval.batch_size,
                precision=self.config.eval.precision,
                embed=self._embed,
            )
            yield each.name, result

    def _embed(self, model: Backbone, files: Sequence[Picture], **options: Any) -> Features:
        """:func:`embed_files`, each process its part of the files; all rows on all processes."""
        share = -(-len(files) // self.world.size)
        first = self.world.rank * share
        own = [files[index % len(files)] for index in range(first, first + share)]  # as many on each
        features: Features = np.empty((0, 0), dtype=np.float32)
        try:
            with self.stop.interruptible():
                features = embed_files(model, own, **options)
        except Interruption:
            pass  # the others have to hear of it first
        self.stop.settle(self.world.sums(*self.stop.requests()))
        if self.stop.agreed is not None:
            raise Interruption
        gathered = self.world.gather(torch.from_numpy(features).to(self.device))
        return gathered.cpu().numpy()[: len(files)]
