"""Protocols: what a set of images is worth evaluating for. One module each, registered under the
kind of the set.
"""

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
        UserError: an unknown kind, or what the protocol's ``load`` raises.
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
        UserError: another form, a name given twice, or what :func:`load_set` raises.
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
            raise UserError(f"--sets: got {text!r}: {error} · allowed (KIND: may be left out):{forms}") from None
        if name in sets:
            raise UserError(f"--sets: got {name!r} twice · allowed: each name once, since it names a folder of results")
        sets[name] = load_set(name, where, find_images=find_images)
    return list(sets.values())


def _in_order() -> list[type[EvaluationSet]]:
    """All protocols, those from outside the package first and pairs, which recognises every form,
    last.
    """
    return sorted(PROTOCOLS.values(), key=lambda protocol: protocol is PairSet)
