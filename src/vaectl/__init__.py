"""Causal video VAEs in Python: `load_model`, `read_video`, `write_video`.

Each is imported on first use, so `import vaectl` is fast: it imports no torch and no PyAV.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaectl.models import load_model as load_model
    from vaectl.video import read_video as read_video
    from vaectl.video import write_video as write_video

__all__ = ["__version__", "load_model", "read_video", "write_video"]

_HOMES = {"load_model": "vaectl.models", "read_video": "vaectl.video", "write_video": "vaectl.video"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vaectl")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
