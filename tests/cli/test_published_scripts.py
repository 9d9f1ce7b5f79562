"""Every flag of the published scripts is taken by a command, or is listed as not taken and answered with a message."""

import json
import re
from typing import Any

import pytest
import typer

from tests.conftest import ROOT
from tests.test_documentation import PUBLISHED, model_of
from vaectl.cli.app import app, main
from vaectl.cli.derive import resolve
from vaectl.options import dump

PAGE = (ROOT / "docs" / "published-scripts.md").read_text()
LISTED = PAGE.partition("\n## Not taken\n")[2].partition("\n## ")[0]

TAKEN = {
    "train_ddp.py": (
        "train",
        """--exp_name wfvae --seed 1234 --epochs 10 --max_steps 100 --save_ckpt_step 1000 --ckpt_dir ./results/
        --batch_size 1 --lr 1e-5 --weight_decay 1e-4 --log_steps 5 --freeze_encoder --clip_grad_norm 1e5
        --video_path clips --num_frames 17 --resolution 256 --sample_rate 2 --dynamic_sample --ignore_mismatched_sizes
        --find_unused_parameters --pretrained_model_name_or_path model --model_name WFVAE
        --resume_from_checkpoint x.ckpt
        --not_resume_training_process --enable_tiling --model_config config.json --mix_precision bf16 --wavelet_loss
        --not_resume_discriminator --not_resume_optimizer --wavelet_weight 0.1 --load_disc_from_checkpoint x.ckpt
        --disc_cls causalvideovae.model.losses.LPIPSWithDiscriminator3D --disc_start 5 --disc_weight 0.5
        --kl_weight 1e-06 --perceptual_weight 1.0 --loss_type l1 --logvar_init 0.0 --eval_steps 1000
        --eval_video_path clips --eval_num_frames 17 --eval_resolution 256 --eval_sample_rate 1 --eval_batch_size 8
        --eval_subset_size 100 --eval_num_video_log 2 --eval_lpips --dataset_num_worker 4 --ema --ema_decay 0.999""",
    ),
    "recon_single_video.py": (
        "reconstruct",
        """--video_path in.mp4 --rec_path out.mp4 --model_name WFVAE --from_pretrained model --fps 30 --height 336
        --width 336 --num_frames 100 --sample_rate 1 --device cuda --enable_tiling""",
    ),
    "recon_single_image.py": (
        "reconstruct",
        """--image_path in.png --rec_path out.png --model_name WFVAE --from_pretrained model --short_size 336
        --device cuda""",
    ),
    "recon_video.py": (
        "prepare-eval",
        """--real_video_dir in --generated_video_dir out --from_pretrained model --sample_fps 30 --resolution 336
        --crop_size_width 256 --crop_size_height 256 --num_frames 17 --sample_rate 1 --batch_size 1 --num_workers 8
        --subset_size 0 --tile_overlap_factor 0.25 --enable_tiling --output_origin --model_name WFVAE --device cuda""",
    ),
    "eval.py": (
        "eval",
        """--batch_size 2 --real_video_dir in --fvd_method styleganv --generated_video_dir out --device cuda
        --num_workers 8 --sample_fps 30 --resolution 336 --crop_size 336 --num_frames 100 --sample_rate 1
        --subset_size 0 --mp --metric fvd""",
    ),
}
"""Every script with arguments that has a command, and every argument that it declares."""

NOT_TAKEN = {
    "save_hf_model.py": "--model_name --from_pretrained --output_path",
    "vae_var_test.py": """--real_video_dir --from_pretrained --sample_fps --resolution --crop_size --num_frames
        --sample_rate --batch_size --num_workers --subset_size --model_name --device""",
}
"""Every other script with arguments."""


def options_of(command: str, words: list[str]) -> Any:
    """The options of a command line, without running the command."""
    group = typer.main.get_command(app)
    context = group.make_context("vaectl", [command, *words])
    _, parser, rest = group.resolve_command(context, [command, *words])
    typed = parser.make_context(command, rest, parent=context).params
    return resolve(model_of(command), {name: value for name, value in typed.items() if value not in (None, ())})


@pytest.mark.parametrize("dashes", [False, True])
@pytest.mark.parametrize("script", TAKEN)
def test_a_command_line_with_every_argument_of_a_script_is_accepted(script, dashes):
    command, line = TAKEN[script]
    words = [word.replace("_", "-") if dashes and word.startswith("--") else word for word in line.split()]
    assert options_of(command, words)


@pytest.mark.parametrize("script", TAKEN)
def test_every_argument_of_a_script_is_documented(script):
    command, line = TAKEN[script]
    assert f"`{script}`" in PAGE
    assert {word for word in line.split() if word.startswith("--")} <= set(PUBLISHED[command].split())


@pytest.mark.parametrize("script", NOT_TAKEN)
def test_what_is_not_taken_is_listed_and_answered(script, capsys):
    (row,) = (line for line in LISTED.splitlines() if line.startswith(f"| `{script}`"))
    assert set(re.findall(r"`(--\w+)`", row)) == set(NOT_TAKEN[script].split())
    assert main([script.removesuffix(".py"), "--model_name", "x"]) == 2
    assert "No such command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        ("eval", "--metric flolpips", "'flolpips'; the published script computes lpips by this name; use lpips"),
        ("eval", "--fvd_method videogpt", "--fvd-method: must be styleganv, the method of the published tables"),
        ("prepare-eval", "--crop_size_width 256 --crop_size_height 128", "have to be equal: crops are squares"),
        ("prepare-eval", "--crop_size_width 256", "have to be equal: crops are squares; give --crop-size"),
        ("prepare-eval", "--crop_size 64 --crop_size_width 32 --crop_size_height 32", "have to be equal"),
    ],
)
def test_values_that_are_not_taken_are_listed_and_answered(command, flags, said, capsys):
    assert main([command, "--real_video_dir", "in", "--generated_video_dir", "out", *flags.split()]) == 2
    assert said in capsys.readouterr().err
    assert f"`{flags.split()[0]}" in LISTED


def test_the_sides_of_the_crop_are_the_crop():
    paths = ["--real_video_dir", "in", "--generated_video_dir", "out"]
    assert options_of("prepare-eval", [*paths, "--crop_size_width=128", "--crop_size_height=128"]).crop_size == 128
    assert options_of("prepare-eval", paths).crop_size is None


def test_another_crop_overrides_the_sides_that_a_manifest_records(tmp_path):
    paths = ["--real_video_dir", "in", "--generated_video_dir", "out"]
    first = options_of("prepare-eval", [*paths, "--crop_size_width=32", "--crop_size_height=32"])
    (tmp_path / "manifest.json").write_text(json.dumps({"options": dump(first)}))
    again = options_of("prepare-eval", ["--config", str(tmp_path / "manifest.json"), "--crop-size=16"])
    assert (first.crop_size, again.crop_size) == (32, 16)
