"""The protocols: one module for each, registered under the kind of its sets."""

from __future__ import annotations

from collections.abc import Sequence

from ...data.walking import check_readable
from ...errors import UserError
from ...options import suggest
from ...places import Places, check_set_name, check_set_names, parse_places
from ...places import allowed_forms as allowed_forms
from . import all_pairs, groups, identification, ijb, pairs, quality, templates, tinyface  # noqa: F401 - registers
from .base import PROTOCOLS as PROTOCOLS
from .base import EvaluationSet as EvaluationSet
from .base import Rule as Rule
from .base import register_protocol as register_protocol
from .pairs import PairSet as PairSet
from .pairs import load_pair_set as load_pair_set
from .pairs_result import PairsResult as PairsResult
from .quality import QualitySet as QualitySet
from .templates import TemplateSet as TemplateSet


def load_set(name: str, places: Places, *, find_images: bool = True) -> EvaluationSet:
    """Read a set by the protocol that its kind names, or that recognises its form.

    Raises:
        UserError: the kind is unknown, or the protocol's ``load`` raises it.
    """
    for path in places.paths:
        check_readable(path, name)
    if places.kind is None:
        in_order = sorted(PROTOCOLS.values(), key=lambda known: known is PairSet)  # it recognises every form
        protocol = next(known for known in in_order if known.recognises(places.paths))
    elif places.kind in PROTOCOLS:
        protocol = PROTOCOLS[places.kind]
    else:
        raise UserError(f"{name}: got the kind {places.kind!r}{suggest(places.kind, PROTOCOLS)}")
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
