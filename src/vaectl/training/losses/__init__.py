"""The losses of training, one file per term. Knows tensors and the published formulas, not the training loop."""

from vaectl.training.losses.objective import Objective, ObjectiveConfig

__all__ = ["Objective", "ObjectiveConfig"]
