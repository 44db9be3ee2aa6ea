"""Evaluate verification sets during training, of which one may select the best checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..alignment.crop_template import CropTemplate
from ..alignment.kept_settings import note_on_template, settings_near
from ..alignment.near_reports import warn_of_unfinished
from ..checkpoint import BadCheckpoint, load_checkpoint, trained_people
from ..config import Config
from ..data.images import EncodedImage
from ..data.pairs import is_lfw_view2
from ..data.sources import Source, shared_image
from ..errors import UserError, shown
from ..evaluation import EvaluationSet, PairSet, Result, evaluate, load_set
from ..evaluation.embed import check_files, embed_files
from ..evaluation.embeddings import Features
from ..evaluation.set_digest import digest_of
from ..evaluation.shared_people import identities_of, shared_people
from ..models import Backbone
from ..places import Places
from ..weights import resolve
from .distributed import World
from .stopping import Interruption, StopRequest

log = logging.getLogger(__name__)

_PROBES = 32


class Validator:
    """Load the sets of ``eval.sets`` once, and evaluate a network on them.

    Args:
        config: ``eval`` names the sets.
        device: where the network is.
        world: the processes that share the images.
        stop: a signal to any process cancels an evaluation at once on all of them.

    Raises:
        UserError: a set cannot be read, or ``eval.select`` names LFW's view 2, which must not
            select.

    Attributes:
        doing: the progress of a running evaluation, in words; empty between evaluations.
        digests: of each set by its name, as :func:`~sphereface.evaluation.set_digest.digest_of`.
    """

    doing = ""
    _name = ""

    def __init__(
        self, config: Config, device: torch.device, world: World | None = None, stop: StopRequest | None = None
    ) -> None:
        self.config, self.device = config, device
        self.world, self.stop = world or World(), stop or StopRequest()
        self.sets = [self._load(name, places) for name, places in config.evaluation_sets().items()]
        warn_of_unfinished(each.images.root for each in self.sets if each.images.root.is_dir())
        self.digests = {each.name: digest_of(each) for each in self.sets}
        for each in self.sets:
            if each.name == config.eval.select and isinstance(each, PairSet) and is_lfw_view2(each.pairs):
                raise UserError(
                    f"eval.select: got {each.name!r}, which is LFW's view 2 · allowed: LFW's view 1 "
                    "(pairsDevTest.txt) or pairs of other people · view 2 is for reporting: the accuracy of a "
                    "checkpoint chosen on it would be too high"
                )

    def warn_of_templates(self, template: CropTemplate | None) -> None:
        """Warn of each set whose crops were aligned unlike those of the training set."""
        if template is None:
            return
        meta, size = {"template": template.to_meta()}, self.config.model.input_spec.size
        for each in self.sets:
            root = each.images.root
            with suppress(UserError):  # a damaged report
                settings = settings_near(root, warn=False) if root.is_dir() else ""
                if note := note_on_template(settings, root, meta, size, Path("data.train")):
                    log.warning("eval.sets.%s: %s", each.name, note.removeprefix("note: ").rstrip())

    def warn_of_shared_people(self, source: Source) -> None:
        """Warn of each set with people whose names or images are also in the training set.

        The people of the teacher, and of the network that the run starts from, count too.
        """
        known = self._more_people(source) if self.sets else {}
        for each in self.sets:
            for key, people in known.items():
                identities, where = identities_of({"more_people": people}), f"the training set of {key}"
                if text := shared_people(identities, each.images.names, where):
                    log.warning("eval.sets.%s: %s · evaluate other people", each.name, text)
            if text := shared_people(source, each.images.names, "data.train"):
                log.warning("eval.sets.%s: %s · leave them out: data.exclude_file", each.name, text)
            if person := shared_image(source, each.images.names, each.images.found()):
                sentence = "contains images of data.train, such as one of identity %s: its figures will be too good"
                remedy = "leave its people out by their names or numbers there: data.exclude_file, or make pairs of "
                remedy += "data.train"
                log.warning(f"eval.sets.%s: {sentence} · {remedy}", each.name, shown(person))

    def _more_people(self, source: Source) -> Mapping[str, list[str]]:
        """Return key of a checkpoint that training uses → its people who are not in ``source``."""
        train, found = self.config.train, dict[str, list[str]]()
        own = {name.rpartition("/")[2] for name in source.class_names}
        for key, given in {"init_from": train.init_from, "teacher.checkpoint": train.teacher.checkpoint}.items():
            with suppress(BadCheckpoint):  # it is refused where it is used; a resumed run does not read the first one
                meta = {} if given is None else load_checkpoint(resolve(given), mapped=True).get("meta", {})
                found[f"train.{key}"] = sorted({*trained_people(meta)} - own)
        return found

    def _load(self, name: str, places: Places) -> EvaluationSet:
        """Read a set and a few of its images, so that an unsuitable set ends the run now."""
        try:
            loaded = load_set(name, places)
            files = loaded.images.found()
            check_files(files[:: max(1, len(files) // _PROBES)], self.config.model.input_spec.size)
        except UserError as error:
            without = "--set eval.sets={} --set eval.select=null"
            raise UserError(f"eval.sets.{name}: {error} · or train without it: {without}") from error
        return loaded

    def evaluate(self, model: Backbone) -> Iterator[tuple[str, Result]]:
        """Yield (name, result) of each set, the same on all processes.

        The network's mode does not change.

        Raises:
            Interruption: a signal arrived; nothing was changed.
        """
        for each in self.sets:
            self._name = each.name
            size, precision = self.config.eval.batch_size, self.config.eval.precision
            result = evaluate(model, each, device=self.device, batch_size=size, precision=precision, embed=self._embed)
            self.doing = ""
            yield each.name, result

    @contextmanager
    def _counting(self, model: Backbone, images: int, flip: bool) -> Iterator[None]:
        """Keep :attr:`doing` up to date while ``images`` images go through the network."""
        done = 0

        def count(*call: Any) -> None:
            nonlocal done
            done += len(call[2]) // (2 if flip else 1)
            self.doing = f"evaluating {self._name}: {done:,} of {images:,} images"

        self.doing = f"evaluating {self._name}"
        hook = model.register_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()
            self.doing = f"evaluating {self._name}: comparing"

    def _embed(self, model: Backbone, files: Sequence[EncodedImage], **options: Any) -> Features:
        """Embed a part of the files as :func:`embed_files` does, and return the rows of all."""
        share = -(-len(files) // self.world.size)
        first = self.world.rank * share
        own = [files[index % len(files)] for index in range(first, first + share)]  # the same number on each
        features: Features = np.empty((0, 0), dtype=np.float32)
        try:
            with self.stop.interruptible(), self._counting(model, len(own), options.get("flip", True)):
                features = embed_files(model, own, **options)
        except Interruption:
            pass  # the other processes must know of it first
        self.stop.settle(self.world.all_reduce_sum(*self.stop.requests()))
        if self.stop.agreed is not None:
            raise Interruption
        gathered = self.world.gather(torch.from_numpy(features).to(self.device))
        return gathered.cpu().numpy()[: len(files)]
