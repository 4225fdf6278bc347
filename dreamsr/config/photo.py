"""What happens to everyday pictures."""

from dataclasses import dataclass

from dreamsr.config.checks import require


@dataclass(frozen=True)
class PhotoConfig:
    """What happens to everyday pictures: every range is drawn from uniformly, for each picture anew.

    Shares say how many of the pictures something happens to.
    """

    blur_share: float = 0.6
    blur: tuple[float, ...] = (0.2, 0.9)
    """Standard deviations of a Gaussian along its two axes, in pixels of the reduced picture."""
    round_share: float = 0.5
    """Share of the blurs that are the same in all directions."""
    gauss_share: float = 0.3
    gauss: tuple[float, ...] = (1.0, 10.0)
    """Standard deviation of Gaussian noise, in levels of 8 bits."""
    grain_share: float = 0.0
    """Share of the Gaussian noises whose neighbouring pixels are alike, as after a reduction of a noisy picture."""
    grain: tuple[float, ...] = (0.4, 1.0)
    """Standard deviation of the Gaussian that such noise is smoothed by, in pixels."""
    poisson_share: float = 0.2
    poisson: tuple[float, ...] = (0.5, 6.0)
    """Standard deviation of Poisson noise where the picture is white, in levels of 8 bits."""
    grey_share: float = 0.4
    """Share of the noises that are the same in all channels."""
    jpeg_share: float = 0.75
    jpeg: tuple[float, ...] = (35.0, 95.0)
    """Quality."""
    subsampled_share: float = 0.7
    """Share of the JPEGs whose colours have half the resolution (4:2:0)."""

    def __post_init__(self) -> None:
        for key in ("blur", "gauss", "grain", "poisson", "jpeg"):
            ends, least = getattr(self, key), 1 if key == "jpeg" else 0
            good = len(ends) == 2 and least <= ends[0] <= ends[1]
            require(good, f"photo.{key}", f"two numbers, from {least} on, the smaller one first", ends)
        require(self.jpeg[1] <= 100, "photo.jpeg", "at most 100", self.jpeg)
        for key in ("blur", "round", "gauss", "grain", "poisson", "grey", "jpeg", "subsampled"):
            share = getattr(self, f"{key}_share")
            require(0 <= share <= 1, f"photo.{key}_share", "between 0 and 1", share)
