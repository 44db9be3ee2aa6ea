"""Lists of pairs in every form."""

from __future__ import annotations

from pathlib import Path

from sphereface.data.pairs import read_pairs

from ..registry import register

_NAMES = [f"P{person}/P{person}_{number:04d}.jpg" for person in range(4) for number in range(1, 4)]


def _pairs() -> list[tuple[str, str, int, int]]:
    """(left, right, same, fold from 1), twelve in two folds."""
    same = [(4 * 0 + a, a + 1, 1) for a in (0, 3, 6, 9, 1, 4)]
    other = [(a, (a + 3) % 12, 0) for a in (0, 3, 6, 9, 1, 4)]
    return [(_NAMES[a], _NAMES[b], kind, k % 2 + 1) for k, (a, b, kind) in enumerate(same + other)]


def make_view2(folder: Path) -> None:
    lines = ["2\t2"]
    for fold in (0, 1):
        lines += [f"P{person}\t1\t2" for person in (2 * fold, 2 * fold + 1)]
        lines += [f"P{2 * fold}\t{number}\tP{2 * fold + 1}\t{number}" for number in (1, 2)]
    _write(folder / "pairs.txt", lines)


def make_view1(folder: Path) -> None:
    _write(folder / "pairs.txt", ["2", "P0\t1\t2", "P1\t1\t2", "P0\t1\tP1\t1", "P0\t2\tP1\t2"])


def make_headless(folder: Path) -> None:
    _write(folder / "pairs.txt", ["P0 1 2", "P1 1 2", "P0 1 P1 1", "P0 2 P1 2"])


def make_label_last(folder: Path) -> None:
    _write(folder / "pairs.txt", [f"{left} {right} {same} {fold}" for left, right, same, fold in _pairs()])


def make_label_first(folder: Path) -> None:
    rows = [f"{same},{left},{right}" for left, right, same, _ in _pairs()]
    _write(folder / "pairs.csv", ["label,left,right", *rows])


def make_flags(folder: Path) -> None:
    rows = _pairs()
    lines = [f"{name} {same * fold}" for left, right, same, fold in rows for name in (left, right)]
    _write(folder / "pairs.txt", [line.replace("P", "A/P", 1) for line in lines])


def make_folders(folder: Path) -> None:
    _write(folder / "pairs.txt", [name for left, right, _, _ in _pairs() for name in (left, right)])


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse_pairs(_folder: Path, path: Path) -> None:
    pairs = read_pairs(path)
    assert min(pairs.left.min(), pairs.right.min()) >= 0
    assert max(pairs.left.max(), pairs.right.max()) < len(pairs.names)
    assert len(pairs.left) == len(pairs.right) == len(pairs.same) == len(pairs.fold)
    assert pairs.fold.min() >= (1 if pairs.num_folds else 0)
    assert pairs.fold.max() <= pairs.num_folds


for _form, _make in {
    "view2": make_view2,
    "view1": make_view1,
    "headless": make_headless,
    "label-last": make_label_last,
    "label-first": make_label_first,
    "flags": make_flags,
    "folders": make_folders,
}.items():
    register(f"pairs-{_form}", _make, parse_pairs, reads="data.pairs data.pair_lists data.pair_forms data.pair_lines")
