"""Flicker compares how much neighbouring frames differ."""

import pytest
import torch

from tests.metrics.reference import CPU, noise
from vaectl.errors import UsageError
from vaectl.metrics.flicker import Flicker


def test_it_is_the_difference_of_mean_changes():
    real, generated = noise(2, 4, 3, 9, 7), noise(2, 4, 3, 9, 7, seed=1) // 2
    changes = [clips.double().diff(dim=1).abs().mean(dim=(2, 3, 4)) for clips in (real, generated)]
    result = Flicker(CPU).measure(real, generated)
    assert result.shape == (2, 3)
    torch.testing.assert_close(result, (changes[1] - changes[0]).abs(), rtol=0, atol=1e-12)


def test_only_movement_counts():
    real = noise(1, 3, 3, 8, 8) // 2
    metric = Flicker(CPU)
    assert metric.measure(real, real + 100).tolist() == [[0, 0]]
    blinking = torch.zeros(1, 3, 3, 8, 8, dtype=torch.uint8)
    blinking[:, 1] = 255
    still = torch.full_like(blinking, 255)
    assert metric.measure(still, blinking).tolist() == metric.measure(blinking, still).tolist() == [[255, 255]]


def test_a_single_frame_cannot_flicker():
    with pytest.raises(UsageError, match=r"^flicker needs clips of at least 2 frames"):
        Flicker(CPU).measure(noise(1, 1, 3, 8, 8), noise(1, 1, 3, 8, 8))
