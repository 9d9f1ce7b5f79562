"""The jobs behind `vaectl prepare-eval` and `vaectl eval`: reconstruct clips and compare them with their originals."""
