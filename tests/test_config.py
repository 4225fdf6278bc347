"""Strict configurations: what is unknown or wrong is an error that says what to type."""

from importlib import resources
from typing import Any

import pytest

from dreamsr.config import ModelConfig, NetworkConfig, SR3Config, TrainConfig
from dreamsr.errors import ConfigError
from dreamsr.tables import apply_overrides, from_dict, known_keys, load_toml, merge, to_dict


def test_round_trip() -> None:
    config = TrainConfig(dream_p="off", steps=7)
    assert from_dict(TrainConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("steps=500", "steps", 500),
        ("steps=1e4", "steps", 10_000),
        ("lr=1e-3", "lr", 1e-3),
        ("lr=1", "lr", 1.0),
        ("dream_p=off", "dream_p", "off"),
        ("dream_p=2", "dream_p", 2.0),
        ("loss=l1", "loss", "l1"),
        ("ema=.5", "ema", 0.5),
        ("seed=9223372036854775807", "seed", 2**63 - 1),
    ],
)
def test_overrides(text: str, key: str, value: Any) -> None:
    config = from_dict(TrainConfig, apply_overrides(TrainConfig, {}, [text]))
    assert getattr(config, key) == value
    assert type(getattr(config, key)) is type(value)


def test_nested_overrides_leave_the_rest() -> None:
    document = {"model": {"name": "mine", "process": {"k": 3.0}}}
    merged = apply_overrides(TrainConfig, document, ["model.network.widths=[8, 16]", "model.process.schedule=linear"])
    config = from_dict(TrainConfig, merged)
    assert config.model.network == NetworkConfig(widths=(8, 16))
    assert (config.model.name, config.model.process.k, config.model.process.schedule) == ("mine", 3.0, "linear")
    assert document == {"model": {"name": "mine", "process": {"k": 3.0}}}


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("stepz=5", "unknown key 'stepz'", "did you mean 'steps'?"),
        ("model.widths=[8]", "unknown key 'model.widths'", "did you mean 'model.network.widths'?"),
        (
            "model.process.schedul=linear",
            "unknown key 'model.process.schedul'",
            "did you mean 'model.process.schedule'?",
        ),
        ("k=2", "unknown key 'k'", "did you mean 'model.process.k'?"),
        ("model.sampling.stepz=2", "unknown key 'model.sampling.stepz'", "did you mean 'model.sampling.steps'?"),
        ("dtype=bf16", "unknown key 'dtype'", "known are steps, batch, "),
        ("steps", "'steps' is not an override", "key=value"),
        ("steps=many", "steps is 'many'; expected a whole number", ""),
        ("steps=1.5", "steps is 1.5; expected a whole number", ""),
        ("steps=0", "steps is 0; expected at least 1", ""),
        ("crop=100", "crop is 100; expected a multiple of 16", ""),
        ("dream_p=-1", "dream_p is -1.0; expected a number >= 0, or off", ""),
        ("energy=-1", "energy is -1.0; expected at least 0", ""),
        ("dream_p=maybe", "dream_p is 'maybe'; expected a number or off", ""),
        ("lr=inf", "lr is inf; expected a number", ""),
        ("model.process.noise_start=1.98", "expected below 0.99 kappa", ""),
        ("lr=true", "lr is True; expected a number", ""),
        ("model.process.lambda_noise=-inf", "lambda_noise is -inf; expected a number", ""),
        ("model.sampling.noise_scale=nan", "noise_scale is nan; expected a number", ""),
        ("seed=1e30", "expected at least 0 and below 2^63", ""),
        ("model.name=' '", "model.name is ' '; expected a line of text", ""),
        ('model.name="a\\nb"', r"model.name is 'a\nb'; expected a line of text", ""),
        ('model.name="a\\u2028b"', r"model.name is 'a\u2028b'; expected a line of text", ""),
        ("model.network.widths=[]", "expected at least one width", ""),
        ("model.process.schedule=sine", "expected cosine or linear", ""),
    ],
)
def test_wrong_overrides(text: str, words: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_dict(TrainConfig, apply_overrides(TrainConfig, {}, [text]))
    assert words in raised.value.message
    assert hint in raised.value.hint


def test_text_may_look_like_a_number() -> None:
    merged = apply_overrides(TrainConfig, {}, ["model.name=2024"])
    assert from_dict(TrainConfig, merged).model.name == "2024"
    assert from_dict(ModelConfig, apply_overrides(ModelConfig, {}, ["name='1e3'"])).name == "1e3"


def test_a_table_that_is_none() -> None:
    document = {"model": {"sampling": 3}}
    with pytest.raises(ConfigError, match=r"model\.sampling is 3; expected a table"):
        apply_overrides(TrainConfig, document, ["model.sampling.steps=3"])
    with pytest.raises(ConfigError, match="sampling is 3; expected a table"):
        merge({"model": {"sampling": {"steps": 4}}}, document)


def test_the_kind_of_a_network_chooses_its_keys() -> None:
    kind = "model.network.kind=sr3-unet"
    merged = apply_overrides(TrainConfig, {}, [kind, "model.network.channels=32", "crop=128"])
    config = from_dict(TrainConfig, merged)
    assert config.model.network == SR3Config(channels=32)
    assert from_dict(TrainConfig, to_dict(config)) == config
    assert from_dict(ModelConfig, {"network": {"widths": [8]}}).network == NetworkConfig(widths=(8,))
    assert {"model.network.widths", "model.network.channels"} <= set(known_keys(TrainConfig))


@pytest.mark.parametrize(
    ("texts", "words", "hint"),
    [
        (["model.network.channels=32"], "unknown key 'model.network.channels'", "this kind has kind, widths, blocks"),
        (["model.network.kind=sr3-unet", "model.network.widths=[8]"], "unknown key 'model.network.widths'", "channels"),
        (["model.network.blocks=[1, 2]"], "network.blocks is (1, 2); expected 1 to 1000, once or for each of 3", ""),
        (["model.network.blocks=0"], "network.blocks is 0; expected 1 to 1000", ""),
        (["model.network.blocks=1001"], "network.blocks is 1001; expected 1 to 1000", ""),
        (["model.network.encoder_blocks=1001"], "network.encoder_blocks is 1001; expected 0 to 1000", ""),
        (["model.network.widths=[65537]"], "network.widths is (65537,); expected numbers from 1 to 65536", ""),
        (["model.network.kind=sr3-unet", "model.network.blocks=0"], "network.blocks is 0; expected 1 to 1000", ""),
        (["model.network.kind=sr3-unet", "model.network.multipliers=[1025]"], "expected numbers from 1, and chan", ""),
        (["model.network.patch=3"], "network.patch is 3; expected 1, 2, 4 or 8", ""),
        (["model.smallest_scale=5"], "model.smallest_scale is 5.0; expected between 1 and 4", ""),
        (["model.smallest_scale=0.9"], "model.smallest_scale is 0.9; expected between 1 and 4", ""),
        (["model.network.kind=[1]"], "model.network.kind is [1]; expected patch-unet or sr3-unet", ""),
        (["model.network.kind=unet"], "model.network.kind is 'unet'; expected patch-unet or sr3-unet", ""),
        (["model.network.kind=sr3-unet", "crop=64"], "crop is 64; expected model.network.size, 128", ""),
        (["model.network.kind=sr3-unet", "model.network.channels=48"], "an even multiple of network.groups = 32", ""),
        (["model.network.kind=sr3-unet", "model.network.size=100"], "network.size is 100; expected a multiple of", ""),
        (["model.network.kind=sr3-unet", "model.network.attention=[7]"], "expected sides out of [128, 64, 32,", ""),
        (["model.network.kind=sr3-unet", "model.network.dropout=1"], "expected at least 0 and below 1", ""),
    ],
)
def test_wrong_networks(texts: list[str], words: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_dict(TrainConfig, apply_overrides(TrainConfig, {}, texts))
    assert words in raised.value.message
    assert hint in raised.value.hint


def test_a_network_that_is_no_table() -> None:
    with pytest.raises(ConfigError, match=r"network is 3; expected a table$"):
        from_dict(ModelConfig, {"network": 3})


def test_a_kind_of_a_table_that_has_none_is_an_unknown_key() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'model\.kind'"):
        from_dict(TrainConfig, {"model": {"kind": "patch-unet"}})


def test_unknown_key_of_a_file_names_its_place() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'model\.process\.kk'") as raised:
        from_dict(TrainConfig, {"model": {"process": {"kk": 1}}})
    assert "model.process.k" in raised.value.hint


def test_bad_toml_names_the_file() -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml is not valid TOML"):
        load_toml(b"steps =", "mine.toml")
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML: it is no text in UTF-8"):
        load_toml("steps = 1".encode("utf-16"), "mine.toml")


def test_every_key_has_a_dotted_name() -> None:
    assert {"steps", "model.process.k", "model.network.widths", "model.sampling.steps"} <= set(known_keys(TrainConfig))
    assert "process.k" in known_keys(ModelConfig)


def test_every_preset_is_valid() -> None:
    presets = [p for p in (resources.files("dreamsr") / "presets").iterdir() if p.name.endswith(".toml")]
    assert presets
    for preset in presets:
        document = load_toml(preset.read_bytes(), preset.name)
        from_dict(TrainConfig, document)
        assert "name" not in document.get("model", {}), "a run is called as its folder"
