"""What training minimises, one term to a file. Knows tensors and the published formulas, and nothing of a loop."""

from vaectl.training.losses.objective import Objective, ObjectiveConfig

__all__ = ["Objective", "ObjectiveConfig"]
