"""Pages in Markdown whose measured parts are written by programs."""

from collections.abc import Iterable, Sequence
from pathlib import Path


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; every row has as many cells as the header."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replace(page: Path, mark: str, block: str) -> None:
    """Replace what the page has between its two lines that are `mark`."""
    before, _, after = page.read_text().split(mark)
    page.write_text(f"{before}{mark}\n\n{block}\n\n{mark}{after}")
