"""The networks, their configs and their checkpoints: pure tensors in, tensors out."""
