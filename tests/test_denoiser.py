"""What networks predict, and where pictures are clipped."""

from dataclasses import replace
from typing import Any, cast, get_args

import pytest
import torch
from torch import Tensor

from dreamsr.config import Prediction, ProcessConfig
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.process import Process, level

SCALE = torch.tensor([4.0])
RESIDUAL = Process(ProcessConfig())
PROCESSES = [
    RESIDUAL,
    Process(ProcessConfig("linear")),
    Process(ProcessConfig("flow")),
    Process(ProcessConfig("resshift", 15)),
    Process(ProcessConfig("resshift", 4, kappa=0.1, noise_start=0.2)),
]


class Answer:
    """A network that always answers the same."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self.angles: list[Tensor] = []
        self.inputs: list[Tensor] = []

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        return anchor

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        self.angles.append(angle)
        self.inputs.append(u)
        return self.value


def denoiser(value: Tensor, prediction: Prediction) -> Denoiser:
    return Denoiser(cast(Any, Answer(value)), RESIDUAL, prediction, torch.float64)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("lam", [-4.0, 0.0, 4.5])
def test_a_true_prediction_gives_the_true_picture(prediction: Prediction, lam: float) -> None:
    generator = torch.Generator().manual_seed(5)
    u_0, eps = torch.randn(2, 4, 3, 8, 8, generator=generator, dtype=torch.float64)
    row = level(torch.full((4,), lam))
    a, s = row.T.reshape(2, 4, 1, 1, 1)
    u = a * u_0 + s * eps
    target = denoiser(u_0, prediction).target(u_0, u, row)
    expected = {"eps": eps, "x0": u_0, "v": a * eps - s * u_0}[prediction]
    torch.testing.assert_close(target, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(denoiser(u_0, prediction).to_u_0(target, u, row), u_0, rtol=1e-9, atol=1e-9)


def pairs(process: Process, count: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(u_0, eps, u, level) over the trained range, float64."""
    generator = torch.Generator().manual_seed(5)
    u_0, eps = torch.randn(2, count, 3, 4, 4, generator=generator, dtype=torch.float64)
    rows = process.level(torch.linspace(*process.span, count, dtype=torch.float64))
    a, s = rows.T.reshape(2, count, 1, 1, 1)
    return u_0, eps, a * u_0 + s * eps, rows


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_targets_on_every_process(process: Process, prediction: Prediction) -> None:
    """v is that of the variance-preserving process at the same lambda, the flow that of the rectified flow."""
    u_0, eps, u, rows = pairs(process)
    net = Denoiser(cast(Any, None), process, prediction, torch.float64)
    target = net.target(u_0, u, rows)
    angle = torch.atan2(rows[:, 1], rows[:, 0]).reshape(-1, 1, 1, 1)
    v = torch.cos(angle) * eps - torch.sin(angle) * u_0
    expected = {"eps": eps, "x0": u_0, "v": v, "flow": eps - u_0}[prediction]
    torch.testing.assert_close(target, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(net.to_u_0(target, u, rows), u_0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES)
def test_networks_see_the_variance_preserving_state_of_equal_lambda(process: Process) -> None:
    u_0, eps, u, rows = pairs(process)
    net = Denoiser(cast(Any, Answer(u_0)), process, "x0", torch.float64)
    net.predict(u, rows, Condition(*torch.zeros(3, 1)))
    same = level(torch.log(rows[:, 0] / rows[:, 1]))
    a, s = same.T.reshape(2, -1, 1, 1, 1)
    answer = cast(Answer, net.network)
    torch.testing.assert_close(answer.inputs[0], a * u_0 + s * eps, rtol=0, atol=1e-12)
    expected = 2 / torch.pi * torch.atan2(same[:, 1], same[:, 0])
    torch.testing.assert_close(answer.angles[0].double(), expected, rtol=0, atol=1e-6)
    if process.variance_preserving:
        assert answer.inputs[0] is u


def test_pictures_are_clipped_not_residuals() -> None:
    """x_0 = anchor + u_0 / k is held within [-1, 1]; a large residual alone is not clipped."""
    anchor = torch.tensor([-0.9, 0.0, 0.9], dtype=torch.float64).view(1, 3, 1, 1)
    u_0 = torch.tensor([3.0, -1.5, 3.0], dtype=torch.float64).view(1, 3, 1, 1)
    result = denoiser(u_0, "x0")(torch.zeros_like(u_0), level(torch.tensor(0.0)), Condition(anchor, anchor, SCALE))
    assert RESIDUAL.to_x(result, anchor).flatten().tolist() == pytest.approx([0.6, -0.75, 1.0])


def test_the_network_is_told_a_bounded_angle() -> None:
    net = denoiser(torch.zeros(2, 3, 4, 4, dtype=torch.float64), "x0")
    rows = level(torch.tensor([-30.0, 0.0]))
    net.predict(torch.zeros(2, 3, 4, 4, dtype=torch.float64), rows, Condition(*torch.zeros(3, 1)))
    answer = cast(Answer, net.network)
    assert answer.angles[0].tolist() == pytest.approx([1.0, 0.5])


class Overflowing:
    """Says what it is given; in half precision, values above 60000 become infinite."""

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        return anchor * 1e5

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        return features * 1e-5 + 0 * u


def test_a_picture_that_overflows_is_done_again_in_float32() -> None:
    """Its neighbours in the batch are left as they are, and do not change what it becomes."""
    anchor = torch.stack([torch.full((3, 4, 4), value) for value in (0.125, 0.9, 0.25)])
    network = cast(Any, Overflowing())
    low = Denoiser(network, Process(ProcessConfig(anchored=False, k=1)), "x0", torch.float16)
    row, u = level(torch.tensor(0.0)), torch.zeros(3, 3, 4, 4)
    seen = low.predict(u, row, low.condition(anchor, SCALE))[:, 0, 0, 0]
    assert seen.isfinite().tolist() == [True, False, True]
    safe = replace(low, exact=network)
    result = safe(u, row, safe.condition(anchor, SCALE))[:, 0, 0, 0]
    assert float(result[1]) == pytest.approx(0.9, abs=1e-6)
    for i in (0, 1, 2):
        alone = safe(u[i : i + 1], row, safe.condition(anchor[i : i + 1], SCALE))
        assert float(alone[0, 0, 0, 0]) == float(result[i])
    assert torch.equal(result[::2], low(u, row, low.condition(anchor, SCALE))[::2, 0, 0, 0])


class Telling:
    """Says the angle and the scale it is told, of one picture; where half precision does not hold them: infinity."""

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        return scale.expand(len(anchor)).view(-1, 1, 1, 1)

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        assert u.dtype == torch.float16 or len(u) == len(angle) == len(features) == 1
        told = angle.view(-1, 1, 1, 1) + features / 10
        return 0 * u.float() + (told if u.dtype == torch.float32 else torch.inf)


def test_a_picture_that_is_done_again_keeps_its_level_and_scale() -> None:
    network = cast(Any, Telling())
    safe = Denoiser(network, Process(ProcessConfig(anchored=False, k=1)), "x0", torch.float16, network)
    rows, u = level(torch.tensor([30.0, 0.0])), torch.zeros(2, 3, 4, 4)
    result = safe(u, rows, safe.condition(u, torch.tensor([2.0, 4.0])))
    assert result[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.9])
