"""`dreamsr export --blend`: weights between those of related models."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import NETWORK, TINY, randomise
from programs import Program

from dreamsr.config import ModelConfig
from dreamsr.engine import tuner
from dreamsr.engine.blending import blended
from dreamsr.errors import UsageError
from dreamsr.files import checkpoint
from dreamsr.files.checkpoint import Model


def model(std: float, config: ModelConfig = TINY) -> Model:
    return Model(config, randomise(checkpoint.build(config), std).eval(), {"licence": "none"})


def test_weights_are_the_sum_by_shares() -> None:
    """All three are multiples of the same random numbers, so their mixture is one as well."""
    mixture = blended(model(0.1), {"b": (model(0.2), 0.5), "c": (model(0.4), 0.25)})
    for got, want in zip(mixture.network.parameters(), model(0.225).network.parameters(), strict=True):
        torch.testing.assert_close(got, want)
    assert mixture.card == {"licence": "none", "blend": {"b": 0.5, "c": 0.25}}


def test_shares_of_blends_compose() -> None:
    """What the card says of the file is what the weights are a sum of."""
    a, b, c, d = (model(std) for std in (0.1, 0.2, 0.4, 0.8))
    ab = blended(a, {"b": (b, 0.4)})
    cd = blended(c, {"d": (d, 0.5)})
    assert blended(ab, {"c": (c, 0.5)}).card["blend"] == {"b": 0.2, "c": 0.5}
    assert blended(ab, {"b": (b, 0.5)}).card["blend"] == {"b": 0.7}
    assert blended(a, {"b": (ab, 0.5)}).card["blend"] == {"b": 0.5}  # a file that was written over
    little = blended(a, {"b": (b, 0.1)})
    assert blended(little, {"c": (c, 0.3)}).card["blend"] == {"b": 0.07, "c": 0.3}  # .7 x .1 is below .07 in binary
    assert blended(little, {"c": (c, 0.875)}).card["blend"] == {"b": 0.0125, "c": 0.875}
    whole = blended(ab, {"cd": (cd, 0.5)})
    assert whole.card["blend"] == {"b": 0.2, "cd": 0.25, "d": 0.25}
    flat = blended(a, {"b": (b, 0.2), "c": (c, 0.25), "d": (d, 0.25)})
    for got, want in zip(whole.network.parameters(), flat.network.parameters(), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("entry", ["half and half", {"b": "half"}, {"b": 0.5, "c": "half"}, ["b"]])
def test_a_card_may_say_something_else(entry: object) -> None:
    assert blended(replace(model(0.1), card={"blend": entry}), {"b": (model(0.2), 0.5)}).card["blend"] == {"b": 0.5}


def test_the_licences_of_all_hold() -> None:
    own, shared, none = (replace(model(0.1), card=card) for card in ({"step": 1}, {"licence": "CC BY-SA 4.0"}, {}))
    assert blended(own, {"b": (none, 0.5)}).card == {"step": 1, "blend": {"b": 0.5}}
    assert blended(own, {"b": (shared, 0.5)}).card["licence"] == "CC BY-SA 4.0"
    both = blended(model(0.1), {"b": (shared, 0.3), "c": (shared, 0.3)})
    assert both.card["licence"] == "none and CC BY-SA 4.0"
    several = blended(replace(shared, card={"licence": ["MIT", "CC0"]}), {"b": (shared, 0.5)})  # as TOML may have it
    assert several.card["licence"] == "['MIT', 'CC0'] and CC BY-SA 4.0"


def test_the_models_that_are_mixed_stay_as_they_were() -> None:
    a, b = model(0.1), model(0.2)
    blended(a, {"b": (b, 0.5)})
    for mine, std in ((a, 0.1), (b, 0.2)):
        assert checkpoint.weights_digest(mine.network.state_dict()) == checkpoint.weights_digest(
            model(std).network.state_dict()
        )


def test_what_was_tuned_for_one_of_them_is_not_kept() -> None:
    a = model(0.1)
    grid = tuner.tuned_grid(a, tuner.Candidate("ddim", (-3.0, 1.0), 1.1), "psnr", "photos")
    assert blended(tuner.with_tuned(a, [grid]), {"b": (model(0.2), 0.5)}).config.sampling.tuned == ()


def test_the_levels_of_training_may_differ() -> None:
    process = replace(TINY.process, lambda_image=2.5)
    assert blended(model(0.1), {"b": (model(0.2, replace(TINY, process=process)), 0.5)}).config == TINY


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.5), (0.0,), (-0.5,), (1.5, -1.0), (float("nan"),)])
def test_shares_that_leave_nothing_or_take_away(shares: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="their sum is below 1"):
        blended(model(0.1), {f"model {i}": (model(0.2), share) for i, share in enumerate(shares)})


@pytest.mark.parametrize(
    "other",
    [
        replace(TINY, network=replace(NETWORK, widths=(8, 8))),
        replace(TINY, prediction="eps"),
        replace(TINY, process=replace(TINY.process, k=1.0)),
    ],
)
def test_models_that_compute_other_things(other: ModelConfig) -> None:
    with pytest.raises(UsageError, match="--blend b: its network, prediction or process is not that of tiny"):
        blended(model(0.1), {"b": (model(0.2, other), 0.5)})


def test_a_fine_tuned_run_and_what_it_began_with(program: Program, tiny_file: Path, photos: Path) -> None:
    short = ["steps=3", "batch=2", "crop=32", "warmup=1", "lr=0.01"]
    code, _, err = program("train", "--data", photos, "--out", "run", "--init", tiny_file, *short)
    assert code == 0, err
    card = checkpoint.load_model(Path("run/model.safetensors")).card
    assert (card["begun_with"], card["licence"]) == ("tiny", "none")
    code, out, err = program("export", "run", "half.safetensors", "name=half", "--blend", f"{tiny_file}=0.5")
    assert (code, out) == (0, "half.safetensors\n"), err
    start, half = checkpoint.load_model(tiny_file), checkpoint.load_model(Path("half.safetensors"))
    _, state = checkpoint.load_state(Path("run/state.safetensors"))
    assert (half.config.name, half.card["blend"]) == ("half", {str(tiny_file): 0.5})
    begun, made = start.network.state_dict(), half.network.state_dict()
    assert any(not torch.equal(begun[name], value) for name, value in state["ema"].items())
    for name, value in state["ema"].items():
        assert torch.equal(made[name], ((begun[name] + value) / 2).half().float())


def test_a_name_may_have_an_equals_sign(program: Program, tiny_file: Path) -> None:
    tiny_file.rename("a=b.safetensors")
    code, out, err = program("export", "a=b.safetensors", "c.safetensors", "--blend", "a=b.safetensors=0.5")
    assert (code, out) == (0, "c.safetensors\n"), err


def test_what_cannot_be_mixed_is_said_in_a_line(program: Program, tiny_file: Path) -> None:
    same = f"{tiny_file}=0.2"
    for target, shares, message in (
        ("a.safetensors", ["bicubic-x4"], "--blend takes MODEL=SHARE, not bicubic-x4"),
        ("a.safetensors", [f"{tiny_file}=half"], "--blend takes MODEL=SHARE"),
        ("a.safetensors", [same, same], "is named twice"),
        ("a.safetensors", ["nowhere.safetensors=0.5"], "there is no file nowhere.safetensors"),
        ("a.onnx", [same], "--blend makes weights"),
    ):
        code, out, err = program("export", tiny_file, target, *(part for text in shares for part in ("--blend", text)))
        assert (code, out) == (2, "")
        assert message in err
        assert not Path(target).exists()
