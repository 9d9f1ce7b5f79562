"""LPIPS: the distance of two images in the features of a network for image classification.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018), version 0.1. The
networks are defined here, so neither torchvision nor the `lpips` package is imported; only the linear heads are read
from the latter. Training uses the same module as its perceptual loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.errors import DamagedError, VaectlError
from vaectl.io.parsing import parsing, size_of
from vaectl.metrics import MetricSettings
from vaectl.metrics.download import cached
from vaectl.metrics.fingerprint import fingerprint, name_of
from vaectl.metrics.frames import at_least, per_frame_of_all
from vaectl.models.containers import load_pickle
from vaectl.progress import Progress

Net = Literal["alex", "vgg"]

ALEXNET = Path(__file__).parent / "weights" / "alexnet_features.safetensors"
VGG16 = (
    "vgg16-397923af.pth",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "lpips_weights",
)
FINGERPRINTS = {
    "alex": "195266a4c8e96483085621ac3389a6c24f1dd0963c9ac0e001705d24ece83273",
    "vgg": "e7a5a0521f65f1615c3aab84437b37f969539737cec5eb492c06e0321f4bdbc4",
}
"""Of the features of torchvision."""
PUBLISHED = "the published ones"
SMALLEST = {"alex": 31, "vgg": 16}
"""Minimum side of an image in pixels."""
PIXELS = {"alex": 2**18, "vgg": 2**16}
"""Pixels of each side per batch."""


class LPIPS(nn.Module):
    """AlexNet or VGG16 up to its last activation, and a linear head for each of the five depths that are compared.

    Convolutions have torchvision's names (`features.0.weight`, ...).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net: Net = net
        self.features = alexnet_features() if net == "alex" else vgg16_features()
        self.depths = (1, 4, 7, 9, 11) if net == "alex" else (3, 8, 15, 22, 29)
        """The layers of `features` whose output is compared."""
        channels = (64, 192, 384, 256, 256) if net == "alex" else (64, 128, 256, 512, 512)
        self.heads = nn.ParameterList(torch.empty(count) for count in channels)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)

    def forward(self, x_BCHW: Tensor, y_BCHW: Tensor, spatial: bool = False) -> Tensor:
        """Return the distance of each pair of images: (B,), 0 for equal ones. RGB in [-1, 1]. Differentiable.

        Each depth gives a map of distances. With `spatial`, the maps are up-sampled (bilinear) to the size of the
        image, summed and averaged, as in published tables. Without, each map is averaged and the averages are summed,
        as in the training of the metric. Raises UsageError for images that are too small.
        """
        return self.distances(x_BCHW, [y_BCHW], spatial)[0]

    def distances(self, x_BCHW: Tensor, others: Sequence[Tensor], spatial: bool = False) -> list[Tensor]:
        """Return the distances of `x_BCHW` to each of `others`, as a call does, with the features of `x_BCHW` once."""
        at_least(SMALLEST[self.net], x_BCHW, f"lpips ({self.net})")
        height, width = x_BCHW.shape[-2:]
        # Separate passes: a side that needs no gradient stores no activations.
        sides = [(side - self.shift) / self.scale for side in (x_BCHW, *others)]
        sides = [side.contiguous(memory_format=torch.channels_last) for side in sides]
        totals = [x_BCHW.new_zeros(len(x_BCHW)) for _ in others]
        heads = iter(self.heads)
        for index, layer in enumerate(self.features):
            sides = [layer(h) for h in sides]
            if index in self.depths:
                head = next(heads)
                x, *ys = (h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + 1e-10) for h in sides)
                for number, y in enumerate(ys):
                    map_BHW = torch.einsum("bchw,c->bhw", (x - y).square(), head)
                    map_BHW = map_BHW if not spatial else weigh(map_BHW, height, width)
                    totals[number] = totals[number] + map_BHW.mean(dim=(1, 2))
        return totals


