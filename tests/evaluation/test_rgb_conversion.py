"""`rgb_conversion`: the numbers of published code, and what a folder of results says about it."""

import json
from pathlib import Path

import pytest
import torch

import vaectl
from tests.jobs import Listener, run_one
from tests.video.media import encode
from tests.video.test_swscale import by_pyav
from vaectl.cli.app import main
from vaectl.errors import UsageError
from vaectl.evaluation.manifest import MANIFEST, read_manifest
from vaectl.evaluation.prepare import prepare
from vaectl.options import PrepareEvalOptions
from vaectl.video import read_video
from vaectl.video.transform import scale_and_crop

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    """A clip of 5 frames in `in`."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    encode(Path("in/a.mp4"), 5)


def run_prepare(**given) -> None:
    small = {"num_frames": 5, "resolution": 24, "device": "cpu", "num_workers": 1}
    paths = {"real_video_dir": Path("in"), "generated_video_dir": Path("out")}
    prepare(PrepareEvalOptions(**{**paths, **small, **given}), Listener())


def measure(generated: Path | None = Path("out"), **given):
    return vaectl.evaluate(Path("in"), generated, metrics="psnr", device="cpu", **given)


def same_numbers(evaluation, real: torch.Tensor, generated: torch.Tensor) -> bool:
    return evaluation.clips[0].means == vaectl.evaluate(real, generated, metrics="psnr", device="cpu").means


def test_a_real_pair_has_the_published_numbers(samples):
    pair = samples / "carphone_pristine.mp4", samples / "carphone_distorted.mp4"
    for conversion, psnr, ssim in (("accurate", 23.518, 0.7201), ("swscale", 23.493, 0.7163)):
        got = vaectl.evaluate(*pair, metrics="psnr,ssim", resolution=144, rgb_conversion=conversion, device="cpu")
        assert (got.means["psnr"], got.means["ssim"]) == (pytest.approx(psnr, abs=6e-4), pytest.approx(ssim, abs=6e-5))
        assert got.protocol["clips"]["rgb_conversion"] == conversion
    frames = [by_pyav(path)[:33, ..., 16:160] for path in pair]
    assert got.means == vaectl.evaluate(*frames, metrics="psnr,ssim", device="cpu").means


def test_prepare_reads_with_it_and_the_manifest_decides_in_eval():
    run_prepare(output_origin=True, rgb_conversion="swscale")
    inputs = scale_and_crop(by_pyav(Path("in/a.mp4")), 24, 24)
    assert torch.equal(read_video("out/origin/a.mkv").frames, inputs)
    assert not torch.equal(inputs, scale_and_crop(read_video("in/a.mp4").frames, 24, 24))
    manifest = read_manifest(Path("out"))
    assert manifest is not None
    assert manifest.protocol.rgb_conversion == "swscale"

    for given in ({}, {"rgb_conversion": "swscale"}, {"rgb_conversion": "accurate", "as_prepared": True}):
        got = measure(**given)
        assert same_numbers(got, inputs, read_video("out/a.mkv").frames)
        assert got.protocol["clips"]["rgb_conversion"] == "swscale"
    with pytest.raises(UsageError, match=r"were prepared with `rgb_conversion=swscale`, not accurate; leave these"):
        measure(rgb_conversion="accurate")
    with pytest.raises(UsageError, match=r"was prepared with `rgb_conversion` swscale \(now accurate\)"):
        run_prepare(output_origin=True)
    # In one step: the same numbers.
    one = measure(None, model="builtin", num_frames=5, resolution=24, rgb_conversion="swscale")
    assert one.clips[0].means == measure().clips[0].means


def test_results_without_loss_are_the_same_bits_and_lossy_ones_are_read_as_prepared():
    run_prepare(rgb_conversion="swscale")
    assert torch.equal(read_video("out/a.mkv", rgb_conversion="swscale").frames, read_video("out/a.mkv").frames)
    run_prepare(rgb_conversion="swscale", format="mp4", generated_video_dir=Path("lossy"))
    inputs = scale_and_crop(by_pyav(Path("in/a.mp4")), 24, 24)
    with pytest.warns(UserWarning, match="lossy: its clips are lossy"):
        assert same_numbers(measure(Path("lossy")), inputs, by_pyav(Path("lossy/a.mp4")))
    assert not torch.equal(by_pyav(Path("lossy/a.mp4")), read_video("lossy/a.mp4").frames)


def test_results_of_another_tool_are_read_with_it():
    Path("made").mkdir()
    encode(Path("made/a.mp4"), 5, options={"qp": "40"})
    got = measure(Path("made"), num_frames=5, resolution=48, crop_size=0, rgb_conversion="swscale")
    assert same_numbers(got, by_pyav(Path("in/a.mp4")), by_pyav(Path("made/a.mp4")))


def test_a_manifest_of_an_earlier_version_means_accurate():
    run_prepare()
    values = json.loads(Path("out", MANIFEST).read_text())
    del values["protocol"]["rgb_conversion"]
    Path("out", MANIFEST).write_text(json.dumps(values))
    run_prepare()  # continues, and has nothing to do
    with pytest.raises(UsageError, match="`rgb_conversion=accurate`, not swscale"):
        measure(rgb_conversion="swscale")


def test_reconstruct_reads_with_it_and_writes_as_before():
    result = run_one(
        Path("in/a.mp4"), Path("out.mkv"), side_by_side=True, lossless=True, rgb_conversion="swscale", dtype="float32"
    )
    original, reconstruction = read_video("out.mkv").frames.chunk(2, dim=3)
    assert torch.equal(original, by_pyav(Path("in/a.mp4")))
    assert result.psnr == pytest.approx(vaectl.evaluate(original, reconstruction, metrics="psnr").means["psnr"])
    assert json.loads(Path("out.mkv.vaectl.json").read_text())["options"]["rgb_conversion"] == "swscale"


def test_the_command_line_names_it_where_it_is_not_the_default(capsys):
    Path("eval.toml").write_text('rgb_conversion = "swscale"\nmetric = "psnr"\ndevice = "cpu"\n')
    command = ["eval", "--real-video-dir", "in", "--generated-video-dir", "in", "--num-frames", "5"]
    assert main([*command, "--config", "eval.toml", "--print-config"]) == 0
    assert 'rgb_conversion = "swscale"' in capsys.readouterr().out
    assert main([*command, "--config", "eval.toml"]) == 0
    assert "frames: 5; RGB by swscale; shorter side to 256" in capsys.readouterr().out
    assert main([*command, "--metric", "psnr", "--device", "cpu"]) == 0
    assert "frames: 5; shorter side to 256" in capsys.readouterr().out
    prepared = ["prepare-eval", "--real-video-dir", "in", "--generated-video-dir", "out", "--num-frames", "5"]
    assert main([*prepared, "--resolution", "24", "--rgb-conversion", "swscale", "--device", "cpu"]) == 0
    assert "5 of each clip, 24x24, RGB by swscale" in capsys.readouterr().out
    assert main([*command, "--rgb-conversion", "fast"]) == 2
    assert "--rgb-conversion: must be 'accurate' or 'swscale', not 'fast'" in capsys.readouterr().err
