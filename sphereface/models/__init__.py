"""Backbones, and how one is built from a configuration or read from a checkpoint."""

from . import ir, iresnet, mobilefacenet, sfnet, spherenet, timm_net  # each enters its backbone into BACKBONES
from .backbone import BACKBONES, Backbone, ConvBackbone, Resized, register
from .loading import LoadedModel, build_model, load_model
from .side_by_side import SideBySide
from .spherenet import SphereNet

__all__ = [
    "BACKBONES",
    "Backbone",
    "ConvBackbone",
    "LoadedModel",
    "Resized",
    "SideBySide",
    "SphereNet",
    "build_model",
    "ir",
    "iresnet",
    "load_model",
    "mobilefacenet",
    "register",
    "sfnet",
    "spherenet",
    "timm_net",
]
