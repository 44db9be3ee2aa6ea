"""SphereFace: train, watch and evaluate open-set face embeddings (Liu et al., CVPR 2017)."""

__version__ = "0.1.0"
