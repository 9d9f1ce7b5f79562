"""Causal video VAEs in Python: `load_model`, `encode`, `decode`, `read_video`, `write_video`, `evaluate`, `compare`.

Each is imported on first use, so `import vaectl` is fast: it imports no torch and no PyAV.
"""

from typing import TYPE_CHECKING, Any

from vaectl.lazy import attributes

if TYPE_CHECKING:
    from vaectl.evaluation.api import evaluate as evaluate
    from vaectl.evaluation.compare import compare as compare
    from vaectl.models import load_model as load_model
    from vaectl.models import save_model as save_model
    from vaectl.tensors import decode as decode
    from vaectl.tensors import encode as encode
    from vaectl.video import Clip as Clip
    from vaectl.video import VideoReader as VideoReader
    from vaectl.video import VideoWriter as VideoWriter
    from vaectl.video import read_video as read_video
    from vaectl.video import write_video as write_video

_HOMES = {
    "Clip": "vaectl.video",
    "VideoReader": "vaectl.video",
    "VideoWriter": "vaectl.video",
    "compare": "vaectl.evaluation.compare",
    "decode": "vaectl.tensors",
    "encode": "vaectl.tensors",
    "evaluate": "vaectl.evaluation.api",
    "load_model": "vaectl.models",
    "read_video": "vaectl.video",
    "save_model": "vaectl.models",
    "write_video": "vaectl.video",
}

__all__ = ["__version__", *_HOMES]
_get, _ = attributes(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vaectl")
    return _get(name)


def __dir__() -> list[str]:
    return __all__
