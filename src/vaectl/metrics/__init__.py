"""How far a reconstruction is from its original: one file per metric. Knows tensors only: no files, no models."""
