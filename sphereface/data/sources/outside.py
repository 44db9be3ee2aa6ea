"""Check a source from outside this package, which a plugin defines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from ...errors import UserError, shown
from ..identities import Labels
from .base import EACH_ALLOWED, Source, read_each, read_one

_COMPARED = 8  # images


def checked(path: Path, source: Source) -> Source:
    """Return the source itself if it keeps the rules of docs/extend.md.

    Raises:
        UserError: its labels and names do not agree, or ``read_each`` differs from ``read``.
    """
    labels, got = source.labels, ""
    if not isinstance(labels, Labels):
        got = f"labels of type {type(labels).__name__}"
    elif len(source) != len(labels):
        got = f"{len(source)} images with {len(labels)} labels"
    elif not (len(source.class_names) == len(labels.counts) and labels.counts.min(initial=1) > 0):
        got = f"{len(source.class_names)} names of identities, and labels with {np.count_nonzero(labels.counts)}"
    elif others := [name for name in source.class_names if type(name) is not str]:  # nor numpy's str_
        got = f"a name of type {type(others[0]).__name__} in class_names, {shown(str(others[0]))}"
    elif len(set(source.class_names)) < len(source.class_names):
        got = f"several identities named {shown(Counter(source.class_names).most_common(1)[0][0])}"
    elif missing := [
        key for key in ("named", "mapped") if not isinstance(getattr(source, key, None), (bool, np.bool_))
    ]:
        got = f"no {missing[0]} that is True or False"
    if got:
        raise UserError(
            f"{path}: its source, a plugin, has {got} · allowed: images in the order of their identities, one text for "
            "each identity, no two the same, labels = Labels.of_counts(images of each identity), and named and mapped, "
            "True or False · see docs/extend.md"
        )
    if got := _other_images(source):
        raise UserError(f"{path}: its source, a plugin, has a read_each that {got} · {EACH_ALLOWED}")
    return source


def _other_images(source: Source) -> str:
    """Return how ``read_each`` differs from ``read`` on a few images; "" if it does not.

    They are in no sorted order, such as that of a query, and one is there twice, as in a batch of
    two epochs.
    """
    if len(source) == 0 or not hasattr(source, "read_each"):
        return ""
    spread = np.unique(np.linspace(0, len(source) - 1, _COMPARED).astype(np.int64)).tolist()
    indices = [*spread[1::2], *spread[::2], spread[0]]
    for index, other in zip(indices, read_each(source, indices), strict=True):
        image = read_one(source, index)
        differs = isinstance(image, bytes) and not isinstance(other, OSError) and other != image
        if differs and read_one(source, index) == image:  # some sources encode each time, and differently
            return f"yields another image than read({index}) for the indices {indices}"
    return ""
