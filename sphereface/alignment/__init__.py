"""Turn photographs into aligned face crops: ``similarity`` for one image, ``align`` for many."""
