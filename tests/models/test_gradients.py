"""Gradients equal those of the straightforward network, of finite differences, and of recomputation."""

import pytest
import torch

from tests import straightforward
from tests.training.runs import WAN, WAN_2_2
from vaectl.geometry import latent_frames
from vaectl.models.blocks import Attention, ResnetBlock2D, ResnetBlock3D
from vaectl.models.config import WFVAEConfig
from vaectl.models.context import StreamContext
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.resample import (
    Spatial2xTime2x3DDownsample,
    Spatial2xTime2x3DUpsample,
    TimeDownsample2x,
    TimeDownsampleRes2x,
    TimeUpsample2x,
    TimeUpsampleRes2x,
)
from vaectl.models.vae import AnyVAE
from vaectl.tiling.trace import PeakMemoryMode

from .reference import CASES, load_reference, synthetic_model
from .synthetic_weights import synthetic_video

pytestmark = pytest.mark.usefixtures("one_thread")

# float32 sums in another order, on outputs of order 1.
TOLERANCE = 1e-4
# Relative to the largest entry of a gradient; measured up to 8e-6.
GRADIENT_TOLERANCE = 5e-5

CAUSALVAE_CASES = [name for name in CASES if name.startswith("causalvae")]
WFVAE_CASES = [name for name in CASES if name.startswith("wfvae")]
TIME_IN_L1 = {
    "l1_dowmsample_block": "Spatial2xTime2x3DDownsample",
    "l1_downsample_wavelet": "HaarWaveletTransform3D",
    "l1_upsample_block": "Spatial2xTime2x3DUpsample",
    "l1_upsample_wavelet": "InverseHaarWaveletTransform3D",
}
SMALL = {
    "latent_dim": 3,
    "base_channels": 8,
    "encoder_num_resblocks": 1,
    "decoder_num_resblocks": 1,
    "encoder_energy_flow_hidden_size": 4,
    "decoder_energy_flow_hidden_size": 12,
    "norm_type": "layernorm",
}
CONFIGS = {
    "trilinear": {"t_interpolation": "trilinear"},
    "nearest": {"t_interpolation": "nearest"},
    "no attention": {"use_attention": False},
    "8x8x8": {**TIME_IN_L1, "t_interpolation": "trilinear"},
    "8x8x8 nearest, no attention": {**TIME_IN_L1, "use_attention": False},
    "many blocks": {"encoder_num_resblocks": 3, "decoder_num_resblocks": 2, "connect_res_layer_num": 3},
    "causal spatial resampling": {
        "l1_dowmsample_block": "SpatialDownsample2x",
        "l1_upsample_block": "SpatialUpsample2x",
    },
    "attention that mixes frames": {"attention_type": "AttnBlock3D"},
    "groupnorm": {
        "norm_type": "groupnorm",
        "base_channels": 32,
        "encoder_energy_flow_hidden_size": 32,
        "decoder_energy_flow_hidden_size": 32,
    },
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", WFVAE_CASES)
def test_straightforward_formulation_agrees_with_the_original(name):
    case = load_reference(name)
    model = synthetic_model(case.config)
    moments, _ = straightforward.encode(model.state_dict(), model.config, case.video)
    mean, logvar = moments.chunk(2, dim=1)
    moments = torch.cat([mean, logvar.clamp(-30, 20)], dim=1)
    torch.testing.assert_close(moments, case.moments, rtol=0, atol=TOLERANCE)
    video, _ = straightforward.decode(model.state_dict(), model.config, mean)
    torch.testing.assert_close(video, case.reconstruction, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("change", CONFIGS.values(), ids=CONFIGS.keys())
def test_values_and_gradients_are_those_of_the_straightforward_formulation(change, frames):
    config = WFVAEConfig(**{**SMALL, **change})
    model = synthetic_model(config.to_json())
    assert isinstance(model, WFVAE)
    model.requires_grad_(True)
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        weights[name].requires_grad_(True)
    x = torch.from_numpy(synthetic_video("gradients", (2, 3, frames, 16, 24)))
    z = noise(2, config.latent_dim, latent_frames(frames, config.time_compression), 2, 3)

    def fast(x, z):
        encoded = model.run_encoder(model.prepare(x), StreamContext(), model.features)
        return encoded, model.run_decoder(model.prepare(z), StreamContext(), model.features)

    def plain(x, z):
        return straightforward.encode(weights, config, x), straightforward.decode(weights, config, z)

    results = []
    for run, parameters in ((fast, dict(model.named_parameters())), (plain, weights)):
        inputs = [tensor.clone().requires_grad_(True) for tensor in (x, z)]
        (moments, coefficients), (video, predicted) = run(*inputs)
        outputs = {"moments": moments, "video": video}
        outputs |= {f"c{i}": c for i, c in enumerate((*coefficients, *predicted))}
        # A random direction, so that every output counts and none cancels another.
        loss = sum((y * noise(*y.shape, seed=i)).mean() for i, y in enumerate(outputs.values()))
        leaves = {"x": inputs[0], "z": inputs[1], **{name: parameters[name] for name in names}}
        gradients = dict(zip(leaves, torch.autograd.grad(loss, leaves.values()), strict=True))
        results.append((outputs, gradients))

    (outputs, gradients), (wanted_outputs, wanted_gradients) = results
    for name, wanted in wanted_outputs.items():
        torch.testing.assert_close(outputs[name], wanted, rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")
    scale = max(wanted.abs().max().item() for wanted in wanted_gradients.values())
    for name, wanted in wanted_gradients.items():
        # Some gradients are zero up to rounding, for example of the bias of k, which the softmax cancels.
        allowed = GRADIENT_TOLERANCE * wanted.abs().max().item() + 1e-6 * scale
        torch.testing.assert_close(gradients[name], wanted, rtol=0, atol=allowed, msg=lambda m, n=name: f"{n}: {m}")


@torch.no_grad()
def test_the_network_can_be_compiled_as_one_graph():
    """Trace and run without code generation. PyTorch cannot trace the oneDNN kernel on the CPU."""
    model = synthetic_model(WFVAEConfig(**SMALL).to_json())
    video = torch.from_numpy(synthetic_video("compiled", (1, 3, 5, 16, 16)))
    latent = noise(1, 3, 2, 2, 2)
    for run, x in ((model.run_encoder, video), (model.run_decoder, latent)):
        compiled = torch.compile(lambda x, run=run: run(x, StreamContext())[0], backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), run(x, StreamContext())[0], rtol=0, atol=TOLERANCE)


LAYERS = {
    "res-block, groupnorm of frames": lambda: ResnetBlock2D(32, 64, "groupnorm"),
    "res-block, groupnorm of the clip": lambda: ResnetBlock3D(32, 64, "groupnorm"),
    "res-block, layernorm": lambda: ResnetBlock3D(32, 32, "layernorm"),
    "attention in frames": lambda: Attention("AttnBlock3DFix", 32, "groupnorm"),
    "attention that mixes frames": lambda: Attention("AttnBlock3D", 32, "groupnorm"),
    "half the size and frames": lambda: Spatial2xTime2x3DDownsample(32, 32),
    "twice the size and frames": lambda: Spatial2xTime2x3DUpsample(32, 32),
    "average of frames": TimeDownsample2x,
    "average and convolution": lambda: TimeDownsampleRes2x(32),
    "interpolation of frames": TimeUpsample2x,
    "interpolation and convolution": lambda: TimeUpsampleRes2x(32),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_gradients_of_a_layer_are_its_differences(make):
    """In float64, along a random direction of input and parameters."""
    torch.manual_seed(0)
    layer = make().double()
    x = noise(1, 32, 5, 4, 6).double().requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, StreamContext()))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)


