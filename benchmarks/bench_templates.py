"""Measure IJB-C's 1:1 verification from embeddings to TPR, beside InsightFace's ``eval_ijbc.py``.

    # IJB-C's size, about five minutes and 2 GB of disk
    python benchmarks/bench_templates.py
    # three turns, medians
    python benchmarks/bench_templates.py --rounds 3
    python benchmarks/bench_templates.py --images 5000 --templates 700 --pairs 20000
    python benchmarks/bench_templates.py --json out.json

The benchmark writes text files of IJB's form and random embeddings, with a seed, to a temporary
folder. IJB-C compares 3,531 enrolled templates with 19,593 others.

``sphereface`` is this project. ``field`` restates the functions of InsightFace: pandas (numpy
without it), a loop over templates, products of 100,000 pairs at a time, scikit-learn's
``roc_curve``. Both use the test mode N1D1F0. They take turns, each in a separate process, which
reports its seconds and its peak memory. At IJB-C's size the embeddings are 961 MB of that.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("sphereface", "field")
GENERATE = "generate"
FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
PARTS = ("read lists", "read pairs", "pool", "products", "TPR")
"""The parts that both programs have."""
MEDIA, PAIRS, SCORES = "ijbc_face_tid_mid.txt", "ijbc_template_pair_label.txt", "ijbc_name_5pts_score.txt"


@dataclass(frozen=True)
class Size:
    """The size of the comparison; the defaults are IJB-C's."""

    images: int = 469_375
    templates: int = 23_124
    pairs: int = 15_658_489
    dim: int = 512

    @property
    def enrolled(self) -> int:
        """Return the templates on the left of the pairs, each of a different subject."""
        return max(2, round(self.templates * 3531 / 23_124))


def generate(folder: Path, size: Size) -> None:
    """Write the files of a benchmark of this size."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(size.templates) + 1  # enrolled templates, then the others
    subject = np.append(np.arange(size.enrolled), rng.integers(0, size.enrolled, size.templates - size.enrolled))
    row = np.sort(np.append(np.arange(size.templates), rng.integers(0, size.templates, size.images - size.templates)))
    row = row[np.argsort(ids[row], kind="stable")]  # the list is in the order of templates
    media = rng.integers(0, 8, size.images) + 10 * ids[row]
    score = rng.uniform(0.5, 1, size.images).round(6)
    names = [f"{number}.jpg" for number in range(1, size.images + 1)]
    _write(folder / MEDIA, "%s %d %d", names, ids[row], media)
    _write(folder / SCORES, "%s 38.1 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2 %s", names, score)
    left, right = _pairs(rng, size, subject)
    _write(folder / PAIRS, "%d %d %d", ids[left], ids[right], subject[left] == subject[right])
    centres = rng.standard_normal((size.enrolled, size.dim), dtype=np.float32)
    features = np.lib.format.open_memmap(
        folder / "features.npy", mode="w+", dtype=np.float32, shape=(size.images, size.dim)
    )
    for start in range(0, size.images, 2**14):
        block = slice(start, start + 2**14)
        noise = rng.standard_normal((len(row[block]), size.dim), dtype=np.float32)
        features[block] = 0.35 * centres[subject[row[block]]] + 2 * noise
    features.flush()


def _pairs(rng: np.random.Generator, size: Size, subject: Any) -> tuple[Any, Any]:
    """Return rows of ``size.pairs`` different pairs of an enrolled template and another.

    All genuine pairs are among them.
    """
    others = size.templates - size.enrolled
    genuine = subject[size.enrolled :] * others + np.arange(others)
    share = min(1.0, 1.05 * size.pairs / (size.enrolled * others))
    cells = [
        start + np.flatnonzero(rng.random(min(2**24, size.enrolled * others - start), dtype=np.float32) < share)
        for start in range(0, size.enrolled * others, 2**24)
    ]
    impostors = rng.permutation(np.setdiff1d(np.concatenate(cells), genuine, assume_unique=True))
    cell = rng.permutation(np.append(genuine, impostors[: size.pairs - len(genuine)]))
    return cell // others, cell % others + size.enrolled


def _write(path: Path, form: str, *columns: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, len(columns[0]), 2**18):
            lists = [np.asarray(column[start : start + 2**18]).tolist() for column in columns]
            file.write("\n".join(map(form.__mod__, zip(*lists, strict=True))) + "\n")


def peak_mib() -> float:
    """Return the peak resident memory of this process so far, with the pages of mapped files.

    Linux starts it at the peak of the parent, so the parent must stay small.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


