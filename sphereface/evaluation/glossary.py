"""Define the terms of face recognition that reports use, in plain words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

GLOSSARY: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": (
            "The share of all pairs that the recogniser decides correctly. Where half of the pairs are of one person,"
            " guessing reaches 50 %."
        ),
        "AFS": (
            "How much the images of one person differ, compared with how much people differ: lower is better. AFS"
            " is short for angular Fisher score."
        ),
        "AUC": (
            "The chance that a pair of one person gets a higher score than a pair of two people: 1 is perfect, 0.5 is"
            " guessing. AUC is short for area under the (ROC) curve."
        ),
        "bootstrap": (
            "A way to find a confidence interval. The figure is computed again for many random draws of the data."
        ),
        "confidence interval": (
            "The range that probably holds the true value of a figure. About 19 of 20 ranges of 95 % do."
        ),
        "cosine": (
            "The similarity of two embeddings, from −1 to 1: the higher, the more alike the faces. It is the cosine of"
            " the angle between the two."
        ),
        "d′": (
            "The distance between the mean score of pairs of one person and that of pairs of two people, in standard"
            " deviations: higher is better. The name is read d prime."
        ),
        "DIR": (
            "Detection and identification rate: the share of searches that find the right person at rank 1 with a score"
            " above the threshold. Higher is better."
        ),
        "EER": (
            "The error rate at the threshold where both kinds of mistakes are equally frequent: lower is better. EER"
            " is short for equal error rate."
        ),
        "embedding": (
            "The list of numbers that the network computes from an image of a face. Images of one person should have"
            " similar embeddings."
        ),
        "FAR": (
            "False accept rate: the share of pairs of two people that are accepted by mistake, lower is better. A rate"
            " of 1e-3 is 1 in 1,000."
        ),
        "FNIR": (
            "False negative identification rate: how often a person in the gallery is not found, lower is better. The"
            " person must be the most similar one, with a score above the threshold."
        ),
        "fold": (
            "One of the parts, usually ten, that a list of pairs is divided into. Each part is tested with a threshold"
            " chosen on the others, so no pair helps to choose its own threshold."
        ),
        "FPIR": (
            "False positive identification rate: how often the search for a person who is not in the gallery returns"
            " somebody. Lower is better."
        ),
        "gallery": "The images of people that the recogniser searches. Each image has a name.",
        "genuine pair": "Two images of one person. The recogniser should accept it.",
        "identity": "One person in the data, with all images of this person.",
        "impostor": "A person whom the recogniser should reject, because the other image shows somebody else.",
        "impostor pair": "Two images of two different people. The recogniser should reject it.",
        "probe": "An image of a person whom the recogniser searches for in the gallery.",
        "rank k": (
            "The share of searches in which the right person is among the k most similar people. At rank 1 the most"
            " similar one is the right one."
        ),
        "ROC": (
            "The curve that shows what share of the pairs of one person is accepted (TAR) when a given share of the"
            " pairs of two people is accepted by mistake (FAR). ROC is short for receiver operating characteristic."
        ),
        "standard error": (
            "The uncertainty of a mean. With other data of the same kind, the mean typically moves by about this much."
        ),
        "TAR": (
            "True accept rate: the share of pairs of one person that are accepted, higher is better. It is given for a"
            " stated FAR, because a lower threshold raises both."
        ),
        "threshold": (
            "The score above which the recogniser decides that two images show one person. A higher threshold makes"
            " fewer mistakes with two people, but misses more pairs of one person."
        ),
        "view 1 and view 2": (
            "Two lists of pairs. View 1 is for the choice between models, view 2 only for the final result."
        ),
    }
)
"""Term → one or two sentences. Reports show the first sentence alone beside a figure."""

_PATTERNS = {
    "accuracy": "[Aa]ccurac(?:y|ies)",
    "AFS": "AFS|[Aa]ngular Fisher score",
    "AUC": "AUC|[Aa]rea under the (?:ROC )?curve",
    "bootstrap": "[Bb]ootstrap",
    "confidence interval": "(?:[Cc]onfidence|95 %) intervals?",
    "d′": "d′",
    "DIR": "DIR|[Dd]etection and identification rates?",
    "EER": "EER|[Ee]qual error rate",
    "FAR": "FAR|[Ff]alse accept rates?",
    "FNIR": "FNIR|[Ff]alse negative identification rates?",
    "FPIR": "FPIR|[Ff]alse positive identification rates?",
    "gallery": "[Gg]aller(?:y|ies)",
    "genuine pair": "[Gg]enuine(?: pairs?)?",
    "identity": "[Ii]dentit(?:y|ies)",
    "impostor": "[Ii]mpostors?(?! pair)",
    "rank k": r"[Rr]ank[- ](?:k|\d+)",
    "ROC": "ROC",
    "TAR": "TAR|[Tt]rue accept rates?",
    "view 1 and view 2": "[Vv]iew [12]",
}


def _pattern(term: str) -> str:
    plain = f"[{term[0].upper()}{term[0].lower()}]{re.escape(term[1:])}"
    return _PATTERNS.get(term) or (f"{plain}(?:es)?" if term.endswith("s") else f"{plain}s?")


_TERMS = {f"t{number}": term for number, term in enumerate(GLOSSARY)}
_ANY = re.compile(r"(?<!\w)(?:" + "|".join(f"(?P<{key}>{_pattern(term)})" for key, term in _TERMS.items()) + r")(?!\w)")


def find_terms(text: str) -> list[tuple[int, int, str]]:
    """Return the positions of terms of :data:`GLOSSARY` in a text: (start, end, term), in order.

    It finds the terms in all their forms, such as plurals.
    """
    return [(match.start(), match.end(), _TERMS[match.lastgroup or ""]) for match in _ANY.finditer(text)]


def short_definition(name: str) -> str:
    """Return the first sentence about the term ``name``, such as ``AUC`` or ``rank 5``; else ""."""
    found = find_terms(name)
    if len(found) != 1 or found[0][:2] != (0, len(name)):
        return ""
    sentence = GLOSSARY[found[0][2]].partition(". ")[0]
    return f"{sentence.rstrip('.')}."


def anchor(term: str) -> str:
    """Return the id of a term in a page: ``FAR`` → ``term-far``."""
    return "term-" + re.sub(r"[^a-z0-9]+", "-", term.lower().replace("′", "-prime")).strip("-")
