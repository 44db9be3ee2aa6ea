"""Search the galleries of IJB-B and IJB-C."""

from __future__ import annotations

import numpy as np

from ...metrics.identification import FPIRS, bootstrap_searches, num_impostors_of_field, open_set, rank_rates
from ...metrics.searches import Searches, mates, search
from ...metrics.subjects import REPLICATES
from ..ijb_subjects import SearchLists
from ..pooling import Pooled
from .ijb_result import GalleryFigures, SearchFigures


def search_both(pooled: Pooled, lists: SearchLists) -> Searches | None:
    """Search both galleries as one, as InsightFace does.

    Returns:
        The searches; None if a subject is in both galleries, or a probe's subject in neither.
    """
    subjects = np.concatenate([gallery.subject for gallery in lists.galleries])
    if len(np.unique(subjects)) < len(subjects) or not np.isin(lists.probes.subject, subjects).all():
        return None
    rows = np.concatenate([gallery.rows(pooled.ids) for gallery in lists.galleries])
    probes = pooled.templates[lists.probes.rows(pooled.ids)]
    most = num_impostors_of_field(len(probes), max(FPIRS))
    return search(probes, pooled.templates[rows], mates(lists.probes.subject, subjects), num_impostors=most)


def search_figures(pooled: Pooled, lists: SearchLists) -> SearchFigures:
    """Search each gallery separately; the probes of the other gallery's subjects are non-mated."""
    probes = pooled.templates[lists.probes.rows(pooled.ids)]
    found = [
        search(probes, pooled.templates[gallery.rows(pooled.ids)], mates(lists.probes.subject, gallery.subject))
        for gallery in lists.galleries
    ]
    intervals, of_mean = bootstrap_searches(found, lists.probes.subject, replicates=REPLICATES)
    galleries = tuple(
        GalleryFigures(
            name=gallery.path.stem.rpartition("_")[2],
            num_enrolled=len(gallery.template),
            num_mated=int(searches.is_mated.sum()),
            num_nonmated=int((~searches.is_mated).sum()),
            ranks=tuple(rank_rates(searches).tolist()),
            points=open_set(searches),
            intervals=own,
        )
        for gallery, searches, own in zip(lists.galleries, found, intervals, strict=True)
    )
    return SearchFigures(galleries, of_mean)
