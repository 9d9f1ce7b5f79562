"""The moving average of the weights: its warm-up, and which of the weights of a checkpoint are loaded."""

import json
from pathlib import Path

import pytest
import torch

from tests.jobs import Listener
from tests.training.runs import run, weights
from vaectl.cli.app import main
from vaectl.errors import UsageError
from vaectl.evaluation.manifest import read_manifest
from vaectl.inventory import describe
from vaectl.models import load_model, save_model
from vaectl.models.checkpoint import loaded_weights
from vaectl.training.ema import EMA, decay_of, scores

MODEL, STATE = "diffusion_pytorch_model.safetensors", "training_state.pt"


def test_the_decay_rises_to_its_value_and_stays():
    assert [decay_of(step, 0.999) for step in (1, 2, 8)] == [2 / 11, 3 / 12, 0.5]
    assert decay_of(8989, 0.999) < 0.999
    assert decay_of(9000, 0.999) == decay_of(10**6, 0.999) == 0.999
    assert decay_of(1, 0.1) == 0.1


@pytest.mark.parametrize("decay", [0.995, 0.999, 0.9999])
def test_after_few_steps_the_average_does_not_lag_behind(decay):
    """Weights that move at constant speed: the average is behind by at most an eighth of the way."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0)
    ema = EMA(model, decay)
    for step in range(1, 201):
        model.weight.data += 1
        ema.update(model, step)
        assert step - ema.weights["weight"].item() <= max(1, step / 8)


def test_pretrained_weights_stay_in_the_average(videos, averaged, both, tmp_path):
    given = {"model": str(averaged), "ema": True, "ema_decay": 0.75}
    result = run(videos, tmp_path, max_steps=2, save_ckpt_step=1, **given)
    raw = [torch.load(path / STATE, weights_only=True)["model"] for path in sorted(result.run.glob("checkpoint-*"))]
    name = "decoder.conv_out.bias"
    expected = (9 * both["ema"][name] + 3 * raw[0][name] + 4 * raw[1][name]) / 16
    torch.testing.assert_close(weights(result.checkpoint)[name], expected)


@pytest.mark.parametrize("start", ["plain model directory", "checkpoint at step 0"])
def test_weights_of_a_checkpoint_stay_in_the_average_of_a_new_run(videos, averaged, both, tmp_path, start):
    given = {"ema": True, "ema_decay": 0.75, "save_ckpt_step": 1}
    if start == "plain model directory":
        plain = tmp_path / "plain"
        save_model(load_model(averaged, device="cpu"), plain)
        given["resume_from_checkpoint"] = str(plain)
    else:
        given |= {"resume_from_checkpoint": str(averaged), "not_resume_training_process": True, "exp_name": "next"}
    run(videos, tmp_path, **given, max_steps=1)
    again = {"resume_from_checkpoint": "latest", "exp_name": given.get("exp_name", "vae"), "keep": 9}
    result = run(videos, tmp_path, **again, max_steps=2)
    raw = [torch.load(path / STATE, weights_only=True)["model"] for path in sorted(result.run.glob("checkpoint-*"))]
    name = "decoder.conv_out.bias"
    expected = (9 * both["ema"][name] + 3 * raw[0][name] + 4 * raw[1][name]) / 16
    torch.testing.assert_close(weights(result.checkpoint)[name], expected)


def test_a_resumed_run_that_began_as_new_keeps_the_warm_up(videos, tmp_path):
    given = {"ema": True, "save_ckpt_step": 1}
    whole = run(videos, tmp_path, exp_name="whole", max_steps=2, **given)
    run(videos, tmp_path, max_steps=1, **given)
    part = run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=2)
    assert same(weights(whole.checkpoint), weights(part.checkpoint))


def test_a_validation_says_which_weights_the_checkpoint_has():
    values = {"step": 3000, "psnr": 20.0816, "ssim": 0.68, "ema_psnr": 21.0669, "ema_ssim": 0.69}
    assert scores(values) == [
        "psnr 21.0669, ssim 0.6900 (EMA, in the checkpoint)",
        "psnr 20.0816, ssim 0.6800 (raw weights)",
    ]
    assert scores({"step": 1, "psnr": 20.0}) == ["psnr 20.0000"]


@pytest.fixture(scope="module")
def averaged(videos, tmp_path_factory) -> Path:
    """A checkpoint of vaectl with EMA weights."""
    given = {"ema": True, "max_steps": 3, "eval_video_path": str(videos)}
    listener = Listener()
    result = run(videos, tmp_path_factory.mktemp("averaged"), listener, **given)
    best = f"{result.best['ema_psnr']:.4f}", f"{result.best['psnr']:.4f}"
    assert len(set(best)) == 2
    (note,) = (note for note in listener.notes if note.startswith("step 3: "))
    assert f"psnr {best[0]}, " in note.split("(EMA, in the checkpoint)")[0]
    assert f"psnr {best[1]}, " in note.split("(EMA, in the checkpoint)")[1]
    return result.checkpoint


@pytest.fixture(scope="module")
def both(averaged):
    """Its weights."""
    return {"ema": weights(averaged), "raw": torch.load(averaged / STATE, weights_only=True)["model"]}


def same(one, other):
    return all(torch.equal(one[name], tensor) for name, tensor in other.items())


@pytest.fixture(params=["vaectl", "one file", "original"])
def checkpoint(request, averaged, both, tmp_path) -> Path:
    """A checkpoint that has both."""
    if request.param == "original":
        stored = {"state_dict": {"gen_model": both["raw"]}, "ema_state_dict": both["ema"]}
        torch.save(stored, tmp_path / "checkpoint-3.ckpt")
        (tmp_path / "config.json").write_bytes((averaged / "config.json").read_bytes())
        return tmp_path
    return averaged / MODEL if request.param == "one file" else averaged


@pytest.mark.parametrize("choice", [None, "ema", "raw"])
def test_a_checkpoint_gives_the_weights_that_are_asked_for(checkpoint, both, choice):
    notes: list[str] = []
    loaded = load_model(checkpoint, device="cpu", weights=choice, note=notes.append).state_dict()
    assert same(loaded, both[choice or "ema"])
    assert not same(both["raw"], both["ema"])
    assert notes == []
    assert loaded_weights(checkpoint, choice) == (choice or "ema")
    facts = describe(checkpoint, choice)
    assert (facts.weights, facts.available) == (choice or "ema", ("ema", "raw"))


def original(folder, model):
    torch.save({"state_dict": {"gen_model": model.state_dict()}, "ema_state_dict": {}}, folder / "last.ckpt")


@pytest.mark.parametrize(
    ("make", "has"),
    [
        (original, "raw"),
        (lambda folder, model: save_model(model, folder, metadata={"weights": "raw"}, overwrite=True), "raw"),
        (lambda folder, model: save_model(model, folder, metadata={"weights": "as trained"}, overwrite=True), "raw"),
        (lambda folder, model: save_model(model, folder, metadata={"weights": "ema"}, overwrite=True), "ema"),
        (lambda folder, model: torch.save({"ema_state_dict": model.state_dict()}, folder / "last.ckpt"), "ema"),
        (lambda folder, model: save_model(model, folder, overwrite=True), None),
        (lambda folder, model: torch.save({"model": model.state_dict()}, folder / "last.ckpt"), None),
    ],
)
def test_weights_that_a_checkpoint_does_not_have_are_refused(averaged, tmp_path, make, has):
    model = load_model(averaged, device="cpu")
    save_model(model, tmp_path)
    if make(tmp_path, model) is None and list(tmp_path.glob("*.ckpt")):
        (tmp_path / MODEL).unlink()
    assert describe(tmp_path).weights == has
    for choice in ("ema", "raw"):
        if choice == has:
            load_model(tmp_path, device="cpu", weights=choice)
            continue
        said = {
            "raw": "has no ema weights, only raw; leave out `weights=ema`",
            "ema": "has no raw weights, only ema; leave out `weights=raw`",
            None: "does not say whether its weights are EMA or raw; leave out `weights`",
        }[has]
        for read in (load_model, describe):
            with pytest.raises(UsageError) as error:
                read(tmp_path, weights=choice)
            assert str(error.value).endswith(said)


def test_a_run_without_an_average_has_raw_weights(videos, tmp_path):
    checkpoint = run(videos, tmp_path, max_steps=1).checkpoint
    assert describe(checkpoint).available == ("raw",)
    load_model(checkpoint, device="cpu", weights="raw")


@pytest.mark.parametrize(("choice", "mismatched"), [(None, False), ("raw", False), ("raw", True)])
def test_training_starts_from_the_weights_that_are_asked_for(videos, averaged, both, tmp_path, choice, mismatched):
    given = {"model": str(averaged), "weights": choice, "ignore_mismatched_sizes": mismatched}
    first = run(videos, tmp_path, max_steps=1, lr=0, weight_decay=0, **given)
    assert same(weights(first.checkpoint), both[choice or "ema"])
    again = run(videos, tmp_path, max_steps=2, resume_from_checkpoint="latest")
    assert json.loads((again.run / "options.json").read_text())["weights"] == choice


def test_every_command_takes_the_choice_and_records_it(videos, averaged, tmp_path, capsys):
    prepared, common = tmp_path / "prepared", ["--model", str(averaged), "--device", "cpu", "--weights"]
    clips = ["--num-frames", "5", "--resolution", "16", "--real-video-dir", str(videos)]
    assert main(["prepare-eval", *clips, "--generated-video-dir", str(prepared), *common, "raw"]) == 0
    assert read_manifest(prepared).model.weights == "raw"
    assert main(["prepare-eval", *clips, "--generated-video-dir", str(prepared), *common, "ema"]) == 2
    assert "was prepared with --model and --dtype" in capsys.readouterr().err

    def psnr(*words: str) -> tuple[str, float]:
        assert main(["eval", *clips, "--metric", "psnr", "--json", *words]) == 0
        result = json.loads(capsys.readouterr().out)
        return result["protocol"]["model"]["weights"], result["summary"]["psnr"]["mean"]

    measured = {choice: psnr(*common, choice) for choice in ("raw", "ema")}
    assert {choice: named for choice, (named, _) in measured.items()} == {"raw": "raw", "ema": "ema"}
    assert measured["raw"][1] != measured["ema"][1]
    assert psnr("--generated-video-dir", str(prepared)) == pytest.approx(measured["raw"])

    assert main(["models", str(averaged)]) == 0
    assert "yes (EMA); --weights raw for the others" in capsys.readouterr().out
    assert main(["models", str(averaged), "--weights", "raw"]) == 0
    assert "no (raw); --weights ema for the others" in capsys.readouterr().out
    source = next(path for path in sorted(videos.rglob("*")) if path.suffix == ".mp4")
    for choice, code in (("raw", 0), ("last", 2)):
        words = ["reconstruct", "--video-path", str(source), "--rec-path", str(tmp_path / f"{choice}.mkv")]
        assert main([*words, *common, choice]) == code
    assert "--weights: must be 'ema' or 'raw', not 'last'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--real-video-dir", "a", "--generated-video-dir", "b"],
        ["train", "--video-path", "a", "--recipe", "tiny"],
        ["models"],
    ],
)
def test_the_choice_is_about_a_model(words, capsys):
    assert main([*words, "--weights", "raw"]) == 2
    assert "--weights is for the weights of --model; give --model too" in capsys.readouterr().err
