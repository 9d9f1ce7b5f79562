"""A run that goes on: where it stopped, with what it had, and with what it is told now."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tests.jobs import Listener
from tests.training.runs import NANO, PLAIN, WAN, lines, names, nano, options, run, weights
from vaectl.errors import UsageError, VaectlError
from vaectl.models import convolution, winograd_training
from vaectl.models.checkpoint import load_model
from vaectl.options import parse
from vaectl.options.train import TrainOptions
from vaectl.training.resume import contradictions, recordable, underlying
from vaectl.training.run_log import size_up_to

EVERYTHING = {
    "ema": True,
    "disc_weight": 0.5,
    "disc_start": 1,
    "perceptual_weight": 0.5,
    "lpips_net": "alex",
    "resolution": 32,
    "batch_size": 1,
    "gradient_accumulation_steps": 2,
    "lr_schedule": "cosine",
    "warmup_steps": 2,
    "clip_grad_norm": 1.0,
    "random_crop": True,
    "flip": True,
    "dynamic_sample": True,
    "sample_rate": 2,
}
"""Every part of the state of a run."""


@pytest.mark.parametrize(("stop", "config"), [(3, NANO), (4, NANO), (4, WAN)], ids=["3", "4", "4-wan"])
def test_a_run_in_two_goes_is_the_run_in_one_bit_for_bit(videos, tmp_path, stop, config):
    given = {**EVERYTHING, "wavelet_loss": config is NANO, "model_config": str(nano(tmp_path, config))}
    whole = run(videos, tmp_path, exp_name="whole", max_steps=7, save_ckpt_step=stop, **given)
    part = whole.run.with_name("part")
    shutil.copytree(whole.run, part, symlinks=True)
    for step in (6, 7):
        shutil.rmtree(part / f"checkpoint-{step:08d}", ignore_errors=True)
    (part / "metrics.jsonl").open("ab").write(b'{"step": 8, "lo')
    listener = Listener()
    resumed = run(videos, tmp_path, listener, exp_name="part", resume_from_checkpoint="latest")
    assert [note for note in listener.notes if f"at step {stop}" in note]
    assert listener.warnings == []
    assert (whole.run / "metrics.jsonl").read_bytes() == (part / "metrics.jsonl").read_bytes()
    shown = [(result.checkpoint / "diffusion_pytorch_model.safetensors").read_bytes() for result in (whole, resumed)]
    assert shown[0] == shown[1]
    state = [torch.load(result.checkpoint / "training_state.pt", weights_only=True) for result in (whole, resumed)]
    assert flat(state[0]) == flat(state[1])


WIDE = {**NANO, "base_channels": 24}
"""Has layers of 96 channels, which train through Winograd's algorithm in float32 on the CPU."""


@pytest.mark.parametrize(("config", "precision"), [(NANO, "bfloat16"), (WIDE, "float32")], ids=["bfloat16", "wide"])
def test_so_is_one_in_bfloat16_and_one_of_a_wide_model(videos, tmp_path, monkeypatch, config, precision):
    used, convolve = [], winograd_training.causal_convolve
    monkeypatch.setattr(
        winograd_training, "causal_convolve", lambda *x, **given: used.append(x[1].dtype) or convolve(*x, **given)
    )
    given = {"model_config": str(nano(tmp_path, config)), "mix_precision": precision, "resolution": 32, "batch_size": 4}
    whole = run(videos, tmp_path, exp_name="whole", max_steps=4, save_ckpt_step=2, **given)
    part = whole.run.with_name("part")
    shutil.copytree(whole.run, part, symlinks=True)
    shutil.rmtree(part / "checkpoint-00000004")
    listener = Listener()
    resumed = run(videos, tmp_path, listener, exp_name="part", resume_from_checkpoint="latest")
    assert [note for note in listener.notes if "at step 2" in note]
    assert (whole.run / "metrics.jsonl").read_bytes() == (part / "metrics.jsonl").read_bytes()
    state = [torch.load(result.checkpoint / "training_state.pt", weights_only=True) for result in (whole, resumed)]
    assert flat(state[0]) == flat(state[1])
    assert bool(used) == (convolution.WINOGRAD and config is WIDE)


def flat(state):
    """Nested state as values that can be compared: tensors as their bytes."""
    if isinstance(state, dict):
        return {key: flat(value) for key, value in state.items()}
    if isinstance(state, list):
        return [flat(value) for value in state]
    return state.numpy().tobytes() if isinstance(state, torch.Tensor) else state


