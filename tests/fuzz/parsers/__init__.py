"""All parsers. Importing this registers them."""

from . import alignment, checkpoints, configs, images, lists, networks, protocols, runs, sources, tables  # noqa: F401
