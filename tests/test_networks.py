"""PatchUNet with every weight randomised: zero-initialised outputs would make these pass by themselves."""

from dataclasses import replace

import pytest
import torch
from conftest import NETWORK, randomise
from torch import Tensor
from torch.nn import functional

from dreamsr.config import NetworkConfig
from dreamsr.core.networks import PatchUNet
from dreamsr.files import checkpoint

SCALE = torch.tensor([4.0])


def run(network: checkpoint.UNet, height: int, width: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    u, anchor = torch.randn(2, batch, 3, height, width, generator=generator)
    angle = torch.linspace(0.1, 0.9, batch)
    out: Tensor = network(u, angle, network.encode(anchor, SCALE))
    assert float(out.detach().std()) > 0.1 or not any(p.any() for p in network.leave.parameters())
    return out


@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 1), (3, 7), (17, 40), (33, 65)])
def test_any_size(height: int, width: int) -> None:
    out = run(randomise(PatchUNet(NETWORK)), height, width)
    assert out.shape == (2, 3, height, width)
    assert bool(out.isfinite().all())


def test_odd_sizes_are_the_extended_picture_cut_back() -> None:
    network = randomise(PatchUNet(NetworkConfig(widths=(8, 12, 16), blocks=1, encoder_blocks=1)))
    u, anchor = torch.randn(2, 1, 3, 17, 40)
    extended = [functional.pad(x, (0, 8, 0, 15), mode="replicate") for x in (u, anchor)]
    angle = torch.tensor([0.4])
    with torch.no_grad():
        cut = network(u, angle, network.encode(anchor, SCALE))
        whole = network(extended[0], angle, network.encode(extended[1], SCALE))
    torch.testing.assert_close(cut, whole[..., :17, :40], rtol=0, atol=1e-6)


def test_a_fresh_network_predicts_the_anchor() -> None:
    assert float(run(PatchUNet(NETWORK), 32, 32).detach().abs().max()) == 0


def test_stages_are_shown_down_and_up_again_and_end_in_the_prediction() -> None:
    network = randomise(PatchUNet(NetworkConfig(widths=(8, 12, 16), blocks=1, encoder_blocks=1)))
    u, anchor = torch.randn(2, 1, 3, 32, 64)
    angle, features = torch.tensor([0.4]), network.encode(anchor, SCALE)
    maps = [*network.stages(u, angle, features)]
    assert [tuple(x.shape[1:]) for x in maps] == [(8, 8, 16), (12, 4, 8), (16, 2, 4), (12, 4, 8), (8, 8, 16)]
    last = functional.layer_norm(maps[-1].movedim(1, 3), (8,)).movedim(3, 1)
    expected = functional.pixel_shuffle(network.leave(functional.silu(last)), 4)
    torch.testing.assert_close(network(u, angle, features), expected)


def test_every_level_has_its_own_number_of_blocks() -> None:
    config = NetworkConfig(widths=(8, 12, 16), blocks=(1, 2, 3), encoder_blocks=1)
    network = randomise(PatchUNet(config))
    assert [[len(list(stage.children())) for stage in side] for side in (network.down, network.up)] == [
        [1, 2, 3],
        [1, 2],
    ]
    assert run(network, 17, 40).shape == (2, 3, 17, 40)
    alike = [PatchUNet(replace(config, blocks=blocks)).state_dict() for blocks in (2, (2, 2, 2))]
    assert [(k, v.shape) for k, v in alike[0].items()] == [(k, v.shape) for k, v in alike[1].items()]


@pytest.mark.parametrize(
    "config",
    [
        NETWORK,
        NetworkConfig(widths=(8,), blocks=2, encoder_blocks=0, patch=2),
        NetworkConfig(widths=(8,), blocks=1, encoder_blocks=2, scale_embedding=True),
    ],
)
def test_every_parameter_has_a_gradient(config: NetworkConfig) -> None:
    network = randomise(PatchUNet(config))
    run(network, 32, 32).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_equal_after_save_and_load(tmp_path: object, tiny_model: checkpoint.Model) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "net.safetensors"
    checkpoint.save_model(path, tiny_model, torch.float32)
    with torch.no_grad():
        again = run(checkpoint.load_model(path).network, 24, 40)
        assert torch.equal(again, run(tiny_model.network, 24, 40))


def test_a_picture_does_not_depend_on_its_batch() -> None:
    network = randomise(PatchUNet(NETWORK)).double()
    with torch.no_grad():
        u, anchor = torch.randn(2, 3, 3, 32, 32, dtype=torch.float64)
        angle = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
        together = network(u, angle, network.encode(anchor, SCALE))
        alone = network(u[1:2], angle[1:2], network.encode(anchor[1:2], SCALE))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-12)


def test_the_default_fits_into_a_wheel() -> None:
    count = sum(p.numel() for p in PatchUNet(NetworkConfig()).parameters())
    assert 6_000_000 < count <= 8_300_000


def test_what_a_pixel_sees_is_bounded() -> None:
    """A change far away changes nothing: no attention, no statistics over space."""
    network = randomise(PatchUNet(NETWORK)).double()
    u = torch.randn(1, 3, 16, 512, dtype=torch.float64)
    changed = u.clone()
    changed[..., 400:] += 1
    with torch.no_grad():
        angle, features = torch.tensor([0.5]), network.encode(u, SCALE)
        difference = (network(u, angle, features) - network(changed, angle, features)).abs().amax((0, 1, 2))
    assert float(difference[:256].max()) == 0
    assert float(difference[400:].max()) > 0
