"""Face crops: their sources, how they are read, and the order of training."""
