"""A tiny network's checkpoint."""

import torch

from sphereface.checkpoint import save_checkpoint
from sphereface.models import build_model
from sphereface.models.spherenet import SphereNetOptions


def write_checkpoint(path, *, seed=0, input_size=(32, 24), depth=4):
    config = SphereNetOptions(depth=depth, widths=(4, 4, 4, 8), embedding_dim=16, input_size=input_size)
    torch.manual_seed(seed)
    meta = {"config": {"model": config.to_dict()}, "step": 7, "run": "tiny"}
    save_checkpoint(path, {"meta": meta, "model": build_model(config).state_dict()}, {"step": 7})
    return path
