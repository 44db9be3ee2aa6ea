"""Evaluation sets: IJB, templates, groups, quality, TinyFace, folders of people, suites, lists of images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sphereface.evaluation import Embeddings, Rule
from sphereface.evaluation.ijb_files import read_detector_scores, read_image_list
from sphereface.evaluation.protocols import load_set
from sphereface.evaluation.suite import suite_sets
from sphereface.image_list import _read_list
from sphereface.places import Places

from ...evaluation.crops import write_set
from ..registry import register
from .lists import make_label_last
from .sources import make_bin


def _evaluate(kind: str | None, *places: Path) -> None:
    found = load_set("own", Places(kind, places), find_images=False)
    rows = np.random.default_rng(0).standard_normal((len(found.images), 6))
    result = found.evaluate(Embeddings(rows), Rule())
    result.rows()
    result.to_dict()


def make_ijb(folder: Path) -> None:
    """Four templates of two subjects, in IJB-C's files."""
    lines = [f"{k + 1}.jpg {10 + k // 2} {100 + k}" for k in range(8)]
    points = " ".join(f"{value}.5" for value in (30, 50, 65, 50, 48, 71, 33, 92, 62, 92))
    _lines(folder / "ijbc_face_tid_mid.txt", lines)
    _lines(folder / "ijbc_template_pair_label.txt", ["10 11 1", "12 13 1", "10 12 0", "11 13 0"])
    _lines(folder / "ijbc_name_5pts_score.txt", [f"{k + 1}.jpg {points} 0.9{k}" for k in range(8)])
    for name, templates in {"1N_gallery_G1": (10,), "1N_gallery_G2": (12,), "1N_probe_mixed": (11, 13)}.items():
        _lines(folder / f"ijbc_{name}.csv", ["TEMPLATE_ID,SUBJECT_ID", *(f"{t},{1 + (t > 11)}" for t in templates)])


def parse_ijb(folder: Path, path: Path) -> None:
    if path.name.endswith("5pts_score.txt"):
        read_detector_scores(path, read_image_list(folder / "ijbc_face_tid_mid.txt").images)
    _evaluate("ijb", folder)


def make_templates(folder: Path) -> None:
    _lines(folder / "list.txt", ["a.png t1 m1", "b.png t1 m1", "c.png t1 m2", "d.png t2", "e.png t2", "f.png 33 m1"])
    _lines(folder / "pairs.txt", ["t1 t2 1", "t2 33 0", "t1 33 0", "t1 t1 1"])
    _lines(folder / "numbers.txt", ["a.png 1 1", "b.png 1 2", "c.png 2 3", "d.png 3 4"])
    _lines(folder / "number-pairs.txt", ["1 2 1", "2 3 0"])


def parse_templates(folder: Path, path: Path) -> None:
    start = "number-" if path.name.startswith("number") else ""
    _evaluate("templates", folder, folder / ("numbers.txt" if start else "list.txt"), folder / f"{start}pairs.txt")


def make_groups(folder: Path) -> None:
    lines = []
    for group in "AB":
        for k in range(24):
            other = k if k % 2 else k + 1
            lines.append(f"{group}/p{k}/0.jpg {group}/p{other}/1.jpg {k % 2} {group} {k // 2 % 2 + 1}")
    _lines(folder / "list.txt", lines)


def make_rfw(folder: Path) -> None:
    for group in ("African", "Asian"):
        names = [f"m.{group[:2]}{k}" for k in range(40)]
        lines = [f"{name}\t1\t2" for name in names[:20]] + [
            f"{a}\t1\t{b}\t1" for a, b in zip(names[:20], names[20:], strict=True)
        ]
        (folder / "txts" / group).mkdir(parents=True)
        _lines(folder / "txts" / group / f"{group}_pairs.txt", lines)


def make_quality(folder: Path) -> None:
    make_label_last(folder)
    names = sorted({name for line in (folder / "pairs.txt").read_text().splitlines() for name in line.split()[:2]})
    _lines(folder / "quality.txt", [f"{name} {k}.5" for k, name in enumerate(names)])


def parse_quality(folder: Path, _path: Path) -> None:
    found = load_set(
        "own", Places("quality", (folder, folder / "pairs.txt", folder / "quality.txt")), find_images=False
    )
    assert found.quality is not None
    assert not np.isnan(found.quality).any()


def make_suite(folder: Path) -> None:
    make_bin(folder)
    (folder / "2.bin").rename(folder / "lfw.bin")
    (folder / "4.bin").rename(folder / "cfp_fp.bin")
    (folder / "numpy.bin").unlink()
    write_set(folder / "own", people=4, images=3, height=8, width=8)


def parse_suite(folder: Path, _path: Path) -> None:
    suite_sets(folder)


def make_image_list(folder: Path) -> None:
    for name in ("a.png", "b/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((4, 4, 3), np.uint8))
    _lines(folder / "list.txt", ["a.png", "b/c.png"])


def _lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


register("ijb", make_ijb, parse_ijb, reads="evaluation.ijb_files evaluation.ijb_subjects evaluation.columns")
register("templates", make_templates, parse_templates, reads="evaluation.templates evaluation.template_rows")
register(
    "groups", make_groups, lambda folder, path: _evaluate("groups", folder, path), reads="evaluation.protocols.groups"
)
register("rfw", make_rfw, lambda folder, _: _evaluate("groups", folder), reads="evaluation.protocols.groups")
register("quality", make_quality, parse_quality, files="quality.txt", reads="evaluation.protocols.quality")
register("suite", make_suite, parse_suite, files="**/*.[bt][ix][nt]", reads="evaluation.suite")
register("image-list", make_image_list, lambda _, path: _read_list(path), files="list.txt", reads="image_list")
