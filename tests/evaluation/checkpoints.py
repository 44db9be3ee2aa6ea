"""A tiny network's checkpoint."""

import torch

from sphereface.checkpoint import save_checkpoint
from sphereface.config import ModelConfig
from sphereface.models import build_model
from sphereface.options import to_plain


def write_checkpoint(path, *, seed=0, input_size=(32, 24)):
    config = ModelConfig(depth=4, widths=(4, 4, 4, 8), embedding_dim=16, input_size=input_size)
    torch.manual_seed(seed)
    meta = {"config": {"model": to_plain(config)}, "step": 7, "run": "tiny"}
    save_checkpoint(path, {"meta": meta, "model": build_model(config).state_dict()}, {"step": 7})
    return path
