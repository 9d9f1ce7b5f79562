"""Training data: any tree of videos as an endless, repeatable sequence of samples. Knows no model."""

from vaectl.video.dataset.clips import ClipDataset, Sample, Source, open_dataset
from vaectl.video.dataset.loader import Batch, ClipLoader
from vaectl.video.dataset.sampling import Sampling

__all__ = ["Batch", "ClipDataset", "ClipLoader", "Sample", "Sampling", "Source", "open_dataset"]
