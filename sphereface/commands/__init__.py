"""The commands: one module for each ``sphereface COMMAND``, with ``run(args) -> exit code``."""
