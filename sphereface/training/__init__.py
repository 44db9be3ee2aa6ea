"""Training: the loop, the optimiser, the run folder, and what a run reports."""
