"""vmaf, vmaf_neg, psnr_y and xpsnr are those of FFmpeg's filters, run by hand on the same frames."""

import json
import re
import subprocess

import imageio_ffmpeg
import pytest
import torch

from tests.metrics.reference import CPU, disturbed, noise, smooth
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.results import ClipScores
from vaectl.metrics import MetricSettings, build, codec
from vaectl.metrics.ffmpeg import FFmpeg, find
from vaectl.video import read_video

TO_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp,format=yuv420p"
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def by_hand(directory, filter, real, generated):
    """Write two clips (T, 3, H, W) as Y4M files, and return what the filter reports of them."""
    height, width = real.shape[-2:]
    for name, clip in (("real", real), ("generated", generated)):
        (directory / f"{name}.rgb").write_bytes(clip.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        source = f"-f rawvideo -pixel_format rgb24 -video_size {width}x{height} -framerate 25 -i {name}.rgb"
        command = [FFMPEG, "-v", "error", *source.split(), "-vf", TO_YUV, "-y", f"{name}.y4m"]
        subprocess.run(command, check=True, cwd=directory)
    report = ":log_path=/dev/stdout" if filter.startswith("libvmaf") else ",metadata=print:file=-"
    graph = f"[0:v][1:v]{filter}{report}"
    files = ["-i", "generated.y4m", "-i", "real.y4m"]
    command = [FFMPEG, "-v", "error", *files, "-lavfi", graph, "-f", "null", "-"]
    return subprocess.run(command, check=True, cwd=directory, stdout=subprocess.PIPE, text=True).stdout


def expected(name, directory, real, generated, model="vmaf_v0.6.1"):
    if name in ("vmaf", "vmaf_neg"):
        model += "neg" if name == "vmaf_neg" else ""
        report = by_hand(directory, f"libvmaf=model=version={model}:log_fmt=json", real, generated)
        return [frame["metrics"]["vmaf"] for frame in json.loads(report)["frames"]]
    filter = {"psnr_y": "psnr", "xpsnr": "xpsnr"}[name]
    report = by_hand(directory, filter, real, generated)
    planes = [
        re.findall(rf"{filter}\.{filter}\.{plane}=(.*)", report) for plane in ("y" if filter == "psnr" else "yuv")
    ]
    return [min(map(float, values)) for values in zip(*planes, strict=True)]


def metric_of(name, **settings):
    return build([name], MetricSettings(**settings), CPU)[name]


@pytest.mark.parametrize("name", ["vmaf", "vmaf_neg", "psnr_y", "xpsnr"])
def test_it_is_that_of_ffmpeg_by_hand_on_a_real_pair(name, samples, tmp_path):
    real, generated = (
        read_video(samples / f"carphone_{kind}.mp4", num_frames=12).frames for kind in ("pristine", "distorted")
    )
    result = metric_of(name).measure(real[None], generated[None])
    assert (result.shape, result.dtype) == ((1, 12), torch.float64)
    hand = torch.tensor([expected(name, tmp_path, real, generated)], dtype=torch.float64)
    torch.testing.assert_close(result, hand, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["vmaf", "psnr_y", "xpsnr"])
@pytest.mark.parametrize(("clips", "num_frames", "height", "width"), [(2, 1, 53, 47), (1, 2, 33, 161)])
def test_it_is_that_of_ffmpeg_by_hand_at_odd_sizes(name, clips, num_frames, height, width, tmp_path):
    real = smooth(clips, num_frames, 3, height, width)
    generated = disturbed(real, 8)
    result = metric_of(name).measure(real, generated)
    hand = [expected(name, tmp_path, *pair) for pair in zip(real, generated, strict=True)]
    torch.testing.assert_close(result, torch.tensor(hand, dtype=torch.float64), rtol=0, atol=1e-3)


def test_the_4k_models_are_chosen_by_name(tmp_path):
    real = smooth(1, 2, 3, 64, 96)
    generated = disturbed(real, 12)
    for name in ("vmaf", "vmaf_neg"):
        result = metric_of(name, vmaf_model="vmaf_4k_v0.6.1").measure(real, generated)
        hand = expected(name, tmp_path, real[0], generated[0], "vmaf_4k_v0.6.1")
        assert result[0].tolist() == pytest.approx(hand, abs=1e-3)
        assert (result - metric_of(name).measure(real, generated)).abs().max() > 1


@pytest.mark.parametrize("filter", ["psnr", "xpsnr", "libvmaf"])
def test_every_ffmpeg_here_gives_the_same_numbers(filter):
    real = smooth(1, 3, 3, 96, 128)[0]  # a width at which every libvmaf is right
    generated = disturbed(real, 8)
    read = {"psnr": codec._psnr_y, "xpsnr": codec._xpsnr, "libvmaf": codec._vmaf}[filter]
    arguments = "model=version=vmaf_v0.6.1:log_fmt=json" if filter == "libvmaf" else ""
    ffmpegs = {*find(filter), FFmpeg("imageio-ffmpeg", "", FFMPEG)}
    numbers = [read(ffmpeg.compare(filter, arguments, real, generated)) for ffmpeg in ffmpegs]
    assert len(numbers[0]) == 3
    for others in numbers[1:]:
        assert others == pytest.approx(numbers[0], abs=1e-5)


def test_equal_frames_have_infinite_psnr_and_xpsnr():
    real = noise(1, 2, 3, 48, 48)
    for name in ("psnr_y", "xpsnr"):
        assert metric_of(name).measure(real, real).tolist() == [[float("inf")] * 2]


def test_the_harmonic_mean_is_that_of_libvmaf(tmp_path):
    real = smooth(1, 4, 3, 64, 64)[0]
    generated = torch.stack([disturbed(frame, amount) for frame, amount in zip(real, (2, 10, 30, 80), strict=True)])
    report = json.loads(by_hand(tmp_path, "libvmaf=log_fmt=json", real, generated))
    values = tuple(frame["metrics"]["vmaf"] for frame in report["frames"])
    clip = ClipScores("clip", tmp_path, None, 4, 64, 64, {"vmaf": values, "psnr": (1.0,)})
    assert clip.harmonic_mean("vmaf") == pytest.approx(report["pooled_metrics"]["vmaf"]["harmonic_mean"], abs=1e-5)
    assert clip.harmonic_mean("vmaf") < clip.mean("vmaf") - 1
    assert clip.as_json()["harmonic_mean"] == {"vmaf": clip.harmonic_mean("vmaf")}


@pytest.mark.parametrize(
    ("name", "smallest", "smaller"),
    [
        ("vmaf", [(32, 32), (32, 64), (64, 32)], [(31, 64), (64, 31)]),
        ("vmaf_neg", [(32, 32), (32, 64), (64, 32)], [(31, 64), (64, 31)]),
        ("xpsnr", [(45, 45), (16, 127), (127, 16), (32, 1000)], [(44, 46), (15, 135), (135, 15)]),
        ("psnr_y", [(1, 1), (1, 64), (64, 1)], []),
    ],
)
def test_frames_below_the_smallest_size_are_refused_before_ffmpeg_runs(name, smallest, smaller, monkeypatch):
    metric = metric_of(name)
    for height, width in smallest:
        clips = noise(1, 1, 3, height, width), noise(1, 1, 3, height, width, seed=1)
        assert metric.measure(*clips).isfinite().all()
    monkeypatch.setattr(FFmpeg, "compare", None)
    for height, width in smaller:
        frames = noise(1, 1, 3, height, width)
        with pytest.raises(UsageError, match=rf"^{name} needs frames of at least .*, not {width}x{height}"):
            metric.measure(frames, frames)


def test_clips_of_other_shapes_or_types_are_refused():
    frames = noise(1, 2, 3, 48, 48)
    for other in (frames[:, :1], frames[..., :40], frames.float(), frames[0]):
        with pytest.raises(ValueError, match=r"no pair of clips|frames must be 8-bit"):
            metric_of("psnr_y").measure(frames, other)


def test_xpsnr_takes_large_frames_with_even_sides_alone(monkeypatch):
    monkeypatch.setattr(FFmpeg, "compare", None)
    frames = torch.zeros(1, 1, 3, 1153, 2048, dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"^xpsnr needs even sides above 2048x1152, not 2048x1153"):
        metric_of("xpsnr").measure(frames, frames)
    with pytest.raises(TypeError):  # FFmpeg is asked, which is None here
        metric_of("xpsnr").measure(frames[..., :1152, :1151], frames[..., :1152, :1151])


@pytest.fixture
def answers(monkeypatch):
    """Makes `libvmaf` choose among FFmpegs that answer with these numbers of the known pair, or raise."""

    def start(*numbers):
        def compare(ffmpeg, *_):
            number = numbers[int(ffmpeg.version)]
            if isinstance(number, Exception):
                raise number
            return json.dumps({"version": "1", "frames": [{"metrics": {"vmaf": number}}]})

        ffmpegs = tuple(FFmpeg(f"ffmpeg {place}", str(place), None) for place in range(len(numbers)))
        monkeypatch.setattr(FFmpeg, "compare", compare)
        monkeypatch.setattr(codec, "find", lambda name: ffmpegs)
        codec.libvmaf.cache_clear()
        return codec.libvmaf

    yield start
    codec.libvmaf.cache_clear()


def test_the_first_libvmaf_with_the_right_number_measures(answers):
    right, wrong, broken = 90.188163, 79.980191, VaectlError("broken")
    assert answers(wrong, broken, right, right)().ffmpeg.origin == "ffmpeg 2"
    with pytest.raises(VaectlError, match=r"^broken"):
        answers(broken)()


def test_where_none_is_right_doubtful_widths_are_refused(answers):
    chosen = answers(79.980191, 79.980191)()
    assert (chosen.ffmpeg.origin, chosen.exact) == ("ffmpeg 0", False)
    metric = codec.FilterMetric("vmaf", chosen.ffmpeg, "libvmaf", "", 32, codec._vmaf)
    for width in (64, 256, 544):
        assert metric.measure(*[noise(1, 1, 3, 40, width)] * 2).shape == (1, 1)
    for width in (33, 144, 272):
        with pytest.raises(VaectlError, match=f"is wrong for frames {width} pixels wide; run pip install"):
            metric.measure(*[noise(1, 1, 3, 40, width)] * 2)