class Clock:
    """Seconds of the parts of a program."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_s = 0.0
        self.imports_mib = self.peak_mib = 0.0

    def mark_imports(self) -> None:
        """Record the memory before the work."""
        self.imports_mib = peak_mib()

    def __call__(self, part: str, work: Callable[[], Any]) -> Any:
        """Do the work and record its time."""
        began, cpu_began = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[part] = self.seconds.get(part, 0) + time.perf_counter() - began
        if part in PARTS:  # both programs do this
            self.cpu_s += time.process_time() - cpu_began
            self.peak_mib = peak_mib()
        return result


def sphereface_way(folder: Path, clock: Clock) -> tuple[Any, Any]:
    """Compute scores and TPR by this project."""
    from sphereface.evaluation.ijb_files import read_template_pairs
    from sphereface.evaluation.pair_products import pair_products
    from sphereface.metrics.ijb import SortedScores, tpr_at_nearest_fpr

    clock.mark_imports()
    ids, templates = _pooled(folder, clock)
    pairs = clock("read pairs", lambda: read_template_pairs(folder / PAIRS, ids))
    scores = clock("products", lambda: pair_products(templates, pairs.left, pairs.right))
    ordered = clock("TPR", lambda: SortedScores.of(scores, pairs.same))
    tpr = clock("TPR", lambda: tpr_at_nearest_fpr(ordered, FARS))
    _honest_figures(clock, ordered)
    _intervals(clock, scores, pairs, len(ids))
    return scores, tpr


def _pooled(folder: Path, clock: Clock) -> tuple[Any, Any]:
    """Return the templates and their embeddings; those of the images are freed."""
    from sphereface.evaluation.ijb_files import read_detector_scores, read_image_list
    from sphereface.evaluation.pooling import PoolMode, pool

    images = clock("read lists", lambda: read_image_list(folder / MEDIA))
    score = clock("read lists", lambda: read_detector_scores(folder / SCORES, images.images))
    mode = PoolMode(normalise=False, detector_score=True, flip="none")
    features = np.load(folder / "features.npy", mmap_mode="r")
    pooled = clock("pool", lambda: pool(features, None, images.template, images.media, mode=mode, detector_score=score))
    return pooled.ids, pooled.templates


def _honest_figures(clock: Clock, ordered: Any) -> None:
    from sphereface.metrics.ijb import auc_sorted, equal_error_rate_sorted, tar_at_far_sorted

    for figure in (tar_at_far_sorted, auc_sorted, equal_error_rate_sorted):
        clock("TAR at FAR, AUC, EER", lambda figure=figure: figure(ordered))


def _intervals(clock: Clock, scores: Any, pairs: Any, num_templates: int) -> None:
    from sphereface.metrics.subjects import bootstrap_tar, subjects_of

    subject = clock("subjects", lambda: subjects_of(num_templates, pairs.left, pairs.right, pairs.same))
    sides = [subject.astype(np.int32)[side] for side in (pairs.left, pairs.right)]
    clock("200 replicates, FAR 1e-6 to 1e-3", lambda: bootstrap_tar(scores, pairs.same, *sides, FARS[:4]))
    clock("200 replicates, FAR 1e-6 to 1e-1", lambda: bootstrap_tar(scores, pairs.same, *sides, FARS))


def field_way(folder: Path, clock: Clock) -> tuple[Any, Any]:
    """Compute scores and TPR like ``eval_ijbc.py``."""
    from sklearn.metrics import roc_curve
    from sklearn.preprocessing import normalize

    clock.mark_imports()

    def media_list() -> tuple[Any, Any]:
        table = _table(folder / MEDIA)
        return table[:, 1].astype(int), table[:, 2].astype(int)

    def detector_scores() -> Any:
        with (folder / SCORES).open(encoding="utf-8") as file:
            lines = file.readlines()
        found = []
        for line in lines:
            fields = line.strip().split(" ")
            np.array([float(x) for x in fields[1:-1]], dtype=np.float32)
            found.append(fields[-1])
        return np.array(found).astype(np.float32)

    def pair_list() -> tuple[Any, Any, Any]:
        table = _table(folder / PAIRS)
        return table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2].astype(int)

    templates, media = clock("read lists", media_list)
    scores = clock("read lists", detector_scores)
    p1, p2, label = clock("read pairs", pair_list)
    features = np.load(folder / "features.npy")
    weighted = clock("pool", lambda: features * scores[:, np.newaxis])

    def pooled() -> tuple[Any, Any]:
        unique = np.unique(templates)
        sums = np.zeros((len(unique), weighted.shape[1]))
        for row, template in enumerate(unique):
            (of_template,) = np.where(templates == template)
            rows, media_of_rows = weighted[of_template], media[of_template]
            means = []
            for medium in np.unique(media_of_rows):
                (of_medium,) = np.where(media_of_rows == medium)
                means.append(np.mean(rows[of_medium], axis=0, keepdims=True))
            sums[row] = np.sum(np.array(means), axis=0)
        return normalize(sums), unique

    def products() -> Any:
        row_of = np.zeros((max(unique) + 1, 1), dtype=int)
        for row, template in enumerate(unique):
            row_of[template] = row
        score = np.zeros((len(p1),))
        every = np.array(range(len(p1)))
        for start in range(0, len(p1), 100_000):
            block = every[start : start + 100_000]
            score[block] = np.sum(rows[row_of[p1[block]]] * rows[row_of[p2[block]]], -1).flatten()
        return score

    def tpr() -> list[float]:
        fpr, tpr, _ = roc_curve(label, score)
        fpr, tpr = np.flipud(fpr), np.flipud(tpr)
        return [float(tpr[min(zip(abs(fpr - far), range(len(fpr)), strict=True))[1]]) for far in FARS]

    rows, unique = clock("pool", pooled)
    score = clock("products", products)
    return score, clock("TPR", tpr)


def _table(path: Path) -> Any:
    """Read a text file like ``pandas.read_csv(...).values``; by numpy where pandas is missing."""
    if importlib.util.find_spec("pandas"):
        import pandas

        return pandas.read_csv(path, sep=" ", header=None).values
    return np.loadtxt(path, dtype=str if path.name == MEDIA else int, comments=None)


def child(way: str, folder: Path) -> None:
    """Run one program and write its scores, its seconds and its peak memory."""
    clock = Clock()
    scores, tpr = (sphereface_way if way == "sphereface" else field_way)(folder, clock)
    np.save(folder / f"{way}.npy", scores)
    print(json.dumps({**vars(clock), "tpr": list(tpr)}))


def measure(folder: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return the reports of the child processes, in turns."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(json.loads(start(way, folder)))
    return found


def start(work: str, folder: Path, *options: str) -> str:
    """Return the report of a separate process."""
    command = [sys.executable, __file__, "--child", work, "--folder", str(folder), *options]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - this file


def table(size: Size, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each program: medians of its turns."""
    rows = []
    for way, turns in found.items():
        parts = {part: statistics.median(turn["seconds"][part] for turn in turns) for part in turns[0]["seconds"]}
        total = statistics.median(sum(turn["seconds"][part] for part in PARTS) for turn in turns)
        memory = {key: statistics.median(turn[key] for turn in turns) for key in ("cpu_s", "peak_mib", "imports_mib")}
        rows.append({"name": way, "total_s": total, **memory, "seconds": parts, "tpr": turns[0]["tpr"], **asdict(size)})
    return rows


