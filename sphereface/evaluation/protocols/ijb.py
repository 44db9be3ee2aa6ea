"""The protocol of IJB-B and IJB-C: 1:1 verification of templates and 1:N identification."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import UserError, listed, printable
from ...metrics import FloatArray, IntArray
from ...metrics.identification import field_rank_rates, field_recall
from ...metrics.ijb import (
    IJB_FARS,
    SortedScores,
    auc_sorted,
    equal_error_rate_sorted,
    tar_at_far_sorted,
    tpr_at_nearest_fpr,
)
from ...metrics.subjects import REPLICATES, bootstrap_tar, subjects_of
from ..embeddings import Embeddings
from ..ijb_files import (
    IjbFiles,
    ImageList,
    TemplatePairs,
    find_ijb,
    read_detector_scores,
    read_image_list,
    read_template_pairs,
)
from ..ijb_subjects import SearchLists, read_template_subjects
from ..images import Images
from ..labels import list_doubts, repeated_pairs
from ..pair_products import pair_products
from ..pooling import Flip, Pooled, PoolMode, pool
from .base import EvaluationSet, Rule, register_protocol
from .ijb_result import FieldFigures, Ijb, thinned_curve
from .ijb_search import search_both, search_figures

log = logging.getLogger(__name__)

_NO_FIELD = "InsightFace's 1:N is not computed: a subject is in both galleries, or the subject of a probe is in neither"
_INSIDE: dict[str, Flip] = {"none": "none", "add": "add", "join": "join"}  # F by Embeddings.inside
_MODE = re.compile(r"[Nn][01][Dd][01][Ff][012]")


@register_protocol("ijb")
@dataclass(frozen=True)
class IjbSet(EvaluationSet):
    """IJB-B or IJB-C.

    Attributes:
        name: name of the set in reports.
        images: the images, in the order of ``*_face_tid_mid.txt``.
        files: its files.
        image_list: the template and the medium of each image.
        pairs: pairs of templates, as rows of the sorted templates.
        distinct: the pairs without repetitions. Only InsightFace's figures count repetitions.
        detector_score: (N,) float64; None without its file.
        searches: lists of 1:N identification; None without their files.
        modes: test modes that the user named; () for the default.
        left_out: a line for each missing list, with its consequence, and for each contradiction
            between lists.
    """

    name: str
    images: Images
    files: IjbFiles
    image_list: ImageList
    pairs: TemplatePairs
    distinct: TemplatePairs
    detector_score: FloatArray | None
    searches: SearchLists | None
    modes: tuple[PoolMode, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> IjbSet:
        """Read the lists of IJB-B or IJB-C.

        Args:
            name: name of the set in reports.
            places: the folder with the lists (or with their subfolder ``meta``), then optionally
                the folder of the aligned crops (default: the first folder), then optionally test
                modes. The report shows the first mode in full.
            find_images: search the crops on disk.

        Raises:
            UserError: a list is missing or malformed, or crops are missing.
        """
        directory, *others = places
        modes = tuple(PoolMode.parse(str(place)) for place in others if _MODE.fullmatch(str(place)))
        folders = [place for place in others if not _MODE.fullmatch(str(place))]
        if len(folders) > 1 or not (find_images or all(folder.is_dir() for folder in folders)):
            given = ", ".join(map(str, folders))
            got = f"{given}, which is neither a folder nor a test mode" if len(folders) == 1 else f"the folders {given}"
            raise UserError(f"{name}: got {got} · allowed: {cls.kind}:{cls.form}")
        files = find_ijb(directory, detector_scores=any(mode.detector_score for mode in modes))
        image_list = read_image_list(files.media)
        crops = folders[0] if folders else directory
        found = _find(crops, image_list.images, files.scores) if find_images else None
        lists = None
        if files.probes is not None:
            galleries = tuple(read_template_subjects(path, gallery=True) for path in files.galleries)
            lists = SearchLists(galleries, read_template_subjects(files.probes))
        pairs = read_template_pairs(files.pairs, image_list.templates)
        distinct = _distinct(pairs, len(image_list.templates))
        known = _known(image_list.templates, lists)
        doubts = list_doubts(image_list, pairs, known, (files.media, files.pairs))
        if again := len(pairs.same) - len(distinct.same):
            doubts.append(
                f"{files.pairs.name}: {again:,} of {len(pairs.same):,} pairs repeat an earlier pair; only "
                "InsightFace's figures count them again"
            )
        left_out = (*_left_out(files.missing), *doubts)
        for line in left_out:  # before the embedding, which can take hours
            log.warning("ijb: %s", line)
        score = None if files.scores is None else read_detector_scores(files.scores, image_list.images)
        images = Images(crops, image_list.images, found)
        return cls(name, images, files, image_list, pairs, distinct, score, lists, modes, left_out)

    @classmethod
    def recognises(cls, places: Sequence[Path]) -> bool:
        """Return whether the folder holds the list of images of IJB-B or IJB-C."""
        folders = (places[0], places[0] / "meta")
        return any(folder.is_dir() and any(folder.glob("*_face_tid_mid.txt")) for folder in folders)

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> Ijb:  # noqa: ARG002 - IJB subtracts no mean
        """Pool the templates by each mode, verify the pairs, and search the probes."""
        modes = self.modes or (self._default_mode(embeddings),)
        first = self._pool(embeddings, modes[0])
        known, every = _known(first.ids, self.searches), self.pairs
        subject = subjects_of(len(first.ids), every.left, every.right, every.same, known).astype(np.int32)
        pairs = self.distinct
        scores = pair_products(first.templates, pairs.left, pairs.right)
        intervals = bootstrap_tar(scores, pairs.same, subject[pairs.left], subject[pairs.right], replicates=REPLICATES)
        ordered = SortedScores.of(scores, pairs.same)
        del scores  # 125 MB on IJB-C
        fields = [self._field_figures(modes[0], first, ordered if pairs is self.pairs else self._all_scores(first))]
        for mode in modes[1:]:
            pooled = self._pool(embeddings, mode)
            fields.append(self._field_figures(mode, pooled, self._all_scores(pooled)))
        return Ijb(
            benchmark=self.files.name,
            pairs=self.files.pairs,
            num_images=len(self.images),
            num_templates=len(first.ids),
            num_subjects=int(subject.max()) + 1,
            num_genuine=len(ordered.genuine),
            num_impostor=len(ordered.impostor),
            num_undefined_templates=int(np.isnan(first.templates).any(axis=1).sum()),
            mode=modes[0].name,
            points=tar_at_far_sorted(ordered, IJB_FARS),
            intervals=intervals,
            auc=auc_sorted(ordered),
            eer=equal_error_rate_sorted(ordered),
            search=None if self.searches is None else search_figures(first, self.searches),
            field=tuple(fields),
            curve=thinned_curve(ordered),
            left_out=self.left_out if fields[0].top or self.searches is None else (*self.left_out, _NO_FIELD),
        )

    def _all_scores(self, pooled: Pooled) -> SortedScores:
        return SortedScores.of(pair_products(pooled.templates, self.pairs.left, self.pairs.right), self.pairs.same)

    def _field_figures(self, mode: PoolMode, pooled: Pooled, scores: SortedScores) -> FieldFigures:
        found = None if self.searches is None else search_both(pooled, self.searches)
        top, recall = (None, None) if found is None else (tuple(field_rank_rates(found).tolist()), field_recall(found))
        return FieldFigures(mode.name, tuple(tpr_at_nearest_fpr(scores).tolist()), top, recall)

    def _default_mode(self, embeddings: Embeddings) -> PoolMode:
        """Return InsightFace's default, N1D1F2; D0 without detector scores, F0 without mirrors.

        A network that embeds the mirror image itself decides F.
        """
        flip: Flip = "add" if embeddings.flip else _INSIDE[embeddings.inside]
        return PoolMode(normalise=False, detector_score=self.detector_score is not None, flip=flip)

    def _pool(self, embeddings: Embeddings, mode: PoolMode) -> Pooled:
        inside = _INSIDE[embeddings.inside]
        if inside != "none" and mode.flip != inside:
            only = replace(mode, flip=inside).name
            raise UserError(
                f"{self.name}: test mode {mode.name}: got a network that embeds the mirror image itself · allowed: "
                f"F{only[-1]}, such as {only}"
            )
        if inside == "none" and mode.flip != "none" and not embeddings.flip:
            raise UserError(
                f"{self.name}: test mode {mode.name} needs the embeddings of mirror images, which are missing · "
                f"allowed: F0, such as {mode.name[:-1]}0"
            )
        template, media, score = self.image_list.template, self.image_list.media, self.detector_score
        if inside != "none":  # the embedding of the image holds both already
            mode = replace(mode, flip="none")
        return pool(embeddings.image, embeddings.mirror, template, media, mode=mode, detector_score=score)


def _distinct(pairs: TemplatePairs, num_templates: int) -> TemplatePairs:
    """Return the pairs without repetitions; the same object if there are no repetitions."""
    kept = ~repeated_pairs(pairs.left, pairs.right, num_templates)
    return pairs if kept.all() else TemplatePairs(pairs.left[kept], pairs.right[kept], pairs.same[kept])


def _known(templates: IntArray, lists: SearchLists | None) -> IntArray:
    """Return (T,) the subject of each template by the lists of 1:N search; −1 if unknown."""
    return np.full(len(templates), -1, dtype=np.int64) if lists is None else lists.subjects(templates)


def _left_out(missing: Sequence[str]) -> list[str]:
    """Return a line for each missing list, with its consequence."""
    scores, search = ([form for form in missing if ("score" in form) == kind] for kind in (True, False))
    lines = [f"detector scores are not used: there is no {form}" for form in scores]
    return lines + ([f"1:N search is not computed: there is no {' and no '.join(search)}"] if search else [])


def _find(crops: Path, names: Sequence[str], scores: Path | None) -> tuple[Path, ...]:
    files = tuple(crops / name for name in names)
    missing = [printable(name) for name, file in zip(names, files, strict=True) if not os.path.isfile(file)]  # noqa: PTH113 -- never raises
    if missing:
        made = f"sphereface align --landmarks {scores or '…'} IMAGES CROPS"
        raise UserError(
            f"{crops}: {len(missing)} of the {len(names)} crops are missing · make them: {made}, then use ijb:DIR,CROPS"
            f"{listed(missing)}"
        )
    return files
