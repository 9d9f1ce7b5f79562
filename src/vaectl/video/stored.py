"""What a decoded frame lacks before its colours can be converted: the container's cropping, and where chroma is.

Both are done by FFmpeg's filters, on the frame as it is stored: cropping later would mix the colours of what is cut off
into the border of what is shown.

Chroma siting, where neither decoder nor container says: 4:2:0, 4:2:2 and 4:1:1 of videos are co-sited with every
second (fourth) pixel of a line, as MPEG-2 and all digital standards since have it. Still images are centred, as in JPEG
and WebP.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from av.filter import Graph
from av.video.frame import VideoFrame

from vaectl.video.crop import Crop

# FFmpeg's decoders of these set the location themselves. (AV1: where the stream has one.)
_SITED_CODECS = frozenset(
    {"h261", "h263", "h263i", "h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3"}
    | {"mjpeg", "mjpegb", "amv", "sp5x", "thp", "ljpeg", "theora", "vp3", "dvvideo", "speedhq"}
)


def is_sited(codec: str, container: str, extradata: bytes | None, *, still: bool) -> bool:
    """Whether chroma is where decoder or container say, or is centred because nobody needs to say.

    Args:
        codec: FFmpeg's name of the decoder.
        container: FFmpeg's name of the format.
        extradata: the codec's configuration record.
        still: it is a still image.
    """
    if codec in ("libdav1d", "av1", "libaom-av1"):  # chroma_sample_position of the AV1 codec configuration record
        return extradata is None or len(extradata) < 4 or extradata[2] & 3 != 0
    return still or codec in _SITED_CODECS or container == "yuv4mpegpipe"


class StoredFrames:
    """Brings the frames of one stream to what is shown of them. Holds a filter graph between frames, nothing else."""

    def __init__(self, crop: Crop, *, is_sited: bool) -> None:
        self._crop = crop
        self._sited = is_sited
        self._graph: Graph | None = None
        self._kind: tuple[int, int, str] | None = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """The part of `frame` that is shown, its chroma located; `frame` itself where nothing is to be done."""
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
        luma, *chroma = frame.format.components
        if not self._sited and chroma and not frame.format.is_rgb and chroma[0].width < luma.width:
            yield "setparams", "chroma_location=left"


def _graph(frame: VideoFrame, filters: Iterable[tuple[str, str]]) -> Graph:
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        *(graph.add(name, options) for name, options in filters),
        graph.add("buffersink"),
    ).configure()
    return graph