def test_latest_begins_anew_where_there_is_nothing(videos, tmp_path):
    assert (
        run(videos, tmp_path, resume_from_checkpoint="latest", model_config=str(nano(tmp_path)), max_steps=2).step == 2
    )


def test_a_checkpoint_brings_its_options_and_a_few_may_change(videos, tmp_path):
    first = run(videos, tmp_path, max_steps=2, weight_decay=0.5, json=True)
    again = options(videos, tmp_path, resume_from_checkpoint="latest", max_steps=4, keep=1)
    assert (again.weight_decay, again.max_steps, again.keep, again.json) == (0.5, 4, 1, False)
    result = run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=4, keep=1)
    assert result.step == 4
    assert names(result.run) & {first.checkpoint.name, result.checkpoint.name} == {result.checkpoint.name}


def test_options_that_contradict_the_checkpoint_are_named(videos, tmp_path):
    run(videos, tmp_path, max_steps=2)
    with pytest.raises(UsageError, match=r"`batch_size` is 1, not 2; `kl_weight` is 0.5, not 1e-06; pass `accept") as e:
        run(videos, tmp_path, resume_from_checkpoint="latest", kl_weight=0.5, batch_size=1, max_steps=4)
    assert "\n" not in str(e.value)
    listener = Listener()
    more = {"kl_weight": 0.5, "accept_changes": True, "max_steps": 4}
    assert run(videos, tmp_path, listener, resume_from_checkpoint="latest", **more).step == 4
    assert ["`kl_weight` is 0.5, not 1e-06" in warning for warning in listener.warnings] == [True]


@pytest.mark.parametrize("how", [{"accept_changes": True}, {"not_resume_training_process": True, "exp_name": "next"}])
def test_how_a_run_started_cannot_change(videos, tmp_path, begun, how):
    shutil.copytree(begun, tmp_path / "results", symlinks=True)
    given = {
        "model": "builtin",
        "model_config": "other.json",
        "weights": "raw",
        "ignore_mismatched_sizes": True,
        "recipe": "stage2",
        "load_disc_from_checkpoint": "other",
        "init": "pca",
    }
    for name, value in given.items():
        source = tmp_path / "results" / ("new" if name == "init" else "from-model")
        before = (source / "options.json").read_bytes()
        resume = {"exp_name": source.name, "resume_from_checkpoint": str(source), "max_steps": 2, **how}
        with pytest.raises(UsageError, match=f"`{name}` is .*; leave out `{name}`: .*; or start a new run$") as error:
            run(videos, tmp_path, **{name: value}, **resume)
        assert "\n" not in str(error.value)
        assert (source / "options.json").read_bytes() == before
    same = {name: json.loads(before)[name] for name in given}
    assert run(videos, tmp_path, **same, **resume).step == 2


@pytest.fixture(scope="module")
def begun(videos, tmp_path_factory):
    """Two runs of one step: of a new model, and from that model, with a discriminator."""
    here = tmp_path_factory.mktemp("begun")
    new = run(videos, here, exp_name="new", max_steps=1)
    given = {"disc_weight": 0.5, "disc_start": 0, "resolution": 32, "batch_size": 1, "max_steps": 1}
    run(videos, here, exp_name="from-model", model=str(new.checkpoint), **given)
    return here / "results"


def test_the_same_name_of_a_model_on_the_hub_is_no_change():
    first, again = (
        parse(TrainOptions, {"video_path": "v", "model": name}) for name in ("owner/name", "owner/name@main")
    )
    assert contradictions(again, recordable(first)) == {}


def test_a_recipe_does_not_change_what_the_checkpoint_leaves_out(videos, tmp_path, begun):
    model = str(begun / "new" / "latest")
    given = {**PLAIN, "crop_size": 16, "init": "random", "recipe": "tiny"}
    first = run(videos, tmp_path, model=model, max_steps=1, **given)
    assert not {"init", "model_config"} & underlying({"recipe": "tiny", "model": model}).keys()
    resume = {"recipe": "tiny", "resume_from_checkpoint": str(first.checkpoint)}
    assert "model_config" not in underlying(resume)
    listener = Listener()
    assert run(videos, tmp_path, listener, max_steps=2, **resume).step == 2
    assert listener.warnings == []


