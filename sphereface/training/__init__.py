"""The training run: loop, optimiser, run folder, and what is shown of it."""
