"""The jobs behind `vaectl prepare-eval` and `vaectl eval`: clips through a model, and how far they are from themselves."""
