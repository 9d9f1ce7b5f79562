"""Training: the job of `vaectl train`, with its losses, checkpoints and recipes."""