@pytest.mark.parametrize("before", [False, True])
def test_another_choice_of_freeze_encoder_needs_a_new_optimizer(videos, tmp_path, begun, before):
    first = run(videos, tmp_path, max_steps=1, model=str(begun / "new" / "latest"), freeze_encoder=before)
    resume = {"resume_from_checkpoint": str(first.run), "freeze_encoder": not before, "max_steps": 2}
    said = f"`freeze_encoder` is {not before}, not {before}; pass"
    with pytest.raises(UsageError, match=f"{said} `accept_changes` and `not_resume_optimizer`, because") as error:
        run(videos, tmp_path, **resume)
    assert "\n" not in str(error.value)
    new = {"not_resume_training_process": True, "exp_name": "new"}
    for more in ({"accept_changes": True}, new):
        with pytest.raises(UsageError, match=f"{said} `not_resume_optimizer`, because"):
            run(videos, tmp_path, **resume, **more)
    assert run(videos, tmp_path, **resume, **new, not_resume_optimizer=True).step == 2
    assert run(videos, tmp_path, **resume, accept_changes=True, not_resume_optimizer=True).step == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"disc_weight": 0.5, "ema": True, "weight_decay": 0.5}, {"disc_weight": 0, "ema": False, "weight_decay": 1}),
        ({"disc_weight": 0, "ema": False}, {"disc_weight": 0.5, "ema": True}),
        ({"mix_precision": "float32"}, {"mix_precision": "float16"}),
        ({"mix_precision": "float16"}, {"mix_precision": "float32"}),
    ],
)
def test_other_changes_take_effect_with_the_state_of_the_optimizer(videos, tmp_path, before, after):
    first = run(videos, tmp_path, max_steps=1, disc_start=0, batch_size=1, resolution=32, **before)
    resumed = run(videos, tmp_path, resume_from_checkpoint=str(first.run), max_steps=2, accept_changes=True, **after)
    state = torch.load(resumed.checkpoint / "training_state.pt", weights_only=True)
    group = state["generator_optimizer"]["param_groups"][0]
    assert group["weight_decay"] == after.get("weight_decay", 1e-4)
    assert state["generator_optimizer"]["state"][0]["step"] > 0


def test_other_videos_are_told(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "copy")
    run(tmp_path / "copy", tmp_path, max_steps=1)
    (tmp_path / "copy" / "a.mp4").unlink()
    listener = Listener()
    run(tmp_path / "copy", tmp_path, listener, resume_from_checkpoint="latest", max_steps=2)
    assert any("not those of the checkpoint" in warning for warning in listener.warnings)


def test_an_earlier_checkpoint_is_resumed_under_another_name_only(videos, tmp_path):
    result = run(videos, tmp_path, max_steps=4, save_ckpt_step=2)
    early = str(result.run / "checkpoint-00000002")
    with pytest.raises(UsageError, match=r"its run, checkpoint-00000004 is; .* give another `exp_name`"):
        run(videos, tmp_path, resume_from_checkpoint=early)
    branch = run(videos, tmp_path, resume_from_checkpoint=early, exp_name="branch")
    assert lines(branch.run) == lines(result.run)[2:]
    assert weights(branch.checkpoint).keys() == weights(result.checkpoint).keys()


@pytest.mark.parametrize("wish", ["results/vae", "results/vae/latest", "results/vae/checkpoint-00000002"])
def test_a_checkpoint_goes_by_its_path_its_link_or_its_run(videos, tmp_path, monkeypatch, wish):
    monkeypatch.chdir(tmp_path)
    run(videos, tmp_path, max_steps=2)
    assert run(videos, tmp_path, resume_from_checkpoint=wish, max_steps=3).step == 3


def test_the_optimizer_and_the_discriminator_may_begin_anew(videos, tmp_path):
    given = {"disc_weight": 0.5, "disc_start": 0, "resolution": 32, "batch_size": 1}
    run(videos, tmp_path, max_steps=2, **given)
    states = []
    for name, flags in (("both", {}), ("new", {"not_resume_optimizer": True, "not_resume_discriminator": True})):
        result = run(
            videos,
            tmp_path,
            exp_name=name,
            resume_from_checkpoint=str(tmp_path / "results" / "vae"),
            max_steps=3,
            **flags,
        )
        states.append(torch.load(result.checkpoint / "training_state.pt", weights_only=True))
    counts = [state["generator_optimizer"]["state"][0]["step"].item() for state in states]
    assert counts == [2, 1], "generator steps 1 and 3; or 3 alone"
    weight = [state["discriminator"]["main.0.weight"] for state in states]
    assert not torch.equal(*weight)


