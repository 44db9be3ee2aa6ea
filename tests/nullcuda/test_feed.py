"""Batches on their way to a GPU: no copy of images on the training thread, all of it beside the computing."""

from __future__ import annotations

import json

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

device = torch.device("cuda")
order = BatchOrder(12, 5, seed=0, augmentation=Augmentation(True, 2))
crops = CropBatches(FolderSource(Path(sys.argv[2])), (112, 96))
pinned, pin = [], torch.Tensor.pin_memory
torch.Tensor.pin_memory = lambda part: pinned.append(part.nbytes) or pin(part)

def feed_with(workers):
    pinned.clear()
    plain = batches(crops, order, workers=0, pin_memory=False)
    wanted = [int(batch.images.long().sum()) for batch in itertools.islice(plain, 9)]
    feed = prefetched(batches(crops, order, workers=workers, pin_memory=True), device)
    got = []
    for batch in itertools.islice(feed, 8):
        assert batch.images.device.type == batch.labels.device.type == batch.mirror.device.type == "cuda"
        got.append(int(batch.images.cpu().long().sum()))
    counts = count(lambda: got.append(int(next(feed).images.shape[0])))
    feed.close()
    return {"wanted": wanted, "got": got, "pinned": pinned[:], **counts.to_dict()}

json.dump({workers: feed_with(workers) for workers in (0, 2)}, sys.stdout)
"""


def test_images_are_read_by_the_device_from_where_they_were_decoded(environment, tmp_path):
    folder = make_training_set(tmp_path, 3, 4)
    by_workers = json.loads(run(environment, "-c", FEED, str(HERE), str(folder)))
    assert by_workers.keys() == {"0", "2"}
    for found in by_workers.values():
        assert found["got"][:8] == found["wanted"][:8]
        assert max(found["pinned"]) == 5 * 8  # labels: none is a batch of images
        assert found["launches"] == 0
        assert found["copies"] == {"copy pinned->device": 3}  # images, labels, mirror
        assert {name for name in found["waits"] if "Event" not in name} == set()
