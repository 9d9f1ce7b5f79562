"""Running a model tile by tile and piece by piece with nothing lost. Knows models, and no video files."""
