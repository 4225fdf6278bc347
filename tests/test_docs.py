"""Documents that cannot fall behind the program."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dreamsr.config import TrainConfig
from dreamsr.tables import known_keys

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "weights").glob("*.md"))]


def test_cli_reference_is_fresh() -> None:
    command = [sys.executable, "-m", "typer", "dreamsr.cli.app", "utils", "docs", "--name", "dreamsr"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (ROOT / "docs" / "cli.md").read_text().strip(), "run `make docs`"


def commands(page: Path) -> list[list[str]]:
    """Every `dreamsr ...` line of the code blocks of a page."""
    blocks = re.findall(r"^(?:```\w*\n(.*?)```|    (dreamsr .*?)$)", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join("".join(block) for block in blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.strip().startswith("dreamsr ")]


def test_the_readme_shows_every_command() -> None:
    assert {command[0] for command in commands(ROOT / "README.md")} >= {"upscale", "train", "eval", "export"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_options_in_documents_exist(page: Path) -> None:
    reference = (ROOT / "docs" / "cli.md").read_text()
    sections = dict(re.findall(r"^## `dreamsr (\w+)`\n(.*?)(?=^## |\Z)", reference, re.DOTALL | re.MULTILINE))
    for command in commands(page):
        if command[0].startswith("-"):
            continue
        assert command[0] in sections, command
        for word in command[1:]:
            if re.match("--?[a-z]", word):
                assert re.search(rf"[` ]{re.escape(word)}[` ,]", sections[command[0]]), f"{page.name}: {command}"
            elif command[0] == "train" and "=" in word:
                assert word.split("=")[0] in known_keys(TrainConfig), f"{page.name}: {word}"


def anchors(page: Path) -> set[str]:
    """What links may name behind `#`: the headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        other = page.parent / target if target else page
        assert other.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(other), f"{page.name}: {target}#{anchor}"
