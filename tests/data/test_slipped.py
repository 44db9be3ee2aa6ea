"""Labels that slipped by some lines against their images are a warning; valid lists are silent."""

from __future__ import annotations

import random

import pytest

from sphereface.data.sources.grouping import by_label


def sorted_list(sizes):
    return [(f"p{person:03}/{k}.jpg", person) for person, size in enumerate(sizes) for k in range(size)]


EQUAL = sorted_list([10] * 30)
UNEVEN = sorted_list([7, 3, 12, 5, 1, 30, 9, 2, 16] * 12)
PEOPLE = {"equal": EQUAL, "uneven": UNEVEN}


def warnings_of(rows, labels, caplog):
    caplog.clear()
    by_label([name for name, _ in rows], labels, "l.txt", "a label")
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("start", [0, 0.5, 0.8])
@pytest.mark.parametrize("lost", [-13, -5, -1, 1, 3, 8])
def test_lost_or_doubled_labels_are_told(caplog, people, texts, start, lost):
    """The labels below the row come from ``lost`` rows further down; above it they are right."""
    rows = PEOPLE[people]
    first = int(start * len(rows))
    labels = [person for _, person in rows]
    column = labels[:first] + (labels[first + lost :] if lost > 0 else labels[first : first - lost] + labels[first:])
    column = (column + [labels[-1]] * len(rows))[: len(rows)]
    assert sum(a != b for a, b in zip(column, labels, strict=True)) >= 5
    told = warnings_of(rows, [f"n{label:03}" for label in column] if texts else column, caplog)
    assert len(told) == 1
    shift = abs(lost) if people == "uneven" or abs(lost) < 10 else abs(lost) - 10  # of whole people nothing is seen
    lines = "1 line" if shift == 1 else f"{shift} lines"
    assert told[0].startswith(f"data: l.txt: the labels slipped by {lines} against the images from p")
    assert f"begin that much {'earlier' if lost > 0 else 'later'} than a folder" in told[0]
    where = told[0].partition("images from ")[2].partition(" on:")[0]
    assert abs([name for name, _ in rows].index(where) - first) <= 60


@pytest.mark.parametrize(
    "labels",
    [
        [person for _, person in EQUAL],
        [person // 2 for _, person in EQUAL],  # two folders for each person
        [person - (person > 14) for _, person in EQUAL],  # one person has two
        [row // 12 for row in range(len(EQUAL))],  # no relation to the folders
        [row // 5 for row in range(len(EQUAL))],  # two people in each folder
        [row // 5 if row < 20 else 2 + row // 10 for row in range(50)],  # only in the first two
        [0] * len(EQUAL),
        list(range(len(EQUAL))),
        [(row + row // 10 * 7 % 4) // 10 for row in range(len(EQUAL))],  # begin 0 to 3 rows earlier
    ],
)
def test_labels_that_did_not_slip_are_not_told(caplog, labels):
    assert not any("slipped" in line for line in warnings_of(EQUAL[: len(labels)], labels, caplog))


def test_images_without_folders_or_order_are_silent(caplog):
    flat = [(f"{row}.jpg", row // 10) for row in range(300)]
    assert not any("slipped" in line for line in warnings_of(flat, [label for _, label in flat], caplog))
    mixed = random.Random(1).sample(EQUAL, len(EQUAL))
    assert warnings_of(mixed, [label for _, label in mixed], caplog) == []
    assert warnings_of([], [], caplog) == []
