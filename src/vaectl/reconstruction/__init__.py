"""The job of `vaectl reconstruct`: videos through a model and back."""

from vaectl.reconstruction.job import ClipResult as ClipResult
from vaectl.reconstruction.job import RunResult as RunResult
from vaectl.reconstruction.job import reconstruct as reconstruct
