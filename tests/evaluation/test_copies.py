"""An image and its copy under another name are one image, in every protocol that compares them."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch

from sphereface.evaluation.copies import warn_of_copies_in_pairs
from sphereface.evaluation.embedder import Embedder
from sphereface.evaluation.protocols import load_set
from sphereface.evaluation.run_set import evaluate_set
from sphereface.places import parse_places

from .checkpoints import write_checkpoint
from .crops import noise, random_pairs, write_image, write_set

ADVICE = " · images of equal bytes are one image · leave the copies out"


@pytest.fixture(params=["kept", None], ids=["cache", "no cache"])
def warnings(request, tmp_path, caplog, monkeypatch):
    """Evaluate a set, twice with a cache; return the warnings of the last time, without the folder."""
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    write_checkpoint(tmp_path / "best.pt")

    def of(places, *more):
        for _ in range(2 if request.param else 1):
            caplog.clear()
            cache = tmp_path / request.param if request.param else None
            embedder = Embedder.of_checkpoint(tmp_path / "best.pt", device=torch.device("cpu"), cache=cache)
            first, *others = (load_set("own", parse_places(place)) for place in (places, *more))
            evaluate_set(embedder, first, more=others)
        return [message.replace(f"{tmp_path}/", "") for message in caplog.messages if "cop" in message]

    return of


def copy(root, source, *to):
    for name in to:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((root / source).read_bytes())


def compared(root):
    """The pairs of the list, as files, with their label."""
    for line in (root / "pairs.txt").read_text().splitlines()[1:]:
        fields = line.split("\t")
        a, i, b, j = fields if len(fields) == 4 else (*fields[:2], fields[0], fields[2])
        yield f"{a}/{a}_{int(i):04d}.jpg", f"{b}/{b}_{int(j):04d}.jpg", len(fields) == 3


def test_a_list_of_pairs_as_a_loop_over_the_bytes_counts(warnings, tmp_path):
    root = write_set(tmp_path / "set")
    assert warnings(str(root)) == []
    copy(root, "P0/P0_0001.jpg", "P0/P0_0002.jpg", "P0/P0_0003.jpg", "P0/P0_0004.jpg")
    copy(root, "P1/P1_0004.jpg", "P2/P2_0004.jpg")
    itself, impostors, again, seen, names = 0, 0, 0, set(), set()
    for a, b, same in compared(root):
        key, name = frozenset((root / file).read_bytes() for file in (a, b)), frozenset((a, b))
        itself += len(key) == 1
        impostors += len(key) == 1 and not same
        again += key in seen and name not in names
        seen.add(key)
        names.add(name)
    assert itself > 1
    assert again > 1
    of_two = f", {impostors} of them as two people" if impostors else ""
    first, second = warnings(str(root))
    assert first == (
        f"set/pairs.txt: {itself} pairs compare an image with a copy of it, such as P0/P0_0001.jpg with "
        f"P0/P0_0002.jpg{of_two}{ADVICE}"
    )
    assert re.match(rf"set/pairs.txt: {again} of \d+ pairs repeat an earlier pair with copies of its images", second)


@pytest.mark.parametrize("numbers", [range(12), np.random.default_rng(4).permutation(40)[:12]])
def test_pairs_that_repeat_by_name_are_not_counted_again(caplog, monkeypatch, numbers):
    """check_labels counts them when the list is read."""
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    pairs, content = random_pairs(3, num_names=12), np.array([numbers[k] for k in (*range(10), 0, 1)])
    again, by_name, seen, names = 0, 0, set(), set()
    for a, b in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        key, name = frozenset((content[a], content[b])), frozenset((a, b))
        again += key in seen and name not in names
        by_name += name in names
        seen.add(key)
        names.add(name)
    assert min(again, by_name) > 0
    warn_of_copies_in_pairs(pairs, content)
    assert any(f": {again} of 48 pairs repeat" in line for line in caplog.messages)


def test_two_people_with_one_image(warnings, tmp_path):
    root = write_set(tmp_path / "set")
    a, b = next((a, b) for a, b, same in compared(root) if not same)
    copy(root, a, b)
    said = f"1 pair compares an image with a copy of it, such as {a} with {b}, 1 of them as two people{ADVICE}"
    assert f"set/pairs.txt: {said}" in warnings(str(root))


def test_probes_and_impostors_that_are_enrolled(warnings, tmp_path):
    for k, name in enumerate(["a/1", "a/2", "b/1", "b/2", "b/3", "c/1", "d/1"]):
        write_image(tmp_path / "people" / f"{name}.png", noise(k))
    copy(tmp_path / "people", "b/2.png", "b/3.png")  # two probes
    assert warnings("identification:" + str(tmp_path / "people")) == []
    copy(tmp_path / "people", "b/1.png", "b/3.png")
    copy(tmp_path / "people", "a/1.png", "d/1.png")
    (line,) = warnings("identification:" + str(tmp_path / "people"))
    assert line == f"people: 2 searched images have copies in the gallery, such as b/3.png of b/1.png{ADVICE}"


def test_all_pairs_of_a_folder(warnings, tmp_path):
    for k, name in enumerate(["a/1", "a/2", "a/3", "b/1", "b/2"]):
        write_image(tmp_path / "people" / f"{name}.png", noise(k))
    assert warnings("all-pairs:" + str(tmp_path / "people")) == []
    copy(tmp_path / "people", "a/1.png", "a/3.png")
    (line,) = warnings("all-pairs:" + str(tmp_path / "people"))
    assert line == f"people: 1 image is a copy of another of the same person, such as a/3.png of a/1.png{ADVICE}"


def test_quality_and_groups(warnings, tmp_path):
    root = write_set(tmp_path / "set")
    lists = {"one": range(4), "two": range(4, 8)}
    lines = [f"P{p}/P{p}_0001.jpg P{q}/P{q}_0002.jpg {int(p == q)} {group} {1 + p % 2}"
             for group, people in lists.items() for p in people for q in (p, people[(p + 1) % 4])]  # fmt: skip
    (tmp_path / "groups.txt").write_text("\n".join(lines))
    copy(root, "P6/P6_0001.jpg", "P6/P6_0002.jpg")
    (line,) = warnings(f"groups:{root},{tmp_path / 'groups.txt'}")
    said = "1 pair compares an image with a copy of it, such as P6/P6_0001.jpg with P6/P6_0002.jpg"
    assert line == f"groups.txt: {said}{ADVICE}"
    assert warnings(f"quality:{root},{root / 'pairs.txt'}")[0] == f"set/pairs.txt: {said}{ADVICE}"


def test_tinyface(warnings, tmp_path):
    names = ["Probe/1_1", "Probe/2_1", "Probe/9_1", "Gallery_Match/1_2", "Gallery_Match/2_2", "Gallery_Distractor/x"]
    for k, name in enumerate(names):
        write_image(tmp_path / "tiny" / f"{name}.png", noise(k))
    copy(tmp_path / "tiny", "Probe/9_1.png", "Gallery_Distractor/y.png")  # has no mate, so it is not searched
    assert warnings(str(tmp_path / "tiny")) == []
    copy(tmp_path / "tiny", "Probe/2_1.png", "Gallery_Match/2_3.png")
    copy(tmp_path / "tiny", "Gallery_Match/1_2.png", "Gallery_Distractor/z.png")
    assert warnings(str(tmp_path / "tiny")) == [
        f"tiny: 1 searched image has a copy in the gallery, such as Probe/2_1.png of Gallery_Match/2_3.png{ADVICE}",
        "tiny: 1 distractor has a copy in the gallery, such as Gallery_Distractor/z.png of Gallery_Match/1_2.png"
        + ADVICE,
    ]


def test_a_second_protocol_on_images_of_the_first(warnings, tmp_path):
    """Its rows are other rows of the images that are embedded once."""
    root = write_set(tmp_path / "set")
    write_image(root / "A" / "A_0001.jpg", noise(99))  # the last row of all images, the first of the folder
    copy(root, "P5/P5_0001.jpg", "P5/P5_0002.jpg")
    lines = warnings(str(root), "identification:" + str(root))
    assert f"set: 1 searched image has a copy in the gallery, such as P5/P5_0002.jpg of P5/P5_0001.jpg{ADVICE}" in lines
