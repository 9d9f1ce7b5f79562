"""A damaged checkpoint is named, and the run goes on from the one before; journals are cut at the first bad line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.jobs import Listener
from tests.training.runs import PLAIN, lines, names, options, run, weights
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError
from vaectl.training.whole import damage

STEPS = 4


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory, one_thread) -> Path:
    """A run of four steps with a checkpoint after each of the last three; nobody changes it."""
    here = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(here / "cache"))
        return run(videos, here, max_steps=STEPS, save_ckpt_step=1).run


@pytest.fixture
def damaged(whole, tmp_path) -> Path:
    """A copy of that run, to be spoilt; gives its folder."""
    shutil.copytree(whole, tmp_path / "results" / "vae", symlinks=True)
    return tmp_path / "results" / "vae"


def facts(**values: object) -> Callable[[Path], object]:
    def spoil(last: Path) -> None:
        file = last / "training.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return spoil


def option(**values: object) -> Callable[[Path], object]:
    def spoil(last: Path) -> None:
        recorded = json.loads((last / "training.json").read_text())["options"]
        facts(options={**recorded, **values})(last)

    return spoil


def cut(name: str, share: float) -> Callable[[Path], object]:
    return lambda last: os.truncate(last / name, int((last / name).stat().st_size * share))


def one_byte(name: str) -> Callable[[Path], object]:
    def spoil(last: Path) -> None:
        content = bytearray((last / name).read_bytes())
        content[len(content) // 2] ^= 1
        (last / name).write_bytes(content)

    return spoil


def zeros(name: str) -> Callable[[Path], object]:
    return lambda last: (last / name).write_bytes(bytes((last / name).stat().st_size))


STATE, MODEL = "training_state.pt", "diffusion_pytorch_model.safetensors"
FAULTS: dict[str, Callable[[Path], object]] = {
    "empty state": cut(STATE, 0),
    "half a state": cut(STATE, 0.5),
    "zeros for a state": zeros(STATE),
    "one bit of the state": one_byte(STATE),
    "no state": lambda last: (last / STATE).unlink(),
    "state is a folder": lambda last: ((last / STATE).unlink(), (last / STATE).mkdir()),
    "state is a pipe": lambda last: ((last / STATE).unlink(), os.mkfifo(last / STATE)),
    "empty weights": cut(MODEL, 0),
    "half the weights": cut(MODEL, 0.5),
    "one bit of the weights": one_byte(MODEL),
    "no weights": lambda last: (last / MODEL).unlink(),
    "empty config": cut("config.json", 0),
    "empty facts": cut("training.json", 0),
    "half the facts": cut("training.json", 0.5),
    "facts are zeros": zeros("training.json"),
    "facts are a list": lambda last: (last / "training.json").write_text("[1]"),
    "facts without end": lambda last: (last / "training.json").write_text("[" * 100_000),
    "no facts": lambda last: (last / "training.json").unlink(),
    "step is text": facts(step="four"),
    "step is negative": facts(step=-1),
    "best is a list": facts(best=[1]),
    "best without a step": facts(best={"psnr": 3.0}),
    "options are a number": facts(options=3),
    "data is null": facts(data=None),
    "ranks is text": facts(ranks={}),
    "files is text": facts(files="all"),
    "an option of another type": option(batch_size={"a": 1}),
    "an option out of bounds": option(resolution=3),
    "a path that is a number": option(video_path=[3]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_goes_on_from_the_checkpoint_before(videos, whole, damaged, tmp_path, fault):
    FAULTS[fault](damaged / "checkpoint-00000004")
    listener = Listener()
    result = run(videos, tmp_path, listener, resume_from_checkpoint="latest", max_steps=STEPS)
    (warning,) = [text for text in listener.warnings if "continuing from checkpoint-00000003, the one" in text]
    assert "checkpoint-00000004" in warning
    assert "\n" not in warning
    assert len(warning) < 500 + len(str(tmp_path))
    assert any("at step 3" in note for note in listener.notes)
    assert (damaged / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    after, before = weights(result.checkpoint), weights(whole / "checkpoint-00000004")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert names(damaged) == names(whole) | {"damaged-checkpoint-00000004"}
    assert (damaged / "latest").resolve() == result.checkpoint.resolve()


def test_two_damaged_ones_are_both_named(videos, damaged, tmp_path):
    for step in (3, 4):
        (damaged / f"checkpoint-0000000{step}" / STATE).write_bytes(b"")
    listener = Listener()
    run(videos, tmp_path, listener, resume_from_checkpoint=str(damaged / "latest"), max_steps=STEPS)
    said = [text for text in listener.warnings if "continuing from checkpoint-00000002" in text]
    assert ["checkpoint-00000004" in said[0], "checkpoint-00000003" in said[1]] == [True, True]


def test_where_all_are_damaged_the_last_is_named(videos, damaged, tmp_path, capsys):
    for path in damaged.glob("checkpoint-*"):
        (path / STATE).write_bytes(b"")
    before = names(damaged)
    with pytest.raises(
        UsageError, match=r"checkpoint-00000004/training_state\.pt: cannot be read .* has no complete checkpoint"
    ):
        run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=STEPS)
    assert names(damaged) == before
    assert main(["train", "--resume-from-checkpoint", str(damaged / "latest")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_one_that_is_asked_for_by_its_path_is_not_exchanged_for_another(videos, damaged, tmp_path):
    last = damaged / "checkpoint-00000004"
    (last / STATE).write_bytes(b"")
    with pytest.raises(UsageError, match=r"training_state\.pt: cannot be read .*, or latest for the last complete one"):
        run(videos, tmp_path, resume_from_checkpoint=str(last), max_steps=5)
    assert last.exists()


def test_the_one_before_a_damaged_one_can_be_asked_for(videos, damaged, tmp_path):
    (damaged / "checkpoint-00000004" / STATE).write_bytes(b"")
    given = {"resume_from_checkpoint": str(damaged / "checkpoint-00000003"), "max_steps": STEPS}
    assert run(videos, tmp_path, **given).step == STEPS


def test_whole_checkpoints_are_whole_and_one_of_an_earlier_version_too(whole, damaged):
    assert [damage(path) for path in sorted(whole.glob("checkpoint-*"))] == [None] * 3
    last = damaged / "checkpoint-00000004"
    recorded = json.loads((last / "training.json").read_text())
    assert set(recorded.pop("files")) == {STATE, MODEL, "config.json"}
    (last / "training.json").write_text(json.dumps(recorded))
    assert damage(last) is None
    (last / STATE).write_bytes(b"")
    assert "training_state.pt: cannot be read (it has 0 bytes)" in str(damage(last))


def test_a_state_of_another_model_is_one_line(videos, damaged, tmp_path):
    last = damaged / "checkpoint-00000004"
    recorded = json.loads((last / "training.json").read_text())
    del recorded["files"]
    (last / "training.json").write_text(json.dumps(recorded))
    for state in ({}, {"step": "x"}, {"generator_optimizer": 3}, [1], {1: 2}):
        torch.save(state, last / STATE)
        with pytest.raises(VaectlError, match=r"training_state\.pt: ") as error:
            run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=5)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "junk",
    [b"junk\n", b"[1]\n", b'{"step": "x"}\n', b"{}\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"\0" * 3_000_000, b"{"],
)
def test_journals_are_cut_at_the_first_bad_line(videos, whole, damaged, tmp_path, junk):
    file = damaged / "metrics.jsonl"
    rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*rows[:2], junk, *rows[2:]]))
    (damaged / "validation.jsonl").write_bytes(junk)
    listener = Listener()
    run(videos, tmp_path, listener, resume_from_checkpoint="latest", max_steps=5)
    assert [line["step"] for line in lines(damaged)] == [1, 2, 5]
    assert file.read_bytes().startswith(b"".join(rows[:2]))
    assert (damaged / "validation.jsonl").read_bytes() == b""
    assert any("metrics.jsonl: is damaged after step 2" in text for text in listener.warnings)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_journal_that_cannot_be_one_is_named(videos, damaged, tmp_path, make):
    (damaged / "metrics.jsonl").unlink()
    make(damaged / "metrics.jsonl")
    with pytest.raises(VaectlError, match=r"metrics\.jsonl: is not an ordinary file"):
        run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=5)


def test_the_command_line_takes_the_options_of_the_one_before(videos, damaged, tmp_path):
    (damaged / "checkpoint-00000004" / "training.json").write_text("{}")
    given = options(videos, tmp_path, resume_from_checkpoint="latest")
    assert given.batch_size == PLAIN["batch_size"]
