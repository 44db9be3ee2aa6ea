"""Search the galleries of IJB-B and IJB-C."""

from __future__ import annotations

import numpy as np

from ...metrics.identification import FPIRS, bootstrap_searches, num_impostors_of_field, open_set, rank_rates
from ...metrics.searches import Searches, mates, search
from ...metrics.subjects import REPLICATES
from ..ijb_subjects import SearchLists
from ..pooling import Pooled
from ..template_rows import rows_of
from .ijb_result import GalleryFigures, SearchFigures


def search_both(pooled: Pooled, lists: SearchLists) -> Searches | None:
    """Search both galleries as one, as InsightFace does.

    Returns:
        The searches; None if a subject is in both galleries, or a probe's subject in neither.
    """
    rows = [
        rows_of(pooled.ids, gallery.template, path)
        for gallery, path in zip(lists.galleries, lists.paths[:-1], strict=True)
    ]
    subjects = np.concatenate([gallery.subject for gallery in lists.galleries])
    if len(np.unique(subjects)) < len(subjects) or not np.isin(lists.probes.subject, subjects).all():
        return None
    probes = rows_of(pooled.ids, lists.probes.template, lists.paths[-1])
    most = num_impostors_of_field(len(probes), max(FPIRS))
    return search(
        pooled.templates[probes],
        pooled.templates[np.concatenate(rows)],
        mates(lists.probes.subject, subjects),
        num_impostors=most,
    )


def search_figures(pooled: Pooled, lists: SearchLists) -> SearchFigures:
    """Search each gallery separately; the probes of the other gallery's subjects are non-mated."""
    probes = pooled.templates[rows_of(pooled.ids, lists.probes.template, lists.paths[-1])]
    found = [
        search(
            probes,
            pooled.templates[rows_of(pooled.ids, gallery.template, path)],
            mates(lists.probes.subject, gallery.subject),
        )
        for gallery, path in zip(lists.galleries, lists.paths[:-1], strict=True)
    ]
    intervals, of_mean = bootstrap_searches(found, lists.probes.subject, replicates=REPLICATES)
    galleries = tuple(
        GalleryFigures(
            name=path.stem.rpartition("_")[2],
            num_enrolled=len(gallery.template),
            num_mated=int(searches.is_mated.sum()),
            num_nonmated=int((~searches.is_mated).sum()),
            ranks=tuple(rank_rates(searches).tolist()),
            points=open_set(searches),
            intervals=own,
        )
        for path, gallery, searches, own in zip(lists.paths[:-1], lists.galleries, found, intervals, strict=True)
    )
    return SearchFigures(galleries, of_mean)
