"""Face crops: where they come from, how they are read, and in which order they are fed."""
