"""Clips for benchmarks: the real ones of `make samples`, and one that moves smoothly."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / ".samples"


def write_clip(path: Path, frames: int, width: int, height: int) -> None:
    """Make a smooth picture that moves."""
    rows, columns = np.mgrid[:height, :width]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            waves = [np.sin((rows * a + columns * b) / 20 + i / 5) for a, b in ((1, 0), (0, 1), (1, 1))]
            picture = np.stack([127.5 + 127.5 * wave for wave in waves], axis=-1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
