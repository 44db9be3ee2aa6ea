"""Embed image files. Threads decode them ahead of the network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from ..data.images import BadImage, EncodedImage, decode_into, image_memory, read_encoded
from ..data.transforms import to_input
from ..errors import UserError, listed
from ..models import Backbone

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

T = TypeVar("T")
R = TypeVar("R")


def embed_files(
    model: Backbone,
    files: Sequence[EncodedImage],
    *,
    device: torch.device | str,
    flip: bool = True,
    batch_size: int = 64,
    precision: str = "fp32",
    workers: int | None = None,
    progress: str | None = None,
    num_files: int | None = None,
) -> npt.NDArray[np.float32]:
    """Embed image files.

    A crop may be wider or higher than the network's input (``model.input_spec``) if its other side
    is equal. It is then cut to its centre (:func:`~sphereface.data.images.centre_crop`). Any other
    size is an error.

    Args:
        model: (B, 3, H, W) float → (B, D). It runs in evaluation mode; afterwards each module has
            its earlier mode.
        files: N images, aligned crops: paths, or other objects with ``read_bytes``.
        device: of the model.
        flip: append the embedding of the mirror image. Both are in the same batch.
        batch_size: images at a time; with ``flip`` the network sees twice as many.
        precision: ``"fp32"``, or ``"bf16"`` / ``"fp16"`` for autocast.
        workers: number of decoding threads, and of decoded batches that wait. None: one for each
            processor, at most 8.
        progress: title of a progress bar on stderr; None draws no bar.
        num_files: total number of images in messages, if the embeddings of others are known;
            None: N.

    Returns:
        (N, D) float32, or (N, 2D) with ``flip``; not normalised.

    Raises:
        UserError: some files cannot be read or have a wrong size. The message gives their number,
            and the first ten with reasons.
    """
    device = torch.device(device)
    dtype = AUTOCAST[precision]
    workers = workers or min(8, os.cpu_count() or 1)
    chunks = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    features = np.empty((len(files), 0), dtype=np.float32)  # the first batch gives the width
    done, problems = 0, list[str]()
    load = partial(_load, input_size=model.input_spec.size)
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
        _evaluating(model),
        torch.inference_mode(),
        torch.autocast(device.type, dtype=dtype, enabled=dtype is not None),
        tqdm(total=len(files), desc=progress, unit="img", disable=progress is None, leave=False) as bar,
    ):
        for images, unusable in map_ahead(pool, load, chunks, ahead=workers):
            problems += unusable
            if not problems:  # otherwise only look for further problems, so that the error counts all
                embedded = embed_batch(model, images, device, flip)
                if not done:
                    features = np.empty((len(files), embedded.shape[1]), dtype=np.float32)
                features[done : done + len(embedded)] = embedded
            done += len(images)
            bar.update(len(images))
    if problems:
        raise UserError(_describe(problems, num_files or len(files)))
    return features


def check_files(files: Sequence[EncodedImage], input_size: tuple[int, int]) -> None:
    """Read images like :func:`embed_files`, without a network.

    Raises:
        UserError: see :func:`embed_files`.
    """
    _, problems = _load(files, input_size)
    if problems:
        raise UserError(_describe(problems, len(files)))


def embed_batch(
    model: Backbone, images: npt.NDArray[np.uint8], device: torch.device, flip: bool
) -> npt.NDArray[np.float32]:
    """Embed decoded crops.

    The caller sets the mode of the model, autograd and autocast.

    Args:
        model: (B, 3, H, W) float → (B, D), with the input of its ``input_spec``.
        images: (B, H, W, 3) uint8, BGR, of the size that the model reads.
        device: of the model.
        flip: append the embeddings of the mirror images.

    Returns:
        (B, D) float32, or (B, 2D) with ``flip``; not normalised.
    """
    x = to_input(torch.from_numpy(images).to(device), model.input_spec)  # (B, 3, H, W)
    if flip:
        x = torch.cat([x, x.flip(3)])  # (2B, 3, H, W)
    features: torch.Tensor = model(x).float()
    if flip:
        features = torch.cat(features.chunk(2), dim=1)  # (B, 2D)
    return features.cpu().numpy()


def _load(files: Sequence[EncodedImage], input_size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Return (B, H, W, 3) images in BGR, and a line for each file that cannot be used."""
    images = image_memory((len(files), *input_size, 3))
    problems = []
    for row, file in enumerate(files):
        try:
            decode_into(read_encoded(file), images[row])
        except (OSError, BadImage) as error:
            problems.append(f"{file}: {error}")
    return images, problems


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int, *, in_turn: bool = False
) -> Iterator[R]:
    """Map a function over items in threads, in order.

    The threads work at most ``ahead`` items ahead of the caller, which bounds the memory. With
    ``in_turn`` none of them works while ``items`` computes the next one.
    """
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
        if in_turn:
            wait(waiting)
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode inside the block, then restore the mode of each module."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _describe(problems: Sequence[str], num_files: int) -> str:
    return f"{len(problems)} of {num_files} images cannot be used:{listed(problems)}"
