"""Read and write a shard: the rows of some images of a gallery, in one ``.npz`` file.

A gallery in a folder has many shards. Each is a table of embeddings, which ``numpy.load`` reads. N
images gave M rows:

- ``names`` (M,): UTF-8, relative to ``root``, as in any table of embeddings
- ``embeddings``, ``mirror`` (M, D): float32 or float16, as the network returns them
- ``quality`` (M,): length of the embedding, of image and mirror image joined
- ``boxes`` (M, 4), ``scores`` (M,): of the faces, if a detector found them
- ``images``, ``sizes``, ``times``, ``faces`` (N,): name, size in bytes, modification time, number
  of faces
- ``image_of``, ``places`` (M,): image of a row, and number of its face, counted from the left
- ``unusable``, ``reasons`` (U,): images without a row, and the reasons
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..archives import DAMAGED
from ..errors import UserError, first_line, refusing
from ..files import write_whole
from ..options import option
from .mapped_array import map_array, map_arrays

FORMAT = 2
"""Format of the tables that ``sphereface embed`` writes.

:mod:`sphereface.evaluation.embedding_table` describes it.
"""

DTYPES = ("float32", "float16")
"""Number types of stored embeddings. A search computes in float32."""

SHARD_NAME = re.compile(r"[0-9a-f]{24}\.npz")

_PER_ROW = ("names", "embeddings", "mirror", "quality", "boxes", "scores", "image_of", "places")
_PER_IMAGE = ("images", "sizes", "times", "faces")
_OPTIONAL = frozenset({"mirror", "boxes", "scores"})
_DIGEST_BYTES = 12

Array = npt.NDArray[Any]


class DamagedShard(UserError):
    """A shard is missing, damaged, or belongs to another gallery.

    Args:
        path: of the shard.
        reason: what is wrong with it, or the error that reading it gave.
    """

    def __init__(self, path: Path, reason: str | OSError) -> None:
        advice = "run the sphereface embed command of this gallery again, which repairs it"
        if isinstance(reason, FileNotFoundError):
            advice = f"if the gallery was updated meanwhile, run this command again; if not, {advice}"
        if isinstance(reason, OSError):
            reason = f"cannot be read ({reason.strerror})"
        super().__init__(f"{path}: {reason} · {advice}")


@dataclass(frozen=True)
class GalleryKind:
    """The properties that all shards of a gallery share.

    Attributes:
        checkpoint_sha256: SHA-256 of the checkpoint that computed the embeddings.
        settings: how an image became an embedding.
        alignment: the settings that aligned the crops, as JSON; empty if the images are not crops
            or the settings are unknown.
        root: folder of the images, or the file that holds them, as the user wrote it.
        dim: D, numbers in an embedding of one image.
        mirror: whether the gallery has embeddings of mirror images.
        dtype: number type of the embeddings.
        on_several: what ``sphereface embed`` did with an image of several faces.
    """

    checkpoint_sha256: str = option()
    settings: str = option()
    alignment: str = option()
    root: str = option()
    dim: int = option(low=1, high=1 << 20)
    mirror: bool = option()
    dtype: str = option(choices=DTYPES)
    on_several: str = option(choices=["take", "skip", "all"])

    @property
    def width(self) -> int:
        """The number of values that a search compares: D, or 2D with mirror images."""
        return self.dim * (2 if self.mirror else 1)


@dataclass(frozen=True)
class Shard:
    """An entry of a gallery's list of shards.

    Attributes:
        file: name in the gallery's folder.
        rows: M.
        images: N.
        bytes: size of the file.
    """

    file: str = option()
    rows: int = option(low=0)
    images: int = option(low=0)
    bytes: int = option(low=1)


@dataclass(frozen=True)
class ShardContent:
    """The arrays of a shard. The docstring of this module describes them."""

    names: Array
    embeddings: Array
    quality: Array
    image_of: Array
    places: Array
    images: Array
    sizes: Array
    times: Array
    faces: Array
    unusable: Array
    reasons: Array
    mirror: Array | None = None
    boxes: Array | None = None
    scores: Array | None = None

    def only(self, images: npt.NDArray[np.int64]) -> ShardContent:
        """Return the part that belongs to some of the images.

        Args:
            images: (K,) numbers of the images, ascending.
        """
        new_number = np.full(len(self.images), -1, dtype=np.int64)
        new_number[images] = np.arange(len(images))
        rows, unusable = new_number[self.image_of] >= 0, new_number[self.unusable] >= 0
        found: dict[str, Any] = {key: getattr(self, key)[images] for key in _PER_IMAGE}
        found |= {key: None if (array := getattr(self, key)) is None else array[rows] for key in _PER_ROW}
        found["image_of"] = new_number[found["image_of"]]
        return ShardContent(**found, unusable=new_number[self.unusable[unusable]], reasons=self.reasons[unusable])


def write_shard(folder: Path, content: ShardContent, kind: GalleryKind) -> Shard:
    """Write a shard whole. Its name depends only on the images and the kind of the gallery.

    Raises:
        UserError: the file cannot be written.
    """
    arrays = {key: array for key, array in vars(content).items() if array is not None}
    about: dict[str, Any] = {"root": kind.root, "checkpoint_sha256": kind.checkpoint_sha256, "settings": kind.settings}
    path = folder / _name_of(content, kind)
    with refusing(f"{path}: cannot be written", "run the command again, which resumes"):
        write_whole(path, lambda file: np.savez(file, **arrays, **about, format=FORMAT))
        return Shard(path.name, len(content.names), len(content.images), path.stat().st_size)


def _name_of(content: ShardContent, kind: GalleryKind) -> str:
    """Name a shard by a hash of its images and the kind of the gallery, without the root."""
    values = repr(dataclasses.astuple(dataclasses.replace(kind, root="")))
    digest = hashlib.blake2b(values.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
    for array in (content.images, content.sizes, content.times):
        digest.update(array.tobytes())
    return f"{digest.hexdigest()}.npz"


def read_shard(path: Path, kind: GalleryKind) -> ShardContent:
    """Map all arrays of a shard, and compare them with their checksums.

    Raises:
        DamagedShard: it is missing, damaged, or of another kind.
    """
    with _explained(path):
        wanted = (field.name for field in dataclasses.fields(ShardContent))
        content = ShardContent(**map_arrays(path, wanted, _OPTIONAL))
        _check(content, kind)
        if path.name != _name_of(content, kind):
            raise ValueError("another checkpoint or other settings made it, or it was renamed")
    return content


def root_of(path: Path) -> str | None:
    """Return the root of a whole shard of any gallery; None if it is damaged."""
    wanted = (field.name for field in dataclasses.fields(ShardContent))
    try:
        return str(map_arrays(path, ("root", *wanted), _OPTIONAL)["root"])
    except (OSError, MemoryError, *DAMAGED):
        return None


def map_rows(path: Path, shard: Shard, kind: GalleryKind, *, checked: bool) -> list[Array]:
    """Map the embeddings of a shard and, if it has them, those of the mirror images: (M, D) each.

    Args:
        path: the file.
        shard: its entry in the gallery's list.
        kind: of the gallery.
        checked: compare the bytes with their checksums, and the checkpoint with the kind.

    Raises:
        DamagedShard: it is missing, damaged, or differs from its entry in the list.
    """
    keys = ["embeddings", *(["mirror"] if kind.mirror else [])]
    with _explained(path):
        if checked and str(map_array(path, "checkpoint_sha256")) != kind.checkpoint_sha256:
            raise ValueError("checkpoint_sha256 is not that of gallery.json")
        parts = [map_array(path, key, checked=checked) for key in keys]
        shape = (shard.rows, kind.dim)
        for key, part in zip(keys, parts, strict=True):
            if part.shape != shape or part.dtype != kind.dtype:
                raise ValueError(f"{key}: {part.dtype} of shape {part.shape}, not {kind.dtype} {shape}")
    return parts


def map_names(path: Path, shard: Shard) -> Array:
    """Map the names of a shard's rows, (M,) bytes.

    Raises:
        DamagedShard: see :func:`map_rows`.
    """
    with _explained(path):
        names = map_array(path, "names")
        if names.shape != (shard.rows,) or names.dtype.kind != "S":
            raise ValueError(f"names: {names.dtype} of shape {names.shape}, not {shard.rows} texts")
    return names


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Replace the errors of a damaged file by :class:`DamagedShard`."""
    try:
        yield
    except (OSError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DamagedShard(path, error) from None
        raise DamagedShard(path, f"damaged ({first_line(error)})") from None


def _check(content: ShardContent, kind: GalleryKind) -> None:
    """Raise ValueError for an array with a wrong shape, type or number."""
    rows, images, unusable = len(content.names), len(content.images), len(content.unusable)
    shapes: dict[str, tuple[int, ...]] = {}
    shapes |= dict.fromkeys(_PER_ROW, (rows,)) | dict.fromkeys(_PER_IMAGE, (images,))
    shapes |= dict.fromkeys(("embeddings", "mirror"), (rows, kind.dim)) | {"boxes": (rows, 4)}
    shapes |= dict.fromkeys(("unusable", "reasons"), (unusable,))
    kinds = dict.fromkeys(("names", "images", "reasons"), "S")
    kinds |= dict.fromkeys(("embeddings", "mirror", "quality", "boxes", "scores"), "f")
    for key, array in vars(content).items():
        if array is None:
            continue
        if array.shape != shapes[key] or array.dtype.kind != kinds.get(key, "i"):
            raise ValueError(f"{key}: {array.dtype} of shape {array.shape}, not {shapes[key]}")
    if content.embeddings.dtype != kind.dtype or (content.mirror is None) == kind.mirror:
        raise ValueError("embeddings of another type than the gallery's")
    for key in ("image_of", "unusable"):
        numbers = getattr(content, key)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= images):
            raise ValueError(f"{key}: numbers outside 0 to {images - 1}")


def texts(values: Iterable[str]) -> Array:
    """Return texts as an array of UTF-8 bytes, which takes less space than numpy's text."""
    encoded = [value.encode("utf-8", "surrogateescape") for value in values]
    return np.array(encoded, dtype=np.bytes_) if encoded else np.empty(0, dtype="S1")


def text(value: bytes) -> str:
    """Decode a text that :func:`texts` encoded."""
    return value.decode("utf-8", "surrogateescape")


def path_of(root: str, name: str) -> str:
    """Return the path of an image of a gallery."""
    return os.path.join(root, name)  # noqa: PTH118 -- Path costs 20 times as much