def weigh(map_BHW: Tensor, height: int, width: int) -> Tensor:
    """Return a map with the mean of `map_BHW` up-sampled to `height` x `width`, without up-sampling it."""
    rows, columns = (
        F.interpolate(torch.eye(small, device=map_BHW.device)[None], large, mode="linear").mean(dim=(0, 2)) * small
        for small, large in zip(map_BHW.shape[1:], (height, width), strict=True)
    )
    return map_BHW * rows[:, None] * columns


def alexnet_features() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def vgg16_features() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for depth, (count, repeats) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        if depth:
            layers.append(nn.MaxPool2d(2))
        for _ in range(repeats):
            layers += [nn.Conv2d(channels, count, 3, padding=1), nn.ReLU(inplace=True)]
            channels = count
    return nn.Sequential(*layers)


def load_lpips(net: Net, weights: Path | None = None, progress: Progress | None = None) -> LPIPS:
    """Load LPIPS with its trained weights, on the CPU, in eval mode, with frozen parameters.

    `weights` holds the convolutional features under the names of torchvision, as safetensors or as a `.pth` of
    torchvision. Without it, AlexNet comes from the package, and VGG16 from the cache of torch hub; if it is not there,
    it is downloaded and `progress` reports it. Raises VaectlError for a missing or unreadable file, or another network.
    """
    if weights is None:
        instead = ", or use `lpips_net=alex`, which needs no download"
        weights = ALEXNET if net == "alex" else cached(*VGG16, progress, instead)
    model = LPIPS(net)
    features = features_in(weights)
    heads = read(heads_file(net))
    try:
        model.features.load_state_dict({name.removeprefix("features."): tensor for name, tensor in features.items()})
    except RuntimeError:
        name = {"alex": "AlexNet", "vgg": "VGG16"}[net]
        raise VaectlError(f"{weights}: holds other tensors than the features of {name}", "give torchvision's") from None
    for depth, head in enumerate(model.heads):
        head.data.copy_(heads[f"lin{depth}.model.1.weight"].flatten())
    return model.eval().requires_grad_(False)


def weights_name(net: Net, file: Path | None) -> str:
    """Return the name of the convolutional features in results: the same for torchvision's, whatever file has them."""
    if file is None:
        return PUBLISHED
    digest = fingerprint(features_in(file))
    return PUBLISHED if digest == FINGERPRINTS[net] else name_of(file, digest)


def features_in(file: Path) -> dict[str, Tensor]:
    """Return the convolutional features in a file of weights, which may hold a classifier too."""
    return {name: tensor for name, tensor in read(file).items() if name.startswith("features.")}


def heads_file(net: Net) -> Path:
    """Find the heads in the `lpips` package without importing it, because it imports torchvision."""
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        raise VaectlError("the package lpips, which holds weights of the metric, is missing", "pip install lpips")
    return Path(spec.origin).parent / "weights" / "v0.1" / f"{net}.pth"


def read(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a pickle without running its code."""
    size_of(file, "give a file of weights")
    try:
        with parsing(file, "is damaged"):
            stored = load_file(file) if file.suffix == ".safetensors" else load_pickle(file, "cpu")
    except DamagedError:
        stored = {}
    if not stored or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        raise DamagedError(f"{file}: is not a file of weights, or is damaged", "get it again")
    return {str(name): tensor for name, tensor in stored.items()}


class LPIPSMetric:
    """A `SharingMetric`: LPIPS as in the published tables, with spatial maps."""

    unit = ""
    better: Literal["higher", "lower"] = "lower"

    def __init__(self, model: LPIPS, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device
        self.smallest = SMALLEST[model.net]

    def measure(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> Tensor:
        return self.measure_all(real_BTCHW, [generated_BTCHW])[0]

    def measure_all(self, real_BTCHW: Tensor, generated: Sequence[Tensor]) -> list[Tensor]:
        return per_frame_of_all(self._distances, real_BTCHW, generated, self.device, PIXELS[self.model.net])

    def _distances(self, a_NCHW: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
        return self.model.distances(a_NCHW / 127.5 - 1, [b_NCHW / 127.5 - 1 for b_NCHW in others], spatial=True)


def build(settings: MetricSettings, device: torch.device) -> LPIPSMetric:
    return LPIPSMetric(load_lpips(settings.lpips_net, settings.lpips_weights, settings.progress), device)
