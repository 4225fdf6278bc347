"""Which outputs are asked for: names, formats, sizes. No torch, so that wrong options are answered at once."""

import math
from dataclasses import dataclass
from pathlib import Path

from dreamsr.core.size import Size
from dreamsr.errors import ImageError, UsageError

LOSSY = (".jpg", ".jpeg", ".jfif", ".webp", ".avif")


@dataclass(frozen=True)
class Naming:
    """How outputs are called and what they hold."""

    format: str = "auto"
    """auto, or a suffix without its dot"""
    quality: int | None = None
    """1 to 100, of JPEG, WebP and AVIF"""
    suffix: str | None = None
    """Appended to the stem; None: nothing in a folder, the scale or size beside a single picture."""
    compare: bool = False
    """Whether every output gets a sheet of before and after beside it."""
    uncertainty: bool = False
    """Whether every output gets maps of how far its samples differ beside it."""

    def __post_init__(self) -> None:
        if self.suffix and Path(f"a{self.suffix}").name != f"a{self.suffix}":
            raise UsageError(f"--suffix is {self.suffix!r}; expected a part of a name", "try --suffix _x4")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality is {self.quality}; expected 1 to 100")
        if self.quality is not None and self.dotted not in ("", *LOSSY):
            raise UsageError(
                f"--quality does not apply to {self.format}, which loses nothing", "use it with jpg, webp, avif"
            )

    @property
    def dotted(self) -> str:
        """The suffix of outputs, as `.png`; empty for auto."""
        return "" if self.format == "auto" else f".{self.format}"


@dataclass(frozen=True)
class Sizing:
    """A scale, a limit to the longest side, or a width and height to fit into; nothing means the model's scale."""

    scale: float | None = None
    max_side: int | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in self._groups if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other", f"keep {given[0]} alone")
        for name in ("max_side", "width", "height"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; expected at least 1 pixel")

    @property
    def _groups(self) -> list[tuple[str, float | None]]:
        box = ("--width", self.width) if self.width is not None else ("--height", self.height)
        return [("--scale", self.scale), ("--max-side", self.max_side), box]

    def check(self, largest: int) -> None:
        """Raise UsageError for a scale that no model of `largest` makes."""
        if self.scale is not None and not 1 <= self.scale <= largest:
            raise UsageError(f"--scale is {self.scale:g}; this model makes 1 to {largest}", f"try --scale {largest}")

    def factor(self, size: Size, largest: int) -> float:
        """Output size / input size; raises ImageError for what lies outside of 1 to `largest`.

        --max-side is a limit: a picture that stays below it gets the model's scale.
        """
        height, width = size
        if self.max_side is not None:
            return self._within(min(self.max_side / max(size), largest), size, largest)
        if self.width is None and self.height is None:
            return self.scale or float(largest)
        ratios = [(self.width, width), (self.height, height)]
        return self._within(min(asked / has for asked, has in ratios if asked is not None), size, largest)

    def output(self, size: Size, largest: int) -> Size:
        """(height, width) of the output of an input of (height, width)."""
        return output_size(size, self.factor(size, largest))

    def _within(self, factor: float, size: Size, largest: int) -> float:
        height, width = size
        if factor < 1:
            raise ImageError(f"{width}x{height} is larger than {self} asks for", "dreamsr only enlarges")
        if factor > largest:
            raise ImageError(
                f"{width}x{height} would need x{factor:.3g} for {self}; this model makes up to x{largest}",
                "ask for less, or give --max-side, which is a limit",
            )
        return factor

    def __str__(self) -> str:
        options = {"--scale": self.scale, "--max-side": self.max_side, "--width": self.width, "--height": self.height}
        return " ".join(f"{name} {value:g}" for name, value in options.items() if value is not None)


def output_size(size: Size, scale: float) -> Size:
    """floor(scale * n + 0.5), at least 1, for (height, width)."""
    height, width = (max(1, math.floor(scale * n + 0.5)) for n in size)
    return height, width
