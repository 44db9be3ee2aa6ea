"""Build backbones from a configuration, and load them from checkpoints."""

from . import ir, iresnet, mobilefacenet, sfnet, spherenet, timm_net  # noqa: F401 -- each registers its backbone
from .backbone import BACKBONES, Backbone, ConvBackbone, Resized, register
from .ensemble import Ensemble
from .loading import LoadedModel, build_model, load_model
from .spherenet import SphereNet

__all__ = ["BACKBONES", "Backbone", "ConvBackbone", "Ensemble", "LoadedModel", "Resized", "SphereNet"]
__all__ += ["build_model", "load_model", "register"]
