"""Training data: trees of videos as an endless, reproducible sequence of samples. Knows no model."""

from vaectl.data.dataset import ClipDataset, Sample, Source, open_dataset
from vaectl.data.loader import Batch, ClipLoader
from vaectl.data.sampling import Sampling

__all__ = ["Batch", "ClipDataset", "ClipLoader", "Sample", "Sampling", "Source", "open_dataset"]
