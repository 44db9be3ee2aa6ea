"""The pictures that a run trains on, and the order in which they come to each of its processes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import BadCheckpoint
from ..config import Config
from ..data.batch import Batch
from ..data.crops import CropBatches, check_sample
from ..data.loader import batches
from ..data.sampler import Augmentation, BatchOrder, identity_weights
from ..data.sources import kept, open_source
from .distributed import World, local_processes


class TrainingSet:
    """What ``data:`` describes.

    Args:
        config: the resolved configuration.
        world: the processes that share each batch.

    Raises:
        UserError: no data, data that does not fit the network, or a batch that cannot be shared.
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
        )
        self.source = kept(source, (data.keep_mb << 20) // local_processes())
        self.crops = CropBatches(self.source, config.model.input_spec.size)
        self.augmentation = Augmentation(data.mirror, data.crop_shift, data.augment)
        self.order(0)  # which may refuse
        check_sample(self.crops)

    def order(self, start: int) -> BatchOrder:
        """Which pictures come to this process, after ``start`` that have come to all."""
        return BatchOrder(
            len(self.source),
            self.config.train.batch_size,
            seed=self.config.seed,
            augmentation=self.augmentation,
            start=start,
            weights=identity_weights(self.source.labels, self.config.data.balance),
            rank=self.world.rank,
            num_ranks=self.world.size,
        )

    def batches(self, start: int, *, pin_memory: bool) -> Generator[Batch]:
        """The endless batches after ``start`` pictures, of each the part of this process."""
        return batches(self.crops, self.order(start), workers=self.config.data.workers, pin_memory=pin_memory)

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {"class_names": self.source.class_names, "num_images": len(self.source)}

    def check(self, meta: Mapping[str, Any], path: Path) -> None:
        """Refuse a checkpoint of other data.

        Raises:
            BadCheckpoint: it is.
        """
        names, images = self.source.class_names, len(self.source)
        if meta["class_names"] != names or meta["num_images"] != images:
            others = " (or other names)" if len(meta["class_names"]) == len(names) else ""
            raise BadCheckpoint(
                f"{path}: trained on {meta['num_images']} pictures of {len(meta['class_names'])} identities, "
                f"data.train now has {images} of {len(names)}{others} · "
                "resume with the data that the run was started with"
            )
