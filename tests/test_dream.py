"""DREAM's invariants on every process and for every prediction, and the published reference vector."""

import math
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import pytest
import torch
from torch import Tensor, nn

from dreamsr.config import Prediction, ProcessConfig
from dreamsr.core import dream
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.process import Process, level

DDPM = Process(ProcessConfig("linear", 1000, 1e-4, 0.02, anchored=False, k=1.0))
X0 = torch.tensor([[0.1, -0.2, 0.3, 0.4]], dtype=torch.float64)
EPS = torch.tensor([[0.5, -1.0, 2.0, 0.0]], dtype=torch.float64)
GUESS = torch.tensor([[0.4, -0.5, 1.0, 0.2]], dtype=torch.float64)
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
PROCESSES = [
    DDPM,
    Process(ProcessConfig()),
    Process(ProcessConfig("flow")),
    Process(ProcessConfig("resshift", 15)),
    Process(ProcessConfig("resshift", 4, kappa=0.1, noise_start=0.2)),
]

# (0-based t, p, abar, new noisy, new target): computed once with diffusers' float64 function
REFERENCE = [
    (0, 1, 0.9999, [0.105005, -0.21004, 0.320085, 0.39996], [0.501, -1.005, 2.01, -0.002]),
    (100, 0, 0.8951415909, [0.28890301, -0.67495157, 1.25529121, 0.31368399], [0.6, -1.5, 3.0, -0.2]),
    (
        100,
        1,
        0.8951415909,
        [0.267007, -0.56547153, 1.03633114, 0.35747601],
        [0.53238185, -1.16190924, 2.32381848, -0.0647637],
    ),
    (
        100,
        2,
        0.8951415909,
        [0.25991667, -0.53001987, 0.96542782, 0.37165667],
        [0.51048584, -1.0524292, 2.10485841, -0.02097168],
    ),
    (
        100,
        10,
        0.8951415909,
        [0.25652157, -0.51304438, 0.93147684, 0.37844687],
        [0.50000127, -1.00000634, 2.00001268, -0.00000254],
    ),
    (
        500,
        1,
        0.0777966584,
        [0.60026948, -1.47719996, 2.92650788, -0.07287246],
        [0.59603142, -1.48015709, 2.96031419, -0.19206284],
    ),
    (
        999,
        1,
        0.0000403583,
        [0.60062116, -1.50123021, 3.00182513, -0.1974508],
        [0.59999798, -1.49998991, 2.99997982, -0.19999596],
    ),
]


