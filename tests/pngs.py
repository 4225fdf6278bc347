"""PNG files of every kind, made from their definition, with the pixels that they hold."""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
Samples = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Png:
    """`samples` (H, W, C) of whole numbers below 2**depth; palette indices for colour type 3."""

    samples: Samples
    color: int
    depth: int
    interlaced: bool = False
    filter: int = 0
    """0 to 4, or 5 for another one in every row."""
    level: int = 6
    palette: list[tuple[int, int, int]] = field(default_factory=list)
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Before the pixels, behind the palette."""
    trailing: tuple[tuple[bytes, bytes], ...] = ()
    split: int = 0
    """Bytes of one IDAT chunk; 0 for a single one."""

    def encode(self) -> bytes:
        return SIGNATURE + b"".join(chunk(kind, data) for kind, data in self.parts())

    def parts(self) -> Iterator[tuple[bytes, bytes]]:
        height, width = self.samples.shape[:2]
        yield b"IHDR", struct.pack(">IIBBBBB", width, height, self.depth, self.color, 0, 0, self.interlaced)
        if self.palette:
            yield b"PLTE", bytes(v for entry in self.palette for v in entry)
        yield from self.chunks
        data = zlib.compress(self.raw(), self.level)
        size = self.split or len(data)
        for start in range(0, len(data), size):
            yield b"IDAT", data[start : start + size]
        yield from self.trailing
        yield b"IEND", b""

    def raw(self) -> bytes:
        if not self.interlaced:
            return self.filtered(self.samples)
        passes = (self.samples[top::down, left::right] for top, left, down, right in PASSES)
        return b"".join(self.filtered(part) for part in passes if part.size)

    def filtered(self, samples: Samples) -> bytes:
        step = max(1, CHANNELS[self.color] * self.depth // 8)
        rows, before = [], None
        for y, samples_of_row in enumerate(samples):
            row = pack(samples_of_row.ravel(), self.depth)
            kind = y % 5 if self.filter == 5 else self.filter
            rows.append(bytes([kind]) + bytes(filter_row(kind, row, before or bytes(len(row)), step)))
            before = row
        return b"".join(rows)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack(values: Samples, depth: int) -> bytes:
    if depth == 16:
        return values.astype(">u2").tobytes()
    bits = (values[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()


def filter_row(kind: int, row: bytes, before: bytes, step: int) -> Iterator[int]:
    for i, value in enumerate(row):
        left = row[i - step] if i >= step else 0
        corner = before[i - step] if i >= step else 0
        guess = (0, left, before[i], (left + before[i]) // 2, paeth(left, before[i], corner))[kind]
        yield (value - guess) % 256


def paeth(left: int, above: int, corner: int) -> int:
    estimate = left + above - corner
    return min((left, above, corner), key=lambda v: abs(estimate - v))


def noise(color: int, depth: int, size: tuple[int, int] = (9, 11), seed: int = 0) -> Png:
    """Random samples over the whole range, with a palette that is as large as it can be."""
    rng = np.random.default_rng((seed, color, depth, *size))
    samples = rng.integers(0, 2**depth, (*size, CHANNELS[color]))
    entries = rng.integers(0, 256, (2**depth if color == 3 else 0, 3))
    palette = [(int(r), int(g), int(b)) for r, g, b in entries]
    return Png(samples, color, depth, palette=palette)


def mutated(data: bytes, seed: int) -> bytes:
    """Some bytes changed, a piece cut out, doubled, or the end lost."""
    draw, result = random.Random(seed), bytearray(data)
    for _ in range(draw.randint(1, 4)):
        # most of what matters stands near the beginning
        where = draw.randrange(min(len(result), draw.choice((64, 256, len(data))))) if result else 0
        length = draw.choice((1, 1, 2, 4, 16))
        match draw.randrange(5):
            case 0 | 1:
                result[where : where + length] = draw.randbytes(length)
            case 2:
                result[where : where + 4] = draw.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\1\0")
                )
            case 3:
                del result[where : where + length]
            case _:
                result[where:where] = result[where : where + length]
    return bytes(result[: draw.randrange(len(result))] if result and draw.random() < 0.2 else result)
