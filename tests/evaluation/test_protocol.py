"""The published protocol: the frames that are compared, and their size."""

from fractions import Fraction

import pytest
import torch

from tests.video.media import cut, encode, number_of
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.protocol import ClipProtocol, protocol_of, read_clip
from vaectl.options import PrepareEvalOptions, parse
from vaectl.video import read_video
from vaectl.video.transform import scale_and_crop

PATHS = {"real_video_dir": "in", "generated_video_dir": "out"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """20 numbered frames of 64x48 at 25 Hz."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", 20)


@pytest.mark.parametrize(("count", "rate"), [(1, 1), (20, 1), (7, 3), (4, 6), (2, 19)])
def test_frames_are_every_nth_from_the_first_on(clip, count, rate):
    got = read_clip(clip, ClipProtocol(count, rate, 48, None))
    assert [number_of(frame) for frame in got.frames] == [rate * index for index in range(count)]
    assert got.timestamps == tuple(Fraction(rate * index, 25) for index in range(count))
    assert got.frame_rate == Fraction(25, rate)


@pytest.mark.parametrize(("count", "rate", "gives"), [(21, 1, 20), (5, 5, 4), (2, 20, 1)])
def test_a_clip_that_is_too_short_is_named_with_what_it_has(clip, count, rate, gives):
    with pytest.raises(VaectlError, match=rf"clip\.mp4: too short: gives {gives} of the {count} frames"):
        read_clip(clip, ClipProtocol(count, rate, 48, None))


@pytest.mark.parametrize(
    ("resolution", "crop", "size"), [(48, 48, (48, 48)), (24, 16, (16, 16)), (96, None, (96, 128)), (33, 33, (33, 33))]
)
def test_the_shorter_side_is_resized_and_the_middle_cut_out(clip, resolution, crop, size):
    got = read_clip(clip, ClipProtocol(9, 2, resolution, crop)).frames
    assert tuple(got.shape) == (9, 3, *size)
    whole = read_video(clip, num_frames=9, sample_rate=2).frames
    assert torch.equal(got, scale_and_crop(whole, resolution, crop))


def test_frames_before_damage_can_be_read(clip):
    short = cut(clip, 0.7)
    with pytest.raises(VaectlError, match=r"cut0\.7_clip\.mp4"):
        read_clip(short, ClipProtocol(20, 1, 48, None))


@pytest.mark.parametrize(("given", "crop"), [({}, 256), ({"crop_size": 0}, None), ({"crop_size": 64}, 64)])
def test_the_default_crop_is_the_square_of_the_resolution(given, crop):
    assert protocol_of(parse(PrepareEvalOptions, PATHS | given)) == ClipProtocol(33, 1, 256, crop)


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="`crop_size=300` does not fit into a `resolution` of 256"):
        parse(PrepareEvalOptions, PATHS | {"crop_size": 300})
