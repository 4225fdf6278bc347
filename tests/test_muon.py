"""Muon: orthogonal steps of a size that layers do not change."""

import pytest
import torch
from conftest import TINY
from torch import nn

from dreamsr.config import TrainConfig
from dreamsr.engine import optimize
from dreamsr.engine.muon import MOMENTUM, RMS, Muon, orthogonal

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(2, 8, 72), (2, 72, 8), (1, 16, 16)])
def test_singular_vectors_stay_and_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    """With U S V' of the input, U' X V of the output is diagonal; five rounds leave 0.7 to 1.2 on it."""
    u, s, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    s = torch.logspace(0, -2.4, s.shape[1], dtype=torch.float64).expand_as(s)
    inner = u.mT @ orthogonal(u @ torch.diag_embed(s) @ v) @ v.mT
    values = torch.diagonal(inner, dim1=1, dim2=2)
    torch.testing.assert_close(inner, torch.diag_embed(values), atol=1e-6, rtol=0)
    assert values.min() > 0.67
    assert values.max() < 1.21


def test_in_bf16_it_does_as_well() -> None:
    matrices = torch.randn(2, 16, 144)
    with torch.autocast("cpu", torch.bfloat16):
        made = orthogonal(matrices)
    assert made.dtype == torch.bfloat16
    values = torch.linalg.svdvals(made.float())
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_no_gradient_no_direction() -> None:
    assert torch.equal(orthogonal(torch.zeros(1, 4, 9)), torch.zeros(1, 4, 9))


def one_step(weight: torch.Tensor, gradient: torch.Tensor, weight_decay: float = 0.0) -> torch.Tensor:
    """What a step at a rate of 0.01 adds to the weight."""
    parameter = nn.Parameter(weight.clone())
    parameter.grad = gradient
    Muon([parameter], 0.01, weight_decay).step()
    return parameter.detach() - weight


def test_the_size_of_a_step_depends_on_the_rate_alone() -> None:
    """Singular values of about 1 in a matrix of m x n with m < n: a root mean square of n^-1/2 before the scaling."""
    for shape in ((8, 8, 3, 3), (32, 16, 1, 1), (16, 8, 2, 2)):
        for strength in (1e-4, 1e4):
            change = one_step(torch.zeros(shape), strength * torch.randn(shape))
            assert change.square().mean().sqrt() == pytest.approx(0.01 * RMS, rel=0.25)


def test_a_step_goes_down_and_weights_decay() -> None:
    weight, gradient = torch.randn(2, 8, 8, 3, 3)
    change = one_step(weight, gradient)
    assert (change * gradient).sum() < 0
    torch.testing.assert_close(one_step(weight, gradient, 0.1), change - 0.01 * 0.1 * weight)
    torch.testing.assert_close(one_step(weight, torch.zeros_like(gradient), 0.1), -0.01 * 0.1 * weight)


def test_the_momentum_is_that_of_nesterov() -> None:
    """The gradients g and 0 leave (1 - m) m g of momentum; the second direction is m times that."""
    parameter, gradient = nn.Parameter(torch.zeros(4, 2, 3, 3)), torch.randn(4, 2, 3, 3)
    optimizer = Muon([parameter], 0.01, 0.0)
    for value in (gradient, torch.zeros_like(gradient)):
        direction = optimizer._direction(parameter, value)
    torch.testing.assert_close(direction, (1 - MOMENTUM) * MOMENTUM**2 * gradient)


def test_layers_of_one_shape_do_not_mix() -> None:
    """They are computed in one batch."""
    weights, gradients = torch.randn(2, 3, 8, 4, 3, 3)
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    Muon(parameters, 0.01, 0.0).step()
    for parameter, weight, gradient in zip(parameters, weights, gradients, strict=True):
        torch.testing.assert_close(parameter.detach() - weight, one_step(weight, gradient))


def test_every_weight_has_one_optimizer() -> None:
    """With Muon, those of convolutions its own."""
    for name in ("adamw", "muon"):
        config = TrainConfig(model=TINY, crop=32, optimizer=name, lr=0.02, weight_decay=0.3)
        state = optimize.new_state(config, CPU)
        owned = [p for optimizer in state.optimizers for group in optimizer.param_groups for p in group["params"]]
        assert sorted(map(id, owned)) == sorted(map(id, state.network.parameters()))
        kinds = [type(optimizer) for optimizer in state.optimizers]
        assert kinds == [torch.optim.AdamW] + [Muon] * (name == "muon")
        assert state.optimizers[0].defaults["betas"] == (0.9, 0.99)
        for optimizer in state.optimizers:
            assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.02, 0.3)
    assert all(p.ndim == 4 for group in state.optimizers[1].param_groups for p in group["params"])
    assert all(p.ndim != 4 for group in state.optimizers[0].param_groups for p in group["params"])


def test_a_weight_without_a_gradient_stays() -> None:
    parameter = nn.Parameter(torch.ones(4, 2, 3, 3))
    Muon([parameter], 0.01, 0.1).step()
    assert torch.equal(parameter.detach(), torch.ones(4, 2, 3, 3))
