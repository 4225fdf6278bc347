"""Weights between those of related models: a model and what began with it, or runs that began with the same one.

Such a mean is often better than any of them (Wortsman et al., arXiv 2203.05482), and its shares say how much a
model keeps of the one that it was fine-tuned from (arXiv 2109.01903). Models that never had weights in common do
not mix.
"""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dreamsr.errors import UsageError
from dreamsr.files.checkpoint import Model


def blended(model: Model, others: Mapping[str, tuple[Model, float]]) -> Model:
    """`model` with the sum of all weights, each times the share of its model; the shares of `others` are by name.

    What they leave of 1 is the share of `model`. Configuration and card are its own, without tuned grids, which belong
    to its weights, with the licences of all and the shares of all that blends among them were made of. Raises
    UsageError for shares that leave nothing, and for models that compute different things.
    """
    shares = {name: share for name, (_, share) in others.items()}
    rest = 1 - sum(shares.values())
    if not all(share > 0 for share in shares.values()) or rest <= 0:
        given = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise UsageError(f"--blend {given}: shares are positive, and their sum is below 1", "the rest is the model's")
    for name, (other, _) in others.items():
        if _meaning(other) != _meaning(model):
            raise UsageError(
                f"--blend {name}: its network, prediction or process is not that of {model.config.name}",
                "blend a model with what began with it",
            )
    parts = [(m.network.state_dict(), share) for m, share in ((model, rest), *others.values())]
    network = copy.deepcopy(model.network)
    network.load_state_dict({key: sum(share * weights[key] for weights, share in parts) for key in parts[0][0]})
    made_of = {"blend": _composed(_ancestors(model), rest, others)}
    card = {**model.card, **_licence([model, *(other for other, _ in others.values())]), **made_of}
    return Model(model.config.with_tuned(), network, card)


def _composed(own: Mapping[str, float], rest: float, others: Mapping[str, tuple[Model, float]]) -> dict[str, float]:
    """Shares by name, of a model that has `rest` and is itself made of `own`, and of all that `others` are made of.

    A name stands for what was trained under it, without what had been mixed in.
    """
    shares: dict[str, float] = defaultdict(float)
    for name, share in own.items():
        shares[name] += rest * share
    for name, (other, whole) in others.items():
        parts = _ancestors(other)
        shares[name] += whole * (1 - sum(parts.values()))
        for part, share in parts.items():
            shares[part] += whole * share
    return {name: round(share, 6) for name, share in shares.items()}


def _ancestors(model: Model) -> dict[str, float]:
    """The entry of a card for what was mixed in; none where it says something else, as a file may."""
    found = model.card.get("blend")
    if not isinstance(found, Mapping) or not all(isinstance(share, float) for share in found.values()):
        return {}
    return dict(found)


def _licence(models: Sequence[Model]) -> dict[str, str]:
    """The entry of a card for the licences of all models, each once; none where none has one."""
    known = dict.fromkeys(str(model.card["licence"]) for model in models if model.card.get("licence"))
    return {"licence": " and ".join(known)} if known else {}


def _meaning(model: Model) -> tuple[object, ...]:
    """What weights depend on; the range of levels that they were trained with is not part of it."""
    config = model.config
    return config.network, config.prediction, replace(config.process, lambda_noise=-1.0, lambda_image=1.0)
