"""A damaged or hostile checkpoint folder costs one short line, little memory and little time."""

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.hostile import BIN, SAFETENSORS, SPOILT
from tests.models.test_checkpoint import TINY, assert_same
from vaectl.errors import OutOfMemoryError, VaectlError
from vaectl.inventory import describe
from vaectl.io.parsing import parsing
from vaectl.models import build_model, load_model, save_model
from vaectl.models.config import WFVAEConfig

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning")]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(WFVAEConfig(**TINY)).eval().requires_grad_(False)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def most_memory() -> int:
    """Return the peak memory of this process in bytes since the last `forget`."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def forget() -> int:
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak
    return most_memory()


@pytest.mark.parametrize("fault", SPOILT)
def test_one_short_line_in_little_memory_and_time(folder, fault):
    spoil, said = SPOILT[fault]
    spoil(folder)
    before, begun = forget(), time.process_time()
    with pytest.raises(VaectlError) as error:
        load_model(folder, device="cpu")
    assert time.process_time() - begun < 5
    assert most_memory() - before < 2**28
    line = str(error.value)
    assert line.startswith(str(folder))
    assert any(words in line for words in said.split("|"))
    assert len(line) < len(str(folder)) + 600
    assert line.isprintable()
    with pytest.raises(VaectlError):  # `vaectl models` reports it too, but reads no values
        describe(folder) if fault not in ("float64 that overflows", "old pickle, nearly whole") else load_model(folder)


def test_short_memory_is_not_blamed_on_the_file(folder):
    with pytest.raises(OutOfMemoryError, match="out of memory"), parsing(folder / BIN, "is damaged"):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(OutOfMemoryError, match="out of memory"), parsing(folder / BIN, "is damaged"):
        raise OSError(12, "Cannot allocate memory")
    with pytest.raises(OutOfMemoryError), parsing(folder / BIN, "is damaged"):
        raise MemoryError


def test_integers_that_belong_to_another_network_are_what_does_not_fit(folder, model):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state | {"text.position_ids": torch.arange(7)}, folder / SAFETENSORS)
    with pytest.raises(VaectlError, match=r"1 unexpected: text\.position_ids"):
        load_model(folder, device="cpu")


def test_float64_loads_where_it_fits(folder, model):
    save_file({name: tensor.double().contiguous() for name, tensor in model.state_dict().items()}, folder / SAFETENSORS)
    assert_same(load_model(folder, device="cpu"), model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {f"module.{name}": value for name, value in state.items()}, "with module. in their names"),
        (lambda state: {f"_orig_mod.{name}": value for name, value in state.items()}, "with _orig_mod. in their names"),
        (lambda state: {f"vae.model.{name}": value for name, value in state.items()}, "with vae.model. in their names"),
        (
            lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
            "with _orig_mod.module. in their names",
        ),
        (
            lambda state: {name.replace("encoder.", "encoder._orig_mod."): value for name, value in state.items()},
            "with _orig_mod. in their names",
        ),
        (lambda state: {"model": state, "epoch": 3}, "under model"),
        (lambda state: {"state_dict": state}, "under state_dict"),
        (
            lambda state: {"model": {"state_dict": {f"module.{n}": v for n, v in state.items()}}},
            "under model.state_dict",
        ),
    ],
)
def test_what_other_tools_make_of_a_state_dict_loads_with_a_note(folder, model, change, said):
    (folder / SAFETENSORS).unlink()
    torch.save(change(model.state_dict()), folder / BIN)
    notes: list[str] = []
    assert_same(load_model(folder, device="cpu", note=notes.append), model)
    assert len(notes) == 1
    assert said in notes[0]
    assert describe(folder).parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_prefix_is_taken_off_only_where_all_the_rest_fits(folder, model):
    state = {f"module.{name}": value.contiguous() for name, value in model.state_dict().items()}
    del state["module.encoder.conv_out.conv.bias"]
    save_file(state, folder / SAFETENSORS)
    with pytest.raises(VaectlError, match="does not fit"):
        load_model(folder, device="cpu")
    save_file(
        {"a.x": torch.zeros(1), **{f"module.{n}": v.contiguous() for n, v in model.state_dict().items()}},
        folder / SAFETENSORS,
    )
    with pytest.raises(VaectlError, match="does not fit"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_average_of_a_part_takes_the_rest_from_the_weights(folder, model, prefix):
    whole = model.state_dict()
    part = {f"{prefix}{name}": tensor + 1 for name, tensor in whole.items() if name.startswith("decoder.")}
    torch.save({"state_dict": {"gen_model": whole, "dics_model": {}}, "ema_state_dict": part}, folder / "last.ckpt")
    notes: list[str] = []
    loaded = load_model(folder, device="cpu", note=notes.append).state_dict()
    for name, tensor in whole.items():
        assert torch.equal(loaded[name], tensor + 1 if name.startswith("decoder.") else tensor)
    assert len(notes) == 1
    assert f"its EMA lacks {len(whole) - len(part)} of {len(whole)} tensors" in notes[0]


def test_published_forms_load_without_a_note(folder, model):
    (folder / SAFETENSORS).unlink()
    ema = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": {"gen_model": model.state_dict()}, "ema_state_dict": ema}, folder / "last.ckpt")
    notes: list[str] = []
    assert_same(load_model(folder, device="cpu", note=notes.append), model)
    assert notes == []


def test_a_file_without_permission_is_named(folder, monkeypatch):
    if os.geteuid() == 0:
        monkeypatch.setattr("vaectl.models.containers.safe_open", _denied)
    else:
        (folder / SAFETENSORS).chmod(0)
    with pytest.raises(VaectlError, match=rf"{SAFETENSORS}: no permission to read it"):
        load_model(folder, device="cpu")


def _denied(*_arguments):
    raise PermissionError(13, "Permission denied")
