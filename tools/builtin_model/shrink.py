"""Make small copies of the training data that are fast to read: shrink.py FROM TO

The shorter side is reduced to 256 pixels for clips and 720 for photographs. Clips are stored without compression,
because training on two cores leaves no time to decode.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
from PIL import Image

from vaectl.video import read_video, resize, target_size

CLIP, PHOTO = 256, 720


def shrink_clip(source: Path, target: Path) -> None:
    frames = read_video(source).frames
    height, width = frames.shape[-2:]
    width, height = target_size(width, height, short_size=min(CLIP, height, width))
    with av.open(str(target), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr24"
        for frame in resize(frames, width, height).permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr24")))
        container.mux(stream.encode())


def shrink_photo(source: Path, target: Path) -> None:
    picture = Image.open(source).convert("RGB")
    scale = min(1, PHOTO / min(picture.size))
    if scale < 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3)
    picture.save(target, quality=95, subsampling=0)


def main() -> None:
    source, target = (Path(argument) for argument in sys.argv[1:])
    for part, suffix, shrunk in (("clips", ".avi", shrink_clip), ("photos", ".jpg", shrink_photo)):
        (target / part).mkdir(parents=True)
        for path in sorted((source / part).iterdir()):
            shrunk(path, target / part / (path.stem + suffix))


if __name__ == "__main__":
    main()
