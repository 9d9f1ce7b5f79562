"""What the tests of metrics share: frames, and the `lpips` package, which imports torchvision."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def disturbed(frames: Tensor, amount: float, seed: int = 1) -> Tensor:
    """The frames with Gaussian noise of that many levels."""
    more = amount * torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed))
    return (frames + more).round().clamp(0, 255).byte()


def smooth(*shape: int, seed: int = 0) -> Tensor:
    """Frames (..., H, W) that look a little like pictures: large and small blobs, no flat values."""
    generator = torch.Generator().manual_seed(seed)
    *batch, height, width = shape
    frames = torch.zeros(1, *[int(torch.tensor(batch).prod())], height, width)
    for size, weight in ((3, 90.0), (9, 30.0), (33, 10.0)):
        blobs = torch.randn(1, frames.shape[1], size, size, generator=generator)
        frames += weight * nn.functional.interpolate(blobs, (height, width), mode="bicubic")
    return (frames + 128).round().clamp(0, 255).byte().view(shape)


def import_lpips() -> ModuleType:
    """The `lpips` package, also where torchvision was built for another PyTorch than the one here.

    Its compiled operators are then missing, and it refuses to be imported, though LPIPS needs none of them. Declaring
    their names is enough; only then, because a second declaration would break a torchvision that works.
    """
    try:
        import lpips
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] in ("lpips", "torchvision")]:
            del sys.modules[name]
        spec = find_spec("torchvision")
        assert spec is not None
        assert spec.origin is not None
        source = (Path(spec.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
        library = torch.library.Library("torchvision", "DEF")
        import_lpips.library = library  # type: ignore[attr-defined]  # it ends with the last reference
        for name in sorted(set(re.findall(r'(?:register_meta\("|torchvision::)(\w+)"', source))):
            library.define(f"{name}(Tensor x) -> Tensor")
        import lpips
    return lpips


def package_lpips(net: str, features: nn.Sequential, spatial: bool) -> Any:
    """The package's LPIPS with its own heads, and the convolutions of `features`."""
    model = import_lpips().LPIPS(net=net, pnet_rand=True, spatial=spatial, verbose=False)
    layers = [layer for part in range(1, 6) for layer in getattr(model.net, f"slice{part}")]
    for theirs, ours in zip(layers, features, strict=True):
        theirs.load_state_dict(ours.state_dict())
    return model
