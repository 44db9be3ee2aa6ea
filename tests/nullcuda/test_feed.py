"""Batches on their way to a GPU: no copy of images on the training thread, all of it beside the computing."""

from __future__ import annotations

import json

import pytest

from ..images import make_training_set
from .process import HERE, run

FEED = """
import itertools, json, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parents[1])]
import torch
from counting import count
from sphereface.data.crops import CropBatches
from sphereface.data.loader import batches
from sphereface.data.prefetch import prefetched
from sphereface.data.sampler import Augmentation, BatchOrder
from sphereface.data.sources import FolderSource

workers, device = int(sys.argv[3]), torch.device("cuda")
order = BatchOrder(12, 5, seed=0, augmentation=Augmentation(True, 2))
crops = CropBatches(FolderSource(Path(sys.argv[2])), (112, 96))
pinned, pin = [], torch.Tensor.pin_memory
torch.Tensor.pin_memory = lambda part: pinned.append(part.nbytes) or pin(part)

plain = batches(crops, order, workers=0, pin_memory=False)
wanted = [int(batch.images.long().sum()) for batch in itertools.islice(plain, 9)]
feed = prefetched(batches(crops, order, workers=workers, pin_memory=True), device)
got = []
for batch in itertools.islice(feed, 8):
    assert batch.images.device.type == batch.labels.device.type == batch.mirror.device.type == "cuda"
    got.append(int(batch.images.cpu().long().sum()))
counts = count(lambda: got.append(int(next(feed).images.shape[0])))
feed.close()
json.dump({"wanted": wanted, "got": got, "pinned": pinned, **counts.to_dict()}, sys.stdout)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_read_by_the_device_from_where_they_were_decoded(environment, tmp_path, workers):
    folder = make_training_set(tmp_path, 3, 4)
    found = json.loads(run(environment, "-c", FEED, str(HERE), str(folder), str(workers)))
    assert found["got"][:8] == found["wanted"][:8]
    assert max(found["pinned"]) == 5 * 8  # labels: none is a batch of images
    assert found["launches"] == 0
    assert found["copies"] == {"copy pinned->device": 3}  # images, labels, mirror
    assert {name for name in found["waits"] if "Event" not in name} == set()
