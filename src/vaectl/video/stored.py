"""Prepare a decoded frame for the colour conversion: crop it as the container says, and set the chroma location.

FFmpeg's filters do both on the stored frame. Cropping after the conversion would mix cropped colours into the border.

If neither decoder nor container gives a chroma location: 4:2:0, 4:2:2 and 4:1:1 videos are co-sited with every second
(fourth) pixel of a line, as in MPEG-2 and all later digital standards. Still images are centred, as in JPEG and WebP.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from av.filter import Graph
from av.video.frame import VideoFrame

from vaectl.video.crop import Crop

# FFmpeg's decoders of these codecs set the location. (AV1: if the stream has one.)
_SITED_CODECS = frozenset(
    {"h261", "h263", "h263i", "h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3"}
    | {"mjpeg", "mjpegb", "amv", "sp5x", "thp", "ljpeg", "theora", "vp3", "dvvideo", "speedhq"}
)


def is_sited(codec: str, container: str, extradata: bytes | None, *, still: bool) -> bool:
    """Whether the chroma location needs no correction: decoder or container set it, or it is centred by definition.

    Args:
        codec: FFmpeg's name of the decoder.
        container: FFmpeg's name of the format.
        extradata: the configuration record of the codec.
        still: whether it is a still image.
    """
    if codec in ("libdav1d", "av1", "libaom-av1"):  # chroma_sample_position of the AV1 codec configuration record
        return extradata is None or len(extradata) < 4 or extradata[2] & 3 != 0
    return still or codec in _SITED_CODECS or container == "yuv4mpegpipe"


class StoredFrames:
    """Prepares the frames of one stream. Its only state is a filter graph."""

    def __init__(self, crop: Crop, *, is_sited: bool) -> None:
        self._crop = crop
        self._sited = is_sited
        self._graph: Graph | None = None
        self._kind: tuple[int, int, str] | None = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Return the shown part of `frame` with its chroma location; `frame` itself if nothing changes."""
        filters = list(self._filters(frame))
        if not filters:
            return frame
        kind = frame.width, frame.height, frame.format.name
        if self._graph is None or kind != self._kind:
            self._graph, self._kind = _graph(frame, filters), kind
        self._graph.push(frame)
        shown = self._graph.pull()
        assert isinstance(shown, VideoFrame)
        shown.colorspace, shown.color_range = frame.colorspace, frame.color_range
        shown.color_primaries, shown.color_trc = frame.color_primaries, frame.color_trc
        return shown

    def _filters(self, frame: VideoFrame) -> Iterable[tuple[str, str]]:
        top, bottom, left, right = self._crop
        if any(self._crop):
            yield "crop", f"{frame.width - left - right}:{frame.height - top - bottom}:{left}:{top}:exact=1"
        if self._sited:
            return
        luma, *chroma = frame.format.components
        if chroma and not frame.format.is_rgb and chroma[0].width < luma.width:
            yield "setparams", "chroma_location=left"


def _graph(frame: VideoFrame, filters: Iterable[tuple[str, str]]) -> Graph:
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        *(graph.add(name, options) for name, options in filters),
        graph.add("buffersink"),
    ).configure()
    return graph
