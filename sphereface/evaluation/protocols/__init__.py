"""The protocols: one module for each, registered under the kind of its sets."""

from __future__ import annotations

from collections.abc import Sequence

from ...data.walking import check_readable
from ...errors import UserError
from ...options import suggest
from ...places import Places, allowed_forms, check_set_name, check_set_names, parse_places
from ..images import Images
from .all_pairs import AllPairs, AllPairsSet
from .base import PROTOCOLS, EvaluationSet, Rule, register_protocol
from .groups import GroupSet
from .identification import Identification, IdentificationSet
from .ijb import IjbSet
from .ijb_result import Ijb
from .pairs import PairSet, load_pair_set
from .pairs_result import PairsResult
from .quality import Quality, QualitySet
from .templates import TemplateSet
from .tinyface import TinyFaceSet

__all__ = [
    "PROTOCOLS",
    "AllPairs",
    "AllPairsSet",
    "EvaluationSet",
    "GroupSet",
    "Identification",
    "IdentificationSet",
    "Ijb",
    "IjbSet",
    "Images",
    "PairSet",
    "PairsResult",
    "Quality",
    "QualitySet",
    "Rule",
    "TemplateSet",
    "TinyFaceSet",
    "allowed_forms",
    "load_pair_set",
    "load_set",
    "parse_sets",
    "register_protocol",
]


def load_set(name: str, places: Places, *, find_images: bool = True) -> EvaluationSet:
    """Read a set by the protocol that its kind names, or that recognises its form.

    Raises:
        UserError: the kind is unknown, or the protocol's ``load`` raises it.
    """
    for path in places.paths:
        check_readable(path, name)
    if places.kind is not None:
        if places.kind not in PROTOCOLS:
            raise UserError(f"{name}: got the kind {places.kind!r}{suggest(places.kind, PROTOCOLS)}")
        protocol = PROTOCOLS[places.kind]
    else:
        protocol = next(known for known in _in_order() if known.recognises(places.paths))
    return protocol.load(name, places.paths, find_images=find_images)


def parse_sets(given: Sequence[str], *, find_images: bool = True) -> list[EvaluationSet]:
    """Read the sets that ``--sets`` names, each as ``NAME=[KIND:]PLACE[,PLACE…]``.

    Raises:
        UserError: the text has another form, a name occurs twice, or :func:`load_set` raises it.
    """
    sets: dict[str, EvaluationSet] = {}
    for text in given:
        name, equals, places = text.partition("=")
        try:
            check_set_name(name)
            if not equals:
                raise UserError("no '=' after the name")
            where = parse_places(places)
            check_set_names([known for known in sets if known != name] + [name])
        except UserError as error:
            forms = "".join(f"\n  NAME={form}" for form in allowed_forms())
            raise UserError(f"--sets: got {text!r}: {error} · allowed (KIND: is optional):{forms}") from None
        if name in sets:
            raise UserError(f"--sets: got {name!r} twice · allowed: each name once, since it names a folder of results")
        sets[name] = load_set(name, where, find_images=find_images)
    return list(sets.values())


def _in_order() -> list[type[EvaluationSet]]:
    """Return all protocols; pairs, which recognises every form, is the last."""
    return sorted(PROTOCOLS.values(), key=lambda protocol: protocol is PairSet)
