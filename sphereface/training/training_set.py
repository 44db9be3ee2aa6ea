"""The images of a training run, and their order in each process."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..alignment.crop_template import training_template
from ..checkpoint import BadCheckpoint
from ..config import Config
from ..data.batch import Batch
from ..data.crops import CropBatches, check_sample
from ..data.identities import Labels
from ..data.images import BadImage
from ..data.loader import batches
from ..data.sampler import NEWEST, ORDERS, Augmentation, Balance, BatchOrder
from ..data.sources import Source, cached, open_source
from ..data.sources.selection import numbered_of
from ..errors import count_of, shown
from .distributed import World, local_processes
from .teacher import Teacher

_SAMPLED = 1000


class TrainingSet:
    """The training set that ``data:`` describes.

    Args:
        config: the resolved configuration.
        world: the processes that share each batch.

    Raises:
        UserError: there is no data, it does not fit the network, or a batch cannot be shared.
    """

    def __init__(self, config: Config, world: World) -> None:
        self.config, self.world = config, world
        data = config.data
        source = open_source(
            data.train,
            root=data.root,
            merge=data.merge,
            exclude=data.exclude,
            exclude_file=data.exclude_file,
            min_images=data.min_images,
            least=1 if config.train.teacher.given and config.train.teacher.label_weight == 0 else 2,
        )
        self.source = cached(source, (data.keep_mb << 20) // local_processes())
        self.crops = CropBatches(self.source, config.model.input_spec.size)
        self.augmentation = Augmentation(data.mirror, data.crop_shift, data.augment)
        self.order_version = NEWEST
        self.order(0)  # checks that the batch can be shared
        check_sample(self.crops)
        self.sample, self.more_samples = sample_of(self.source), more_samples_of(self.source)
        self.counts = counts_of(self.source)
        self.teacher: Teacher | None = None
        self.template = training_template(data.train, data.root, config.model.input_spec.size)

    def order(self, start: int) -> BatchOrder:
        """Return the order of this process's images, after ``start`` images of all processes."""
        strength = self.config.data.balance
        return BatchOrder(
            len(self.source),
            self.config.train.batch_size,
            seed=self.config.seed,
            augmentation=self.augmentation,
            start=start,
            balance=Balance(Labels.of(self.source.labels).firsts, strength) if strength else None,
            version=self.order_version,
            rank=self.world.rank,
            num_ranks=self.world.size,
        )

    def batches(self, start: int, *, pin_memory: bool) -> Generator[Batch]:
        """Yield this process's part of the endless batches, after ``start`` images."""
        feed = batches(self.crops, self.order(start), workers=self.config.data.workers, pin_memory=pin_memory)
        with closing(feed):
            for batch in feed:
                yield batch if self.teacher is None else self.teacher.attached(batch)

    def about(self) -> dict[str, Any]:
        """Return what a checkpoint stores about the images and their order."""
        template = {} if self.template is None else {"template": self.template.to_meta()}
        names = list(self.source.class_names)
        teacher: dict[str, Any] = {}
        if self.teacher is not None:
            teacher = {"teacher": self.teacher.sha256, "taught_by": dict(self.teacher.taught_by)}
            if more := sorted({*self.teacher.people}.difference(names)):
                teacher["more_people"] = more
        data = {"class_names": names, "num_images": len(self.source), "sample": self.sample, **template, **teacher}
        numbered = sorted(numbered_of(self.source)) if self.source.named else [""]
        data |= {"more_samples": self.more_samples, "counts": self.counts, "numbered": numbered}
        return {**data, "order": self.order_version}

    def resume(self, meta: Mapping[str, Any]) -> None:
        """Use the order of a checkpoint that :meth:`check` accepts."""
        self.order_version = meta.get("order", 1)

    def check(self, meta: Mapping[str, Any], path: Path) -> None:
        """Refuse a checkpoint of other data: other identities, images, numbers or order.

        What a checkpoint of an earlier version did not keep is not compared.

        Raises:
            BadCheckpoint: the data or the teacher differs.
        """
        names, images = list(self.source.class_names), len(self.source)
        advice = f"resume with the data of that run, or start a new run from its weights: train.init_from={path}"
        if meta["class_names"] != names or meta["num_images"] != images:
            raise BadCheckpoint(
                f"{path}: trained on {count_of(meta['num_images'], 'image', 'images')} of "
                f"{count_of(len(meta['class_names']), 'identity', 'identities')}, "
                f"data.train now has {images:,} of {len(names):,}{_other_names(meta['class_names'], names)} · {advice}"
            )
        teacher = None if self.teacher is None else self.teacher.sha256
        if meta.get("teacher") != teacher:
            pair = (meta.get("teacher"), teacher)
            was, now = ("no teacher" if sha is None else f"one of SHA-256 {sha:.8}…" for sha in pair)
            raise BadCheckpoint(
                f"{path}: train.teacher: trained with {was}, now with {now} · {advice.replace('data', 'teacher', 1)}"
            )
        if meta.get("order", 1) not in ORDERS:
            raise BadCheckpoint(
                f"{path}: meta.order: got {meta['order']}, an order of images of a later version · allowed: "
                f"{', '.join(map(str, ORDERS))} · resume with that version, or start a new run from its weights: "
                f"train.init_from={path}"
            )
        for key, own, which in (
            ("sample", self.sample, "another first image"),
            ("more_samples", self.more_samples, "another image in the middle or at the end"),
        ):
            before = meta.get(key, own)
            if len(before) != len(own):
                got = count_of(len(before), "entry", "entries")
                raise BadCheckpoint(f"{path}: meta.{key}: got {got} · allowed: {len(own)}")
            changed = [
                names[label]
                for label, old, new in zip(sampled_labels(len(names)), before, own, strict=True)
                if old and new and old != new
            ]
            if changed:
                raise BadCheckpoint(
                    f"{path}: trained on other images: of {len(before)} identities compared, {len(changed)} have "
                    f"{which} in data.train: {', '.join(changed[:5])}{', …' if len(changed) > 5 else ''} · {advice}"
                )
        if meta.get("counts", self.counts) != self.counts:
            raise BadCheckpoint(
                f"{path}: trained on other images: data.train has as many in all, but not as many of each identity: "
                f"some were moved between identities · {advice}"
            )


