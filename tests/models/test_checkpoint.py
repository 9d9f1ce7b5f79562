"""Every published layout loads, errors are one line, and no code in a pickle runs."""

import json
import re
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vaectl.errors import UsageError, VaectlError
from vaectl.models import build_model, load_model, save_model
from vaectl.models.build import FAMILIES, read_config
from vaectl.models.checkpoint import locate_config
from vaectl.models.config import WFVAEConfig
from vaectl.models.device import choose_device, choose_dtype

from .reference import load_reference, synthetic_model

TINY = {
    "latent_dim": 2,
    "base_channels": 4,
    "encoder_num_resblocks": 1,
    "encoder_energy_flow_hidden_size": 4,
    "decoder_num_resblocks": 1,
    "decoder_energy_flow_hidden_size": 4,
    "norm_type": "layernorm",
    "t_interpolation": "trilinear",
}
LAYERS = "diffusion_pytorch_model"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(WFVAEConfig(**TINY)).eval().requires_grad_(False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WFVAEModel", "_version": "0.3", **TINY}))
    return tmp_path


def assert_same(loaded: torch.nn.Module, model: torch.nn.Module) -> None:
    given, wanted = loaded.state_dict(), model.state_dict()
    assert given.keys() == wanted.keys()
    assert all(torch.equal(given[name], wanted[name]) for name in wanted)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_builtin_model_reconstructs_a_clip():
    model = load_model()
    ramp = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 5, 64, 64)
    assert (model.reconstruct(ramp) - ramp).abs().mean() < 0.05


@pytest.mark.parametrize("name", ["wfvae_4x8x8", "causalvae_res2x"])
def test_saved_model_loads_bit_identical_under_the_published_names(tmp_path, name):
    case = load_reference(name)
    model = synthetic_model(case.config)
    save_model(model, tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == ["config.json", f"{LAYERS}.safetensors"]
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == case.config
    assert len({file.stat().st_mode for file in (tmp_path / "model").iterdir()}) == 1
    loaded = load_model(tmp_path / "model")
    assert_same(loaded, model)
    # Only rounding: the order of summation may depend on the memory layout of the weights.
    torch.testing.assert_close(loaded.reconstruct(case.video), model.reconstruct(case.video), rtol=0, atol=5e-5)


def test_a_model_replaces_another_only_with_overwrite(tmp_path, model):
    save_model(model, tmp_path)  # an empty directory
    other = build_model(WFVAEConfig(**TINY | {"latent_dim": 3}))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="holds a model; pass `overwrite` to replace it, or choose another"):
        save_model(other, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    (tmp_path / "notes.txt").write_text("kept")
    save_model(other, tmp_path, overwrite=True)
    assert_same(load_model(tmp_path), other)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", f"{LAYERS}.safetensors", "notes.txt"]
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match="holds a model; pass `overwrite`"):
        save_model(other, tmp_path)


