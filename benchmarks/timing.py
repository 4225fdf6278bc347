"""Timings that can be compared: cases take turns, and medians are reported."""

import platform
import statistics
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pages
import torch

Case = Callable[[], object]


@dataclass(frozen=True)
class Table:
    """A section of the report."""

    title: str
    text: str
    header: list[str]
    rows: list[list[str]]


def interleaved(cases: Mapping[str, Case], repeats: int, warm_up: bool = True) -> dict[str, float]:
    """Median seconds of every case; they run in turns, so that a slow minute of the machine hits all alike."""
    if warm_up:
        for case in cases.values():
            case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def matmul_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a square product, the best of several."""
    a, b = torch.randn(2, size, size).to(dtype)
    best = min(interleaved({"product": lambda: a @ b}, 1)["product"] for _ in range(7))
    return 2 * size**3 / best


def copy_rate(megabytes: int = 256) -> float:
    """Bytes read and written a second by a copy that no cache holds."""
    source = torch.zeros(megabytes * 2**18)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / interleaved({"copy": lambda: target.copy_(source)}, 7)["copy"]


def processor() -> str:
    """The CPU's name and what it multiplies fast."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if (info.is_file())
        else []
    )
    units = [
        name
        for name, has in (
            ("AMX", torch.cpu._is_amx_tile_supported()),
            ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported()),
            ("VNNI", torch.cpu._is_vnni_supported()),
            ("AVX-512", torch.cpu._is_avx512_supported()),
        )
        if has
    ]
    return f"{names[0] if names else platform.processor()} ({', '.join(units) or 'no AVX-512'})"


def to_markdown(table: Table) -> str:
    """The section as Markdown."""
    body = pages.table(table.header, table.rows)
    return f"## {table.title}\n\n{textwrap.fill(table.text, 140)}\n\n{body}\n"