def show(rows: list[dict[str, Any]], folder: Path) -> None:
    """Print the table and the differences of the results."""
    ours, field = rows
    print(f"{'seconds':20}{'sphereface':>12}{'field':>12}{'ratio':>9}")
    for part in PARTS:
        a, b = ours["seconds"][part], field["seconds"][part]
        print(f"{part:20}{a:12.2f}{b:12.2f}{b / a:8.1f}×")
    print(f"{'total':20}{ours['total_s']:12.2f}{field['total_s']:12.2f}{field['total_s'] / ours['total_s']:8.1f}×")
    print(f"{'processor time':20}{ours['cpu_s']:12.2f}{field['cpu_s']:12.2f}{field['cpu_s'] / ours['cpu_s']:8.1f}×")
    print(f"{'peak memory, MiB':20}{ours['peak_mib']:12.0f}{field['peak_mib']:12.0f}", end="")
    print(f"{field['peak_mib'] / ours['peak_mib']:8.1f}×")
    print(f"{'of it imports, MiB':20}{ours['imports_mib']:12.0f}{field['imports_mib']:12.0f}")
    print(f"the embeddings alone take {ours['images'] * ours['dim'] * 4 / 2**20:.0f} MiB")
    for part in [part for part in ours["seconds"] if part not in PARTS]:
        print(f"only sphereface: {part}, {ours['seconds'][part]:.2f} s")
    a, b = (np.load(folder / f"{way}.npy", mmap_mode="r") for way in WAYS)
    print(f"largest difference of scores {np.abs(a - b).max():.1e}", end=", ")
    print(f"of TPR {np.abs(np.subtract(ours['tpr'], field['tpr'])).max():.1e}")


def main(argv: Sequence[str] | None = None) -> int:
    """Generate, measure, print, and write the rows to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"how many ({value})" if name != "dim" else "")
    parser.add_argument("--rounds", type=int, default=1, help="turns (1)")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="keep the files here, and use existing ones")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    parser.add_argument("--child", choices=(GENERATE, *WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    size = Size(args.images, args.templates, args.pairs, args.dim)
    if args.child == GENERATE:
        generate(args.folder, size)
        return 0
    if args.child:
        child(args.child, args.folder)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "features.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            options = [f"--{name}={value}" for name, value in asdict(size).items()]
            start(GENERATE, folder, *options)
        reader = "pandas" if importlib.util.find_spec("pandas") else "numpy"
        print(f"{size.images:,} images, {size.templates:,} templates, {size.pairs:,} pairs; field reads with {reader}")
        rows = table(size, measure(folder, args.rounds))
        show(rows, folder)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