def gradients_of(model: AnyVAE, x: torch.Tensor, recompute: bool = False) -> tuple[torch.Tensor, ...]:
    """Gradients of all parameters, for the sum of |y - x| and of the squared coefficients that a WF-VAE predicts."""
    moments, _ = model.run_encoder(model.prepare(x), StreamContext(recompute=recompute))
    mean = moments.chunk(2, dim=1)[0]
    y, predicted = model.run_decoder(mean, StreamContext(recompute=recompute), model.features)
    loss = (y - x).abs().sum() + sum(c.square().sum() for c in predicted)
    return torch.autograd.grad(loss, [*model.parameters()])


@pytest.mark.parametrize("name", CAUSALVAE_CASES)
def test_float32_gives_the_gradients_of_float64(name):
    """The reference calls no oneDNN kernel directly, so this checks those of the whole network on the CPU."""
    case = load_reference(name)
    model = synthetic_model(case.config).requires_grad_(True)
    x = case.video[:, :, :5, :32, :32]
    given = gradients_of(model, x)
    wanted = gradients_of(model.double(), x.double())
    scale = max(gradient.abs().max().item() for gradient in wanted)
    for (parameter, _), a, b in zip(model.named_parameters(), given, wanted, strict=True):
        # Plus the rounding of gradients that are zero; measured up to 6e-5. The gradient of a mix factor is
        # one sum over all positions, whose terms cancel to 1/400 of their size (30 of 12,000). It inherits the rounding
        # of these terms; adding them in float64 changes nothing. Measured up to 2.5e-5 of the scale.
        allowed = 2e-4 * b.abs().max().item() + (1e-4 if parameter.endswith("mix_factor") else 1e-5) * scale
        torch.testing.assert_close(a.double(), b, rtol=0, atol=allowed, msg=lambda m, n=parameter: f"{n}: {m}")


@pytest.mark.parametrize("name", CAUSALVAE_CASES)
def test_autocast_gives_about_the_gradients_of_float32(name):
    case = load_reference(name)
    model = synthetic_model(case.config).requires_grad_(True)
    x = case.video[:, :, :5, :32, :32]
    with torch.autocast("cpu", torch.bfloat16):
        given = gradients_of(model, x)
    wanted = gradients_of(model, x)
    flat = [torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (given, wanted)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.98


@pytest.mark.parametrize("name", ["wfvae_4x8x8", "causalvae_res2x", "wan_2_1", "wan_2_2"])
def test_a_clip_computed_twice_gives_the_same_gradients_with_less_memory(name):
    case = load_reference(name if name in CASES else "wfvae_4x8x8")
    config = {"wan_2_1": WAN, "wan_2_2": WAN_2_2}.get(name, case.config)
    model = synthetic_model({**config, "dropout": 0.1}).requires_grad_(True).train()
    x = case.video[:1, :, :5].repeat(1, 1, 1, 2, 2)[..., :64, :64]
    results, peaks = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        with PeakMemoryMode() as living:
            living.watch([*model.parameters()])
            results.append(gradients_of(model, x, recompute))
        peaks.append(living.peak)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    weights = 2 * sum(parameter.nbytes for parameter in model.parameters())  # with their gradients
    assert peaks[1] - weights < 0.5 * (peaks[0] - weights)


def test_a_piece_of_a_clip_cannot_be_computed_twice():
    with pytest.raises(ValueError, match="whole clip"):
        StreamContext(last=False, recompute=True)
    with pytest.raises(ValueError, match="whole clip"):
        StreamContext({}, recompute=True)
