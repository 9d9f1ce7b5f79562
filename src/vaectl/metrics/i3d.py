"""I3D: the network whose features FVD compares. Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017).

The layers and their names are those of DeepMind's network for RGB, which classifies videos into the 400 actions of
Kinetics. Its batch norms have no scale. They are folded into the convolutions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.models.convolution import Triple, conv3d

SIDE = 224
"""Height and width of the frames."""
MIN_FRAMES = 9
"""Fewer leave less than the two frames that the last pool needs, after time is halved three times."""
EPSILON = 1e-3
"""Of the batch norms."""


class I3D(nn.Sequential):
    """Maps clips (B, 3, T, 224, 224), RGB in [-1, 1], to their logits, averaged over time: (B, 400). T >= 9."""

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                Conv3d_1a_7x7=Convolution(3, 64, 7, stride=2),
                MaxPool3d_2a_3x3=MaxPool((1, 3, 3), (1, 2, 2)),
                Conv3d_2b_1x1=Convolution(64, 64),
                Conv3d_2c_3x3=Convolution(64, 192, 3),
                MaxPool3d_3a_3x3=MaxPool((1, 3, 3), (1, 2, 2)),
                Mixed_3b=Mixed(192, 64, (96, 128), (16, 32), 32),
                Mixed_3c=Mixed(256, 128, (128, 192), (32, 96), 64),
                MaxPool3d_4a_3x3=MaxPool((3, 3, 3), (2, 2, 2)),
                Mixed_4b=Mixed(480, 192, (96, 208), (16, 48), 64),
                Mixed_4c=Mixed(512, 160, (112, 224), (24, 64), 64),
                Mixed_4d=Mixed(512, 128, (128, 256), (24, 64), 64),
                Mixed_4e=Mixed(512, 112, (144, 288), (32, 64), 64),
                Mixed_4f=Mixed(528, 256, (160, 320), (32, 128), 128),
                MaxPool3d_5a_2x2=MaxPool((2, 2, 2), (2, 2, 2)),
                Mixed_5b=Mixed(832, 256, (160, 320), (32, 128), 128),
                Mixed_5c=Mixed(832, 384, (192, 384), (48, 128), 128),
                Logits=Logits(1024, 400),
            )
        )


class Mixed(nn.Module):
    """Four branches side by side, each with its output channels."""

    def __init__(self, inputs: int, a: int, b: tuple[int, int], c: tuple[int, int], d: int) -> None:
        super().__init__()
        self.Branch_0 = named(Conv3d_0a_1x1=Convolution(inputs, a))
        self.Branch_1 = named(Conv3d_0a_1x1=Convolution(inputs, b[0]), Conv3d_0b_3x3=Convolution(*b, 3))
        self.Branch_2 = named(Conv3d_0a_1x1=Convolution(inputs, c[0]), Conv3d_0b_3x3=Convolution(*c, 3))
        self.Branch_3 = named(MaxPool3d_0a_3x3=MaxPool((3, 3, 3), (1, 1, 1)), Conv3d_0b_1x1=Convolution(inputs, d))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


class Convolution(nn.Module):
    """A convolution with the padding "SAME" of TensorFlow, its batch norm, and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride)
        self.kernel, self.stride = (kernel, kernel, kernel), (stride, stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        both, after = same_padding(x.shape[2:], self.kernel, self.stride)
        if any(after):
            x = F.pad(x, [pad for axis in reversed(after) for pad in (0, axis)])
        return conv3d(x, self.conv.weight, self.conv.bias, self.stride, both).relu_()


class MaxPool(nn.Module):
    """A max pool with the padding "SAME" of TensorFlow. Padded positions never win."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        both, _ = same_padding(x.shape[2:], self.kernel, self.stride)
        return F.max_pool3d(x, self.kernel, self.stride, both, ceil_mode=True)  # takes one more at the end if needed


class Logits(nn.Module):
    """The mean over time of the logits of each two neighbouring frames."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.Conv3d_0c_1x1 = named(conv=nn.Conv3d(inputs, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.Conv3d_0c_1x1(F.avg_pool3d(x, (2, 7, 7), stride=1))
        return logits.mean(dim=(2, 3, 4))


def same_padding(sizes: Sequence[int], kernel: Triple, stride: Triple) -> tuple[Triple, Triple]:
    """Return the padding "SAME" of TensorFlow for each axis: on both sides, and more after the last position (0 or 1).

    There is an output for each `stride` inputs, also for the last ones.
    """
    pads = [
        max(0, (-(-size // step) - 1) * step + taps - size)
        for size, taps, step in zip(sizes, kernel, stride, strict=True)
    ]
    t, h, w = pads
    return (t // 2, h // 2, w // 2), (t % 2, h % 2, w % 2)


def fold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return convolutions with a bias, equal to convolutions that batch norms follow.

    From `X.conv.weight` (O, I, T, H, W), `X.bn.bias`, `X.bn.running_mean` and `X.bn.running_var` (O,) to
    `X.conv.weight` and `X.conv.bias`; other names are kept. Raises KeyError for an incomplete batch norm.
    """
    folded = {name: tensor for name, tensor in weights.items() if ".bn." not in name}
    for name in [name.removesuffix(".bn.bias") for name in weights if name.endswith(".bn.bias")]:
        bias, mean, variance = (weights[f"{name}.bn.{part}"] for part in ("bias", "running_mean", "running_var"))
        scale = (variance + EPSILON).rsqrt()
        folded[f"{name}.conv.weight"] = weights[f"{name}.conv.weight"] * scale.view(-1, 1, 1, 1, 1)
        folded[f"{name}.conv.bias"] = bias - mean * scale
    return folded


def check(weights: Mapping[str, Tensor], network: I3D) -> None:
    """Raise ValueError if weights, with batch norms, have other names, shapes or types than those of `network`."""
    shapes: dict[str, torch.Size] = {}
    for name, tensor in network.state_dict().items():
        layer, _, part = name.rpartition(".conv.")
        if part == "bias" and not layer.startswith("Logits."):
            shapes |= {f"{layer}.bn.{each}": tensor.shape for each in ("bias", "running_mean", "running_var")}
        else:
            shapes[name] = tensor.shape
    if weights.keys() != shapes.keys():
        raise ValueError("holds other tensors than I3D has")
    for name, tensor in weights.items():
        if tensor.shape != shapes[name] or not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{name} is {kind} {tuple(tensor.shape)}, not floating-point {tuple(shapes[name])}")


def load_i3d(weights: Mapping[str, Tensor], device: torch.device) -> I3D:
    """Build the network on `device`, in eval mode, frozen. Raises ValueError for other weights."""
    with torch.device("meta"):
        network = I3D()
    check(weights, network)
    folded = {
        name: tensor.contiguous(memory_format=torch.channels_last_3d) if tensor.ndim == 5 else tensor
        for name, tensor in fold({name: tensor.float() for name, tensor in weights.items()}).items()
    }
    network.load_state_dict(folded, assign=True)
    return network.eval().requires_grad_(False).to(device)
