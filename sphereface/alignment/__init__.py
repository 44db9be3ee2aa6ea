"""From photographs with five landmarks to face crops: ``similarity`` for one, ``align`` for a
folder.
"""
