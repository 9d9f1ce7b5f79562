"""Video files in and out: probing, reading, writing, finding clips in a tree, resizing. Knows no model and no console.

Each name is imported on first use, so plain values (`vaectl.video.clip`) can be imported without PyAV.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "Clip": "clip",
    "ColorTags": "clip",
    "VideoInfo": "clip",
    "VideoReader": "read",
    "VideoWriter": "write",
    "find_videos": "discover",
    "read_video": "read",
    "resize": "transform",
    "target_size": "transform",
    "write_video": "write",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
