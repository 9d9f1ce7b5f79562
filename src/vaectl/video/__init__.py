"""Video files in and out: probing, reading, writing, finding clips in a tree, resizing. Knows no model and no console.

Each name is imported on first use, so plain values (`vaectl.video.clip`) can be imported without PyAV.
"""

from typing import TYPE_CHECKING

from vaectl.lazy import attributes

if TYPE_CHECKING:
    from vaectl.video.clip import Clip as Clip
    from vaectl.video.clip import ColorTags as ColorTags
    from vaectl.video.clip import VideoInfo as VideoInfo
    from vaectl.video.discover import find_videos as find_videos
    from vaectl.video.read import VideoReader as VideoReader
    from vaectl.video.read import read_video as read_video
    from vaectl.video.transform import resize as resize
    from vaectl.video.transform import target_size as target_size
    from vaectl.video.write import VideoWriter as VideoWriter
    from vaectl.video.write import write_video as write_video

_HOMES = {
    "Clip": "vaectl.video.clip",
    "ColorTags": "vaectl.video.clip",
    "VideoInfo": "vaectl.video.clip",
    "VideoReader": "vaectl.video.read",
    "VideoWriter": "vaectl.video.write",
    "find_videos": "vaectl.video.discover",
    "read_video": "vaectl.video.read",
    "resize": "vaectl.video.transform",
    "target_size": "vaectl.video.transform",
    "write_video": "vaectl.video.write",
}

__all__ = list(_HOMES)
__getattr__, __dir__ = attributes(__name__, _HOMES)
