"""The protocol for pairs of templates: several images of one person are compared as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...data.pairs import Pairs
from ...metrics.subjects import subjects_of
from ..embeddings import Embeddings
from ..images import Images
from ..labels import image_doubts
from ..lfw import verify
from ..templates import Templates, read_template_pairs, read_templates
from .base import EvaluationSet, Rule, refuse_places, register_protocol
from .pairs_result import PairsResult

log = logging.getLogger(__name__)


@register_protocol("templates")
@dataclass(frozen=True)
class TemplateSet(EvaluationSet):
    """Templates and pairs of them.

    Attributes:
        name: name of the set in reports.
        images: images of the list of templates, one for each line.
        templates: the template of each image.
        pairs: pairs of rows of ``templates.names``.
    """

    name: str
    images: Images
    templates: Templates
    pairs: Pairs

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> TemplateSet:
        """Read the list of templates and the list of pairs."""
        refuse_places(cls, name, places, 3, least=3)
        root, templates_list, pairs = places
        templates, images = read_templates(root, templates_list, find_images=find_images)
        found = read_template_pairs(pairs, templates)
        subjects = partial(subjects_of, len(found.names), found.left, found.right, found.same)
        for line in image_doubts(templates_list.name, images.names, templates.template, subjects):
            log.warning("%s", line)
        return cls(name, images, templates, found)

    @classmethod
    def recognises(cls, places: Sequence[Path]) -> bool:
        """Return whether there are three paths: a folder, a list of templates, a list of pairs."""
        return len(places) == 3

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> PairsResult:
        """Pool the embeddings of each template and verify the pairs; folds use the LFW protocol."""
        pooled = self.pooled(embeddings)
        outcome = verify(pooled.features(), self.pairs, subtract_mean=rule.subtract_mean)
        first = np.full(len(self.templates.names), len(self.templates.template))
        np.minimum.at(first, self.templates.template, np.arange(len(self.templates.template)))
        return PairsResult(
            outcome,
            self.pairs,
            pooled,
            subtract_mean=rule.subtract_mean,
            num_images=len(self.images),
            templates=self.templates.path,
            mirror=embeddings.mirrored,
            first_image=tuple(first.tolist()),
        )

    def pooled(self, embeddings: Embeddings) -> Embeddings:
        """Return one embedding for each template, from its images and their mirror images."""
        pooled = self.templates.pool(embeddings.features())
        if not embeddings.flip or embeddings.fusion == "add":
            return Embeddings(pooled, inside=embeddings.inside)
        image, mirror = np.split(pooled, 2, axis=1)
        return Embeddings(image, mirror)
