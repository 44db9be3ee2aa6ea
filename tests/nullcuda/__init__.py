"""Tests of what happens on a GPU, on a machine without one: see build.py and docs/gpu.md."""