@contextmanager
def limited_files(size: int):
    """Files may not grow beyond `size` bytes, as on a disk that fills."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_model_is_saved_completely_or_not_at_all(tmp_path, model, monkeypatch):
    save_model(model, tmp_path / "old")
    other = build_model(WFVAEConfig(**TINY | {"latent_dim": 3}))
    with limited_files(20000):
        with pytest.raises(VaectlError, match=r"safetensors: writing failed \(.*File too large"):
            save_model(model, tmp_path / "new")
        with pytest.raises(VaectlError, match=r"safetensors: writing failed \(.*File too large"):
            save_model(other, tmp_path / "old", overwrite=True)
    assert not (tmp_path / "new").exists()
    assert sorted(file.name for file in (tmp_path / "old").iterdir()) == ["config.json", f"{LAYERS}.safetensors"]
    assert_same(load_model(tmp_path / "old"), model)

    # A run that is killed between the two files leaves no model, never one with the config of another.
    replace = Path.replace

    def stops(self, target):
        if Path(target).name == "config.json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stops)
    with pytest.raises(KeyboardInterrupt):
        save_model(other, tmp_path / "old", overwrite=True)
    with pytest.raises(UsageError, match=r"holds no config\.json"):
        load_model(tmp_path / "old")


def test_a_model_is_not_saved_where_another_file_would_be_loaded(tmp_path, model):
    (tmp_path / "a.ckpt").touch()
    with pytest.raises(UsageError, match=r"holds a\.ckpt, which would be loaded instead; choose another directory"):
        save_model(model, tmp_path, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file: is a file; name a directory"):
        save_model(model, tmp_path / "file")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_cannot_be_loaded_are_not_saved(tmp_path, value):
    broken = build_model(WFVAEConfig(**TINY)).requires_grad_(False)
    broken.last_layer[0] = value
    with pytest.raises(VaectlError, match=r"model/.*safetensors: NaN or infinite values in 1 tensor: decoder"):
        save_model(broken, tmp_path / "model")
    with pytest.raises(VaectlError, match="NaN or infinite values in 1 tensor"):
        save_model(build_model(WFVAEConfig(**TINY)), tmp_path / "model", weights=broken.state_dict())
    assert not list(tmp_path.iterdir())


def test_a_model_is_not_saved_into_a_training_checkpoint(tmp_path, model):
    save_model(model, tmp_path)
    (tmp_path / "training_state.pt").touch()
    before = (tmp_path / "config.json").stat().st_mtime_ns
    with pytest.raises(UsageError, match=r"holds training_state\.pt, so it is a training checkpoint .*; choose"):
        save_model(model, tmp_path, overwrite=True)
    assert (tmp_path / "config.json").stat().st_mtime_ns == before


def test_only_a_model_is_saved(tmp_path, model):
    wrong = [(torch.nn.Linear(1, 1), tmp_path), (torch.nn.DataParallel(model), tmp_path), (str(tmp_path), model)]
    for given in (*wrong, (model, None), (model, model)):
        with pytest.raises(
            UsageError, match=r"save_model takes a model and a directory, and the (model|directory) is a "
        ):
            save_model(*given)
    with pytest.raises(UsageError, match=r"of type DataParallel; give its \.module"):
        save_model(torch.nn.DataParallel(model), tmp_path)
    assert not list(tmp_path.iterdir())
    save_model(torch.compile(model), tmp_path)
    notes: list[str] = []
    assert_same(load_model(tmp_path, note=notes.append), model)
    assert not notes


@pytest.mark.parametrize("weights", ["EMA", "", 1, True])
def test_other_weights_than_ema_and_raw_are_refused(tmp_path, model, weights):
    save_model(model, tmp_path, metadata={"weights": "ema"})
    with pytest.raises(UsageError, match=f"^`weights` must be ema or raw, not {weights!r}$"):
        load_model(tmp_path, weights=weights)


def test_safetensors_sharded_and_bin_load(directory, model):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    halves = [dict(list(state.items())[i::2]) for i in range(2)]
    for i, half in enumerate(halves):
        save_file(half, directory / f"{LAYERS}-{i}.safetensors")
    index = directory / f"{LAYERS}.safetensors.index.json"
    index.write_text(
        json.dumps(
            {"weight_map": {name: f"{LAYERS}-{i}.safetensors" for i, half in enumerate(halves) for name in half}}
        )
    )
    assert_same(load_model(directory), model)
    (directory / f"{LAYERS}-1.safetensors").unlink()
    with pytest.raises(UsageError, match=r"-1\.safetensors: no such file"):
        load_model(directory)
    index.unlink()
    torch.save(state, directory / f"{LAYERS}.bin")
    assert_same(load_model(directory), model)
    assert_same(load_model(directory / f"{LAYERS}.bin"), model)
    torch.save(state, directory / f"{LAYERS}.bin", _use_new_zipfile_serialization=False)
    assert_same(load_model(directory), model)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_training_checkpoint_loads_its_ema_weights(directory, model, prefix):
    other = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    checkpoint = {
        "epoch": 1,
        "current_step": 10,
        "optimizer_state": {
            "ae_optimizer": {"state": {0: {"step": torch.tensor(10.0)}}, "param_groups": [{"lr": 1e-5}]}
        },
        "state_dict": {"gen_model": other, "dics_model": {"main.0.weight": torch.ones(2)}},
        "ema_state_dict": {prefix + name: tensor for name, tensor in model.state_dict().items()},
        "scaler_state": {},
        "sampler_state": {"seed": 1},
    }
    torch.save(checkpoint, directory / "checkpoint-10.ckpt")
    assert_same(load_model(directory), model)


def test_training_checkpoint_without_ema_loads_the_generator(directory, model):
    torch.save(
        {"state_dict": {"gen_model": model.state_dict(), "dics_model": {}}, "ema_state_dict": {}}, directory / "a.ckpt"
    )
    assert_same(load_model(directory), model)
    torch.save({}, directory / "b.ckpt")
    with pytest.raises(UsageError, match="several checkpoints"):
        load_model(directory)


def test_networks_of_the_objective_beside_the_weights_are_passed_over(directory, model):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state | {"loss.discriminator.main.0.weight": torch.ones(2)}, directory / f"{LAYERS}.safetensors")
    assert_same(load_model(directory), model)


@pytest.mark.parametrize(
    ("device", "capability", "usual", "low_memory"),
    [
        ("cpu", None, torch.float32, torch.float32),
        ("mps", None, torch.float32, torch.float16),
        ("cuda", (7, 5), torch.float32, torch.float16),
        ("cuda", (9, 0), torch.bfloat16, torch.bfloat16),
    ],
)
def test_the_precision_that_auto_means(monkeypatch, device, capability, usual, low_memory):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device(device)) == usual
    assert choose_dtype("auto", torch.device(device), low_memory=True) == low_memory
    assert choose_dtype("float32", torch.device(device), low_memory=True) == torch.float32


def test_the_names_of_a_precision():
    names = {torch.float32: "fp32 float32 float", torch.bfloat16: "bf16 bfloat16", torch.float16: "fp16 half"}
    for dtype, known in names.items():
        for name in (*known.split(), str(dtype), dtype):
            assert choose_dtype(name, torch.device("cpu")) == dtype
    for wrong in ("int8", torch.int8, "fp8", None, 16):
        with pytest.raises(UsageError, match=r"dtype \w+: unknown; must be auto, float32, bfloat16, float16"):
            load_model(dtype=wrong)
    for wrong in ("gpu", None, 1.5):
        with pytest.raises(UsageError, match=r"device .+: unknown; must be auto, cpu"):
            load_model(device=wrong)


def test_half_precision_weights_are_read_into_the_asked_type(directory, model):
    state = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, directory / f"{LAYERS}.safetensors")
    loaded = load_model(directory)
    assert loaded.dtype == torch.float32
    assert torch.equal(
        loaded.get_buffer("decoder.inverse_wavelet_transform_out.h"),
        state["decoder.inverse_wavelet_transform_out.h"].float(),
    )
    assert load_model(directory, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_names_and_shapes_that_do_not_fit_are_listed_with_counts(directory, model):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    removed = [name for name in state if name.startswith("decoder.up1")]
    for name in removed:
        del state[name]
    state["extra.weight"] = torch.zeros(1)
    state["encoder.conv_out.conv.bias"] = torch.zeros(9)
    save_file(state, directory / f"{LAYERS}.safetensors")
    with pytest.raises(VaectlError) as error:
        load_model(directory)
    message = one_line(error)
    assert f"{len(removed)} missing: {removed[0]}, {removed[1]}, {removed[2]}, …" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 of another shape: encoder.conv_out.conv.bias (9,) instead of (4,)" in message


def test_weights_of_nan_are_refused(directory, model):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    state["decoder.conv_out.weight"][0, 0] = float("nan")
    save_file(state, directory / f"{LAYERS}.safetensors")
    with pytest.raises(VaectlError, match=r"NaN or infinite values in 1 tensor: decoder\.conv_out\.weight"):
        load_model(directory)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("file", [f"{LAYERS}.bin", "model.ckpt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_is_refused_and_not_run(directory, file, legacy):
    trace = directory / "executed"
    torch.save({"weight": Malicious(trace)}, directory / file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(VaectlError, match="refused") as error:
        load_model(directory)
    one_line(error)
    assert not trace.exists()


@pytest.mark.parametrize("name", [f"{LAYERS}.safetensors", f"{LAYERS}.bin", "last.ckpt", f"{LAYERS}.bin.index.json"])
@pytest.mark.parametrize("content", [b"", b"not weights at all" * 20])
def test_damaged_weights_are_one_clear_line(directory, name, content):
    (directory / name).write_bytes(content)
    with pytest.raises(VaectlError, match=re.escape(name)) as error:
        load_model(directory)
    one_line(error)


def test_truncated_safetensors_and_ckpt(directory, model):
    for name, write in (
        (
            f"{LAYERS}.safetensors",
            lambda path: save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path),
        ),
        ("x.ckpt", lambda path: torch.save({"state_dict": {"gen_model": model.state_dict()}}, path)),
    ):
        path = directory / name
        write(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(VaectlError, match=re.escape(name)) as error:
            load_model(directory)
        one_line(error)


def test_a_pickle_of_something_else(directory):
    torch.save([1, 2, 3], directory / "x.ckpt")
    with pytest.raises(VaectlError, match="neither a state dict nor a training checkpoint"):
        load_model(directory)


def test_missing_directory_config_and_weights(tmp_path, directory):
    with pytest.raises(UsageError, match="no such file or directory"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no weights"):
        load_model(directory)
    (directory / "vae").mkdir()
    (directory / "config.json").rename(directory / "vae" / "config.json")
    with pytest.raises(UsageError, match=r"holds no config\.json.*did you mean .*vae\?"):
        load_model(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AutoencoderKL"}, "unknown _class_name 'AutoencoderKL'"),
        ({"_class_name": None}, "unknown _class_name None"),
        ({"l1_dowmsample_block": "Downsmaple"}, "l1_dowmsample_block: .*'Downsample'.*, not 'Downsmaple'"),
        (
            {"l1_downsample_block": "Downsample"},
            "unknown key 'l1_downsample_block'; did you mean 'l1_dowmsample_block'",
        ),
        ({"base_channels": 0}, "base_channels: .* not 0"),
        ({"latent_dim": "many"}, "latent_dim: .* not 'many'"),
        ({"dropout": 1.5}, "dropout: .* not 1.5"),
        ({"l1_downsample_wavelet": "HaarWaveletTransform3D"}, "l1 blocks and wavelets disagree"),
        ({"norm_type": "groupnorm"}, "32 groups"),
        ({"norm_type": "batchnorm"}, "norm_type: "),
    ],
)
def test_invalid_wfvae_configs_are_one_line(directory, change, message):
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(UsageError, match=message) as error:
        read_config(directory / "config.json")
    assert one_line(error).startswith(str(directory / "config.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_resnet_blocks": ["ResnetBlock3D"]}, "encoder_resnet_blocks must name 4 layers"),
        ({"decoder_spatial_upsample": ["", "", "", "SpatialUpsample2x"]}, "shrinks the video by another factor"),
        ({"encoder_attention": "AttnBlock4D"}, "encoder_attention: "),
        ({"encoder_temporal_downsample": ["", "Time", "", ""]}, "encoder_temporal_downsample"),
        ({"hidden_size": 40}, "32 groups"),
        ({"use_quant_layer": False, "embed_dim": 8}, "embed_dim must equal z_channels"),
    ],
)
def test_invalid_causalvae_configs_are_one_line(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps({**load_reference("causalvae_v1_2").config, **change}))
    with pytest.raises(UsageError, match=message) as error:
        read_config(tmp_path / "config.json")
    one_line(error)


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00\xff"])
def test_a_config_that_is_not_json(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config\.json"):
        read_config(tmp_path / "config.json")


def test_missing_keys_take_the_published_defaults_and_training_keys_are_left_alone(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"_class_name": "CausalVAEModel", "_diffusers_version": "0.27", "lr": 1e-5, "hidden_size": 32})
    )
    config = read_config(tmp_path / "config.json")
    published = load_reference("causalvae_class_defaults_narrow").config
    assert config.to_json() == published


def test_time_and_space_compression():
    for name, factors in {
        "wfvae_4x8x8": (4, 8),
        "wfvae_8x8x8": (8, 8),
        "causalvae_v1_2": (4, 8),
        "causalvae_res2x": (4, 8),
        "causalvae_class_defaults_narrow": (4, 8),
    }.items():
        config = load_reference(name).config
        fields = {key: value for key, value in config.items() if not key.startswith("_")}
        built = FAMILIES[config["_class_name"]].config_class.model_validate(fields)
        assert (built.time_compression, built.space_compression) == factors


def test_where_a_device_is_chosen_float32_means_float32():
    libraries = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [library.allow_tf32 for library in libraries]
    try:
        for library in libraries:
            library.allow_tf32 = True
        choose_device("cpu")
        assert not any(library.allow_tf32 for library in libraries)
    finally:
        for library, value in zip(libraries, before, strict=True):
            library.allow_tf32 = value


@pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
def test_an_unknown_device_is_one_line(device):
    with pytest.raises(UsageError, match=f"device {device}: unknown; must be auto, cpu, cuda"):
        choose_device(device)


def test_a_config_is_a_file_or_that_of_a_directory_or_of_the_built_in_model(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "WFVAEModel"}')
    assert locate_config(tmp_path) == locate_config(tmp_path / "config.json") == tmp_path / "config.json"
    assert read_config(locate_config(Path("builtin"))) == load_model(device="cpu").config
    with pytest.raises(UsageError, match=r"none/config\.json: no such file; give the config\.json of a model"):
        locate_config(tmp_path / "none" / "config.json")
