"""The jobs behind `vaectl prepare-eval` and `vaectl eval`: how far clips come back from a model."""
