"""Training data: any tree of videos as an endless, repeatable sequence of samples. Knows no model."""

from vaectl.data.dataset import ClipDataset, Sample, Source, open_dataset
from vaectl.data.loader import Batch, ClipLoader
from vaectl.data.sampling import Sampling

__all__ = ["Batch", "ClipDataset", "ClipLoader", "Sample", "Sampling", "Source", "open_dataset"]