class Recorder(nn.Module):
    """A network that says `answer(u, row)` and remembers how it was called."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer, self.calls = answer, list[dict[str, Any]]()
        self.dropout = nn.Dropout(0.2)
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        return torch.zeros(len(anchor))

    def forward(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        self.calls.append(
            {"u": u.detach(), "angle": angle, "grad": torch.is_grad_enabled(), "training": self.dropout.training}
        )
        row = torch.stack([torch.cos(torch.pi / 2 * angle.double()), torch.sin(torch.pi / 2 * angle.double())], -1)
        return self.weight * self.answer(u, row)


def from_eps(prediction: Prediction, eps: Tensor, u: Tensor, row: Tensor) -> Tensor:
    """The eps-, x0-, v- or flow-prediction that says the same as `eps`."""
    a, s = row[:, :1], row[:, 1:]
    u_0 = (u - s * eps) / a
    return {"eps": eps, "x0": u_0, "v": a * eps - s * u_0, "flow": eps - u_0}[prediction]


def setup(prediction: Prediction, eps: Tensor | None, process: Process = DDPM) -> tuple[Denoiser, Recorder, Condition]:
    """A denoiser whose network predicts `eps` (None: zeros) in its own way."""

    def answer(u: Tensor, row: Tensor) -> Tensor:
        return torch.zeros_like(u) if eps is None else from_eps(prediction, eps, u, row)

    recorder = Recorder(answer)
    denoiser = Denoiser(cast(Any, recorder), process, prediction, torch.float64)
    return denoiser, recorder, Condition(*torch.zeros(3, 1))


@pytest.mark.parametrize(("t", "p", "abar", "noisy", "target"), REFERENCE)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_reference_vector(
    t: int, p: float, abar: float, noisy: list[float], target: list[float], prediction: Prediction
) -> None:
    row = level(DDPM.table[t])
    assert float(row[0] ** 2) == pytest.approx(abar, abs=1e-10)
    u = row[0] * X0 + row[1] * EPS
    denoiser, _, _ = setup(prediction, GUESS)
    estimate = denoiser.to_u_0(from_eps(prediction, GUESS, u, row[None]), u, row)
    moved = dream.rectify(u, X0, estimate, row, p)
    torch.testing.assert_close(moved[0], torch.tensor(noisy, dtype=torch.float64), rtol=0, atol=2e-8)
    wanted = from_eps(prediction, torch.tensor([target], dtype=torch.float64), moved, row[None])
    # the printed digits of eps are an error of u_0 that grows where alpha is small
    scale = 1 if prediction == "eps" else float(row[1] / row[0])
    torch.testing.assert_close(denoiser.target(X0, moved, row), wanted, rtol=0, atol=2e-8 * max(1, scale))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_off_is_bitwise_the_plain_loss_and_large_p_comes_to_it(prediction: Prediction) -> None:
    row = level(DDPM.table[400])
    denoiser, recorder, condition = setup(prediction, GUESS)

    def run(p: dream.Exponent) -> Tensor:
        return dream.loss(denoiser, X0, EPS, row, condition, p=p, norm="l2")

    off = run("off")
    assert len(recorder.calls) == 1
    a, s = row
    error = GUESS - EPS
    errors = {"eps": error, "x0": -s / a * error, "v": (a + s**2 / a) * error, "flow": (1 + s / a) * error}
    # 1e-6: this network knows the level as a float32 angle
    torch.testing.assert_close(off, errors[prediction].square().mean(), rtol=1e-6, atol=0)
    torch.testing.assert_close(run(1e6), off)
    assert off.item() > 0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_p_0_rectifies_fully(prediction: Prediction) -> None:
    row = level(DDPM.table[400])
    denoiser, recorder, condition = setup(prediction, GUESS)
    dream.loss(denoiser, X0, EPS, row, condition, p=0, norm="l1")
    u, moved = (call["u"] for call in recorder.calls)
    torch.testing.assert_close(moved, u + row[1] * (EPS - GUESS), rtol=0, atol=1e-6)
    target = denoiser.target(X0, moved, row)
    torch.testing.assert_close(target, from_eps(prediction, 2 * EPS - GUESS, moved, row[None]), rtol=0, atol=1e-6)


def test_the_l1_loss_of_full_rectification() -> None:
    """The network says GUESS again, the target is 2 eps - GUESS."""
    denoiser, _, condition = setup("eps", GUESS)
    loss = dream.loss(denoiser, X0, EPS, level(DDPM.table[400]), condition, p=0, norm="l1")
    torch.testing.assert_close(loss.detach(), 2 * (EPS - GUESS).abs().mean())


@pytest.mark.parametrize(("norm", "each"), [("l1", 3.0), ("l2", 9.0)])
def test_a_level_weighs_its_signal_to_noise_ratio_up_to_the_cap(norm: Literal["l1", "l2"], each: float) -> None:
    """An error of 3 everywhere, at SNR 1/4, 1 and 9: weights 5/4, 2 and the cap of 5."""
    snr = torch.tensor([0.25, 1.0, 9.0], dtype=torch.float64)
    rows = torch.stack([snr / (1 + snr), 1 / (1 + snr)], dim=1).sqrt()
    u_0, eps = torch.randn(2, 3, 4, dtype=torch.float64)
    denoiser, _, condition = setup("eps", eps + 3)
    for cap, weight in ((1.0, 1.0), (5.0, (1.25 + 2 + 5) / 3)):
        loss = dream.loss(denoiser, u_0, eps, rows, condition, p="off", norm=norm, snr_cap=cap)
        assert loss.item() == pytest.approx(each * weight)


@pytest.mark.parametrize(("t", "p", "abar", "noisy", "target"), REFERENCE)
def test_reference_vector_through_the_loss(
    t: int, p: float, abar: float, noisy: list[float], target: list[float]
) -> None:
    denoiser, recorder, condition = setup("eps", GUESS)
    loss = dream.loss(denoiser, X0, EPS, level(DDPM.table[t]), condition, p=p, norm="l2")
    moved = recorder.calls[1]["u"][0]
    torch.testing.assert_close(moved, torch.tensor(noisy, dtype=torch.float64), rtol=0, atol=2e-8)
    expected = (GUESS[0] - torch.tensor(target, dtype=torch.float64)).square().mean()
    torch.testing.assert_close(loss.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("p", [0.0, 1.0, 3.0])
def test_a_perfect_network_moves_nothing_and_has_no_loss(prediction: Prediction, p: float) -> None:
    row = level(DDPM.table[250])
    denoiser, recorder, condition = setup(prediction, EPS)
    loss = dream.loss(denoiser, X0, EPS, row, condition, p=p, norm="l2")
    # not exactly 0: this network knows the level as a float32 angle
    assert loss.item() < 1e-12
    torch.testing.assert_close(recorder.calls[1]["u"], recorder.calls[0]["u"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("t", [0, 300, 999])
def test_the_moved_triple_still_stands_for_the_same_picture(p: float, t: int) -> None:
    row = level(DDPM.table[t])
    u = row[0] * X0 + row[1] * EPS
    estimate = X0 + torch.randn_like(X0)
    moved = dream.rectify(u, X0, estimate, row, p)
    for prediction in PREDICTIONS:
        denoiser, _, _ = setup(prediction, None)
        again = denoiser.to_u_0(denoiser.target(X0, moved, row), moved, row)
        torch.testing.assert_close(again, X0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_two_passes_the_first_silent(prediction: Prediction) -> None:
    denoiser, recorder, condition = setup(prediction, None)
    recorder.train()
    u_0, eps = X0.expand(3, -1), torch.randn(3, 4, dtype=torch.float64)
    rows = level(torch.tensor([-1.0, 0.0, 2.0]))
    before = u_0.clone(), eps.clone()
    dream.loss(denoiser, u_0, eps, rows, condition, p=1, norm="l2").backward()
    first, second = recorder.calls
    assert (first["grad"], first["training"]) == (False, False)
    assert (second["grad"], second["training"]) == (True, True)
    assert torch.equal(first["angle"], second["angle"])
    assert torch.equal(u_0, before[0])
    assert torch.equal(eps, before[1])
    assert recorder.weight.grad is not None


def test_every_submodule_gets_its_own_flag_back() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Dropout())
    network[0].eval()

    def fail_inside() -> None:
        with dream.eval_mode(network):
            assert not any(module.training for module in network.modules())
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail_inside()
    assert [module.training for module in network.modules()] == [True, False, True]


def test_the_gradient_does_not_pass_the_first_estimate() -> None:
    """For a network w * u the loss is (w u' - target)^2 with u' a constant."""
    row = level(torch.tensor(0.3))
    recorder = Recorder(lambda u, _: u)
    denoiser = Denoiser(cast(Any, recorder), DDPM, "x0", torch.float64)
    condition = Condition(*torch.zeros(3, 1))
    dream.loss(denoiser, X0, EPS, row, condition, p=1, norm="l2").backward()
    moved = recorder.calls[1]["u"]
    expected = (2 * (moved - X0) * moved).mean()
    assert recorder.weight.grad is not None
    torch.testing.assert_close(recorder.weight.grad, expected)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_process_is_rectified_alike(process: Process, prediction: Prediction) -> None:
    """u_t becomes alpha u_0 + sigma (eps + strength (eps - eps_hat)); a perfect network leaves it as it is."""
    rows = process.level(torch.linspace(*process.span, 7, dtype=torch.float64))
    u_0, eps = X0.expand(7, -1), EPS.expand(7, -1)
    a, s = rows[:, :1], rows[:, 1:]
    norm = torch.hypot(a, s)
    for guess in (EPS, GUESS):
        denoiser, recorder, condition = setup(prediction, guess, process)
        loss = dream.loss(denoiser, u_0, eps, rows, condition, p=1, norm="l2")
        before, after = (norm * call["u"] for call in recorder.calls)
        torch.testing.assert_close(before, a * u_0 + s * eps, rtol=0, atol=1e-12)
        # 1e-5: this network knows the level as a float32 angle
        expected = a * u_0 + s * (eps + s / norm * (eps - guess))
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)
        assert (loss.item() < 1e-6) == (guess is EPS)


@pytest.mark.parametrize("process", PROCESSES)
def test_predictions_differ_by_a_factor_of_the_level_alone(process: Process) -> None:
    """The loss as a function of the implied u_0 is c^2 (u0_hat - u_0)^2, and so are its gradients."""
    row = process.level(torch.tensor(0.7, dtype=torch.float64))
    a, s = row.tolist()
    factors = {"x0": 1.0, "eps": a / s, "v": math.hypot(a, s) / s, "flow": (a + s) / s}
    gradients = []
    for prediction in PREDICTIONS:
        u_0_hat = (X0 + 0.3).requires_grad_()

        def answer(u: Tensor, row: Tensor, of: Prediction = prediction, u_0_hat: Tensor = u_0_hat) -> Tensor:
            eps = (u - row[:, :1] * u_0_hat) / row[:, 1:]
            return from_eps(of, eps, u, row)

        denoiser = Denoiser(cast(Any, Recorder(answer)), process, prediction, torch.float64)
        dream.loss(denoiser, X0, EPS, row, Condition(*torch.zeros(3, 1)), p=1, norm="l2").backward()
        assert u_0_hat.grad is not None
        gradients.append(u_0_hat.grad / factors[prediction] ** 2)
    expected = torch.full_like(X0, 2 * 0.3 / X0.numel())
    # 1e-6: this network knows the level as a float32 angle
    for gradient in gradients:
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


def test_strength_on_other_processes() -> None:
    """sigma^p on variance-preserving levels, 1/2 to the p/2 where alpha equals sigma, and p = 0 always 1."""
    rows = level(torch.tensor([-2.0, 0.0, 2.0]))
    torch.testing.assert_close(dream.strength(rows, 3), rows[:, 1] ** 3)
    flow = torch.tensor([[0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(dream.strength(flow, 1), torch.tensor([0.5**0.5, 0.8 / 0.68**0.5], dtype=torch.float64))
    assert dream.strength(rows, 0).tolist() == [1, 1, 1]
