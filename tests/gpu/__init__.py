"""Tests of what only a GPU can show. Each runs on the CPU as well, on a smaller network, so that it
works the first time a GPU runs it: ``pytest tests/gpu -m gpu`` runs those of the GPU alone.
"""