def test_a_run_may_begin_anew_with_the_weights_and_the_optimizer_of_another(videos, tmp_path):
    first = run(videos, tmp_path, max_steps=2)
    given = {"resume_from_checkpoint": str(first.checkpoint), "not_resume_training_process": True, "kl_weight": 0.5}
    with pytest.raises(UsageError, match="already contains a run"):
        run(videos, tmp_path, **given)
    listener = Listener()
    result = run(videos, tmp_path, listener, exp_name="next", max_steps=1, **given)
    assert listener.warnings == []
    assert [line["step"] for line in lines(result.run)] == [1]
    state = torch.load(result.checkpoint / "training_state.pt", weights_only=True)
    assert state["generator_optimizer"]["state"][0]["step"] == 3
    again = run(videos, tmp_path, exp_name="next", resume_from_checkpoint="latest", max_steps=2)
    assert [line["step"] for line in lines(again.run)] == [1, 2]


def written_by_an_earlier_version(folder, **recorded):
    """Let the options that a run recorded be those of an earlier version."""
    for file in (folder / "options.json", *folder.glob("checkpoint-*/training.json")):
        content = json.loads(file.read_text())
        values = content.get("options", content)
        values.pop("model")
        values |= {"pretrained_model_name_or_path": None, **recorded}
        file.write_text(json.dumps(content))


def test_a_run_of_an_earlier_version_names_its_model_otherwise(videos, tmp_path):
    begun = run(videos, tmp_path, max_steps=1)
    first = run(videos, tmp_path, max_steps=1, exp_name="old", model=str(begun.checkpoint))
    written_by_an_earlier_version(first.run, pretrained_model_name_or_path=str(begun.checkpoint))
    listener = Listener()
    given = {"exp_name": "old", "resume_from_checkpoint": "latest", "max_steps": 2}
    with pytest.raises(UsageError, match=f"`model` is /elsewhere, not {begun.checkpoint};"):
        run(videos, tmp_path, model="/elsewhere", **given)
    resumed = run(videos, tmp_path, listener, **given)
    assert (resumed.step, listener.warnings) == (2, [])
    assert json.loads((resumed.run / "options.json").read_text())["model"] == str(begun.checkpoint)


@pytest.mark.parametrize("given", [{}, {"mix_precision": "bf16"}, {"mix_precision": "bfloat16"}])
def test_a_run_that_recorded_bf16_resumes(videos, tmp_path, given):
    first = run(videos, tmp_path, max_steps=1, mix_precision="bfloat16")
    written_by_an_earlier_version(first.run, mix_precision="bf16")
    listener = Listener()
    command_line = {"exp_name": "vae", "resume_from_checkpoint": "latest", "max_steps": 2, **given}
    resumed = run(videos, tmp_path, listener, **command_line)
    assert (resumed.step, listener.warnings) == (2, [])
    assert json.loads((resumed.run / "options.json").read_text())["mix_precision"] == "bfloat16"


def test_a_run_that_recorded_bf16_does_not_become_float32(videos, tmp_path):
    first = run(videos, tmp_path, max_steps=1, mix_precision="bfloat16")
    written_by_an_earlier_version(first.run, mix_precision="bf16")
    with pytest.raises(UsageError, match="`mix_precision` is float32, not bfloat16;"):
        run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=2, mix_precision="fp32")


def test_a_published_training_checkpoint_gives_its_weights(videos, tmp_path):
    begun = run(videos, tmp_path, max_steps=1)
    model = load_model(begun.checkpoint, device="cpu")
    published = tmp_path / "published"
    published.mkdir()
    shutil.copy(begun.checkpoint / "config.json", published)
    stored = {"gen_model": model.state_dict(), "dics_model": {}}
    torch.save({"epoch": 1, "state_dict": stored, "ema_state_dict": {}}, published / "checkpoint-100.ckpt")
    listener = Listener()
    given = {"resume_from_checkpoint": str(published / "checkpoint-100.ckpt"), "exp_name": "next", "lr": 0}
    given |= {"model": "/elsewhere", "weights": "ema"}  # published commands may name both
    result = run(videos, tmp_path, listener, max_steps=1, **given)
    assert any("the run starts with its weights" in warning for warning in listener.warnings)
    after = weights(result.checkpoint)
    assert all(torch.equal(after[name], tensor) for name, tensor in model.state_dict().items())
    recorded = json.loads((result.run / "options.json").read_text())
    assert (recorded["model"], recorded["weights"]) == (None, None)


