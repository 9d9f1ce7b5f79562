"""Run a model in tiles and windows, with the result of whole clips. Knows models, and no video files."""
