"""AdamW with the fused kernel, on convolutions in channels-last memory format."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vaectl.training.adamw import AdamW


def weights_of() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 6, 3, 3, 3), (8, 6, 1, 1, 1), (4, 6, 3, 3), (1, 1, 3, 3, 3), (5, 7), (6,)]
    formats = {5: torch.channels_last_3d, 4: torch.channels_last}
    return [
        nn.Parameter(
            torch.randn(shape, generator=generator).contiguous(
                memory_format=formats.get(len(shape), torch.contiguous_format)
            )
        )
        for shape in shapes
    ]


def train(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int) -> None:
    for _ in range(steps):
        for number, weight in enumerate(weights):
            weight.grad = None if number == 4 else weight.detach().sin()
        optimizer.step()


class Copies(TorchDispatchMode):
    """Counts the tensors that are copied into another memory format."""

    def __init__(self) -> None:
        super().__init__()
        self.strides: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.aten._fused_adamw_.default:
            self.strides += [x.stride() for tensors in arguments[:4] for x in tensors if not x.is_contiguous()]
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("fused", [True, None])
def test_it_is_the_optimizer_of_pytorch(fused):
    ours, theirs = weights_of(), weights_of()
    train(AdamW(ours, lr=0.1, weight_decay=0.1, fused=fused), ours, 3)
    train(torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.1), theirs, 3)
    for mine, weight in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, weight, rtol=1e-5, atol=1e-6)
        assert mine.stride() == weight.stride()


@pytest.mark.parametrize("changed", ["gradients", "state"])
def test_other_memory_formats_give_the_same_weights(changed):
    """The kernel takes values by their place in memory. A state may be of a version with other formats."""
    ours, theirs = weights_of(), weights_of()
    optimizers = AdamW(ours, lr=0.1, fused=True), torch.optim.AdamW(theirs, lr=0.1)
    for optimizer, weights in zip(optimizers, (ours, theirs), strict=True):
        train(optimizer, weights, 2)
    state = optimizers[0].state_dict()
    if changed == "state":
        state["state"] = {
            number: {name: value.contiguous() for name, value in values.items()}
            for number, values in state["state"].items()
        }
    optimizers[0].load_state_dict(state)
    for optimizer, weights in zip(optimizers, (ours, theirs), strict=True):
        for weight in weights:
            gradient = weight.detach().cos()
            weight.grad = gradient.contiguous() if changed == "gradients" else gradient
        optimizer.step()
    for mine, weight in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, weight, rtol=1e-5, atol=1e-6)


def test_the_kernel_gets_tensors_as_they_lie_in_memory():
    weights = weights_of()
    optimizer = AdamW(weights, lr=0.1, fused=True)
    train(optimizer, weights, 1)
    with Copies() as copies:
        train(optimizer, weights, 1)
    assert copies.strides == []
    state = optimizer.state[weights[0]]
    assert state["exp_avg"].shape == state["exp_avg_sq"].shape == weights[0].shape


def test_a_saved_state_is_that_of_pytorch():
    """So a run can be resumed on another device, which has another kernel."""
    weights, others = weights_of(), weights_of()
    ours, theirs = AdamW(weights, lr=0.1, fused=True), torch.optim.AdamW(others, lr=0.1)
    train(ours, weights, 2)
    train(theirs, others, 2)
    mine, state = ours.state_dict()["state"], theirs.state_dict()["state"]
    assert mine.keys() == state.keys()
    for number in state:
        for name, value in state[number].items():
            torch.testing.assert_close(mine[number][name], value, rtol=1e-5, atol=1e-6)