def _other_names(before: Sequence[str], now: Sequence[str]) -> str:
    """Return what differs between names of as many identities; an empty text if nothing does."""
    differ = [label for label, (old, new) in enumerate(zip(before, now, strict=False)) if old != new]
    if len(before) != len(now) or not differ:
        return ""
    first = f"number {differ[0]} was {shown(before[differ[0]])}, now {shown(now[differ[0]])}"
    if set(before) == set(now):
        return f", the same ones in another order: {len(differ)} have another number ({first})"
    gone = sorted(set(before) - set(now))
    return f", but {len(gone)} of them have other names, and {shown(gone[0])} is not there ({first})"


def sampled_labels(num_classes: int) -> list[int]:
    """Return the labels of up to 1,000 identities, evenly spaced."""
    count = min(num_classes, _SAMPLED)
    return [index * num_classes // count for index in range(count)]


def sample_of(source: Source) -> list[str]:
    """Return the first half of the SHA-256 of the first stored image of each sampled identity.

    Nothing is decoded. Two sources of the same images have the same sample, whether they are a
    folder, a list, a zip or a record file.

    Returns:
        32 hexadecimal digits for each identity of :func:`sampled_labels`; "" for an image that
        cannot be read.
    """
    firsts = Labels.of(source.labels).firsts
    return [_digest(source, [firsts[label]]) for label in sampled_labels(len(source.class_names))]


def more_samples_of(source: Source) -> list[str]:
    """Return the same of the middle and the last image of each sampled identity, together."""
    firsts = Labels.of(source.labels).firsts
    edges = [(firsts[label], firsts[label + 1]) for label in sampled_labels(len(source.class_names))]
    return [_digest(source, [(first + end) // 2, end - 1]) for first, end in edges]


def counts_of(source: Source) -> str:
    """Return the first half of the SHA-256 of the number of images of each identity."""
    return hashlib.sha256(Labels.of(source.labels).counts.astype("<i8").tobytes()).hexdigest()[:32]


def _digest(source: Source, indices: Sequence[int]) -> str:
    """Return the first half of the SHA-256 of stored images; "" if one cannot be read."""
    try:
        digests = [hashlib.sha256(source.read(int(index))) for index in indices]
    except (BadImage, OSError):
        return ""
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(each.digest() for each in digests))
    return whole.hexdigest()[:32]