def test_a_discriminator_comes_from_our_checkpoint_or_a_published_one(videos, tmp_path):
    given = {"disc_weight": 0.5, "disc_start": 0, "resolution": 32, "batch_size": 1, "max_steps": 1}
    begun = run(videos, tmp_path, **given)
    ours = torch.load(begun.checkpoint / "training_state.pt", weights_only=True)["discriminator"]
    names_there = {f"module.discriminator.{name}": tensor + 1 for name, tensor in ours.items()}
    published = {"state_dict": {"gen_model": {}, "dics_model": names_there | {"module.logvar": torch.zeros(())}}}
    torch.save(published, tmp_path / "published.ckpt")
    for name, source, shift in (("a", begun.checkpoint, 0), ("b", tmp_path / "published.ckpt", 1)):
        result = run(videos, tmp_path, exp_name=name, load_disc_from_checkpoint=str(source), **given)
        loaded = torch.load(result.checkpoint / "training_state.pt", weights_only=True)["discriminator"]
        torch.testing.assert_close(loaded["main.18.weight"], ours["main.18.weight"] + shift)


def test_a_damaged_checkpoint_is_one_line(videos, tmp_path):
    result = run(videos, tmp_path, max_steps=1)
    state = result.checkpoint / "training_state.pt"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    with pytest.raises(VaectlError, match=r"training_state.pt: cannot be read .*; take another checkpoint") as error:
        run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=2)
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_begin_anew_only_on_demand(videos, tmp_path):
    begun = run(videos, tmp_path, max_steps=1)
    wide = tmp_path / "wide"
    shutil.copytree(begun.checkpoint, wide)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(config | {"latent_dim": 8}))
    with pytest.raises(VaectlError, match="does not fit the config"):
        run(videos, tmp_path, exp_name="b", max_steps=1, model=str(wide))
    listener = Listener()
    given = {"model": str(wide), "ignore_mismatched_sizes": True, "lr": 0}
    result = run(videos, tmp_path, listener, exp_name="b", max_steps=1, **given)
    assert any("are initialized at random: " in warning for warning in listener.warnings)
    before, after = weights(begun.checkpoint), weights(result.checkpoint)
    kept = "decoder.conv_out.weight"
    assert torch.equal(before[kept], after[kept])
    assert after["decoder.conv_in.conv.weight"].shape[1] == 8


def test_a_config_beside_pretrained_weights_is_of_their_network(videos, tmp_path):
    begun = run(videos, tmp_path, max_steps=1)
    pretrained = {"model": str(begun.checkpoint), "max_steps": 1}
    same = json.loads((begun.checkpoint / "config.json").read_text()) | {"scale": [2.0], "shift": [1.0]}
    (tmp_path / "same.json").write_text(json.dumps(same))
    run(videos, tmp_path, exp_name="b", model_config=str(tmp_path / "same.json"), **pretrained)
    (tmp_path / "wide.json").write_text(json.dumps(same | {"latent_dim": 8}))
    wide = {"model_config": str(tmp_path / "wide.json"), **pretrained}
    with pytest.raises(UsageError, match=r"wide\.json: is not the config of .*: latent_dim differ; leave out"):
        run(videos, tmp_path, exp_name="c", **wide)
    result = run(videos, tmp_path, exp_name="c", ignore_mismatched_sizes=True, **wide)
    assert weights(result.checkpoint)["decoder.conv_in.conv.weight"].shape[1] == 8


def test_what_a_killed_process_left_half_written_is_cleared_away(videos, tmp_path):
    left = tmp_path / "results" / "vae" / ".unfinished-checkpoint-00000005-1"
    left.mkdir(parents=True)
    run(videos, tmp_path, max_steps=1)
    assert not left.exists()


def test_lines_after_a_step_and_one_cut_short_are_not_counted(tmp_path):
    file = tmp_path / "lines"
    file.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    assert [size_up_to(file, step) for step in (0, 2, 9)] == [0, 24, 36]
    assert size_up_to(tmp_path / "none", 5) == 0


def test_tensorboard_shows_each_step_once(videos, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = run(videos, tmp_path, max_steps=5, save_ckpt_step=2)
    shutil.rmtree(first.run / "checkpoint-00000005")  # as if it had been killed after step 5
    run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=7)
    board = EventAccumulator(str(first.run / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss")] == list(range(1, 8))
