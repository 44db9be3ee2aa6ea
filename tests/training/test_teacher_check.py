"""A teacher whose rows are in another order than their names is a warning."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sphereface.data.identities import Labels
from sphereface.training.teacher_check import Table, warn_of_strangers

FACES = (Path(__file__).parents[2] / "../shared/faces").resolve()


def told(rows, labels, caplog) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        names = [f"p{number}" for number in range(int(np.max(labels)) + 1)]
        source = SimpleNamespace(labels=Labels.of(labels), class_names=names)
        warn_of_strangers(Table(rows, None, np.arange(len(rows))), source, "t.npz")
    return caplog.messages


def people(num: int, images: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(num), images)
    return rng.standard_normal((num, 16))[labels] + noise * rng.standard_normal((num * images, 16)), labels


@pytest.mark.parametrize(("num", "images"), [(20, 2), (300, 5)])
def test_rows_in_another_order_are_told(caplog, num, images):
    rows, labels = people(num, images, 0.5)
    assert told(rows, labels, caplog) == []
    (line,) = told(np.random.default_rng(1).permutation(rows), labels, caplog)
    head, _, rest = line.partition("AUC ")
    assert head == "train.teacher: t.npz: the embeddings hardly tell the identities of data.train apart: "
    assert float(rest.split()[0]) == pytest.approx(0.5, abs=0.25 if num == 20 else 0.12)
    assert f"over {200 if num == 300 else 40} pairs, from p" in rest


def test_the_figure_is_that_of_pairs_of_one_and_of_two_identities(caplog):
    """Against all pairs of a weak teacher, by a loop."""
    rows, labels = people(400, 3, 2.6)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines, same = unit @ unit.T, labels[:, None] == labels
    genuine, impostor = cosines[same & ~np.eye(len(rows), dtype=bool)], cosines[~same][:20_000]
    right = np.mean([(impostor < score).mean() for score in genuine])
    assert 0.6 < right < 0.74
    (line,) = told(rows, labels, caplog)
    assert float(line.partition("AUC ")[2].split()[0]) == pytest.approx(right, abs=0.04)


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (np.repeat(np.arange(19), 3), 57),  # too few identities
        (np.arange(100), 100),  # of one image each
        (np.zeros(100, np.int64), 100),  # no labels
    ],
)
def test_too_few_identities_are_not_judged(caplog, labels, rows):
    assert told(np.random.default_rng(0).standard_normal((rows, 8)), labels, caplog) == []


def test_images_without_embedding_are_left_out(caplog):
    rows, labels = people(60, 2, 0.3)
    rows[::6] = np.nan
    assert told(rows, labels, caplog) == []
    rows[:] = np.nan
    assert told(rows, labels, caplog) == []


def test_a_teacher_of_real_faces(caplog):
    """The supplied embeddings of 27,740 crops are silent; in another order they are not."""
    path = FACES / "teacher/train.npz"
    if not path.is_file():
        pytest.skip(f"the teacher of real faces is not in {path.parent}")
    with np.load(path) as file:
        names, rows = file["names"], file["embeddings"].astype(np.float32)
    order = np.argsort(names)
    labels = np.unique([str(name).split("/")[-2] for name in names[order]], return_inverse=True)[1]
    assert told(rows[order], labels, caplog) == []
    for share in (0.75, 0.9):  # slipped from there on
        begin = int(share * len(rows))
        (line,) = told(np.concatenate([rows[order][:begin], rows[order][begin - 1 : -1]]), labels, caplog)
        begins, ends = (int(text.split()[0]) for text in line.partition(", from p")[2].split(" to p"))
        assert begins >= labels[begin] - 270
        assert begins < ends <= 2116
    for wrong in (rows[order][::-1], np.roll(rows[order], 1, axis=0), np.roll(rows[order], 7, axis=0)):
        assert len(told(wrong, labels, caplog)) == 1
