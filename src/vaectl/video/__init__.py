"""Video in and out: facts, reading, finding clips in a tree, frame transforms. Knows no model and no console."""

from vaectl.video.clip import Clip, ColorTags, VideoInfo
from vaectl.video.find import find_videos
from vaectl.video.probe import probe
from vaectl.video.read import VideoReader, read_video
from vaectl.video.transform import resize, target_size
from vaectl.video.write import VideoWriter, write_video

__all__ = [
    "Clip",
    "ColorTags",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "find_videos",
    "probe",
    "read_video",
    "resize",
    "target_size",
    "write_video",
]
