"""Training: the job behind `vaectl train`, its objective, its checkpoints and its recipes."""
