"""How a picture was made, kept inside it as XMP: one form for every format that has metadata."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from dreamsr.config import Grid

NAMESPACE = "urn:dreamsr:provenance#"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">\n'
    '</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
).encode()
_END = b"</rdf:RDF>"
_VALUE = rb'(?:"[^"]*"|\'[^\']*\')'
_TYPES: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    int | None: int,
    bool | None: {"True": True}.get,
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Provenance:
    """What makes a picture again, and nothing about the machine that made it."""

    software: str
    """Program and version."""
    model: str
    """A bundled name, the name of a file without its folder, or a name on the Hub."""
    model_sha256: str
    sampler: str
    grid: str
    schedule: str
    """What the sampler and the grid came to."""
    steps: int
    fidelity: float
    samples: int
    consistency: float
    seed: int
    scale: float
    tile: int
    dtype: str
    source: str = ""
    """Name of the input without its folder."""
    quality: int | None = None
    """Of JPEG, WebP or AVIF, where one was asked for."""
    stripped: bool | None = None
    """True: the metadata of the input was left out."""

    @property
    def facts(self) -> dict[str, Any]:
        """What is known, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def command(self, target: str) -> str:
        """The command line that writes `target` again; into out/ where it has the name of its input."""
        target = f"out/{target}" if target == self.source else target
        options: dict[str, object] = {
            "model": self.model,
            "scale": _short(self.scale),
            "steps": self.steps,
            "sampler": self.sampler,
            "grid": self.grid,
            "fidelity": _short(self.fidelity),
            "samples": self.samples,
            "consistency": _short(self.consistency),
            "seed": self.seed,
            "tile": self.tile,
            "dtype": self.dtype,
        }
        options |= {"quality": self.quality} if self.quality else {}
        if self.grid not in ("auto", *get_args(Grid)):
            del options["steps"]  # as many as there are levels
        words = [
            "dreamsr",
            "upscale",
            *(f"./{name}" if name.startswith("-") else name for name in (self.source, target)),
        ]
        words += [str(part) for key, value in options.items() for part in (f"--{key}", value)]
        return shlex.join([*words, *(["--strip-metadata"] if self.stripped else []), "--overwrite"])


def _short(value: float) -> str:
    return repr(value).removesuffix(".0")


def embed(xmp: bytes, provenance: Provenance) -> bytes:
    """An XMP packet (b"" for a new one) with `provenance` in it."""
    values = {key: _NOT_XML.sub("?", str(value)) for key, value in provenance.facts.items()}
    attributes = " ".join(f"dreamsr:{key}={quoteattr(value)}" for key, value in values.items())
    element = f'<rdf:Description rdf:about="" xmlns:dreamsr="{NAMESPACE}" {attributes}/>\n'
    before, end, after = (xmp or _EMPTY).rpartition(_END)
    return before + element.encode() + end + after


def removed(xmp: bytes) -> bytes:
    """`xmp` without what `embed` has put in, also after other programs have rewritten it; b"" if that was all."""
    xmp = without(xmp, NAMESPACE)
    return b"" if xmp == _EMPTY else xmp


def without(xmp: bytes, namespace: str) -> bytes:
    """`xmp` without the simple properties of a namespace."""
    for name in set(re.findall(rb"xmlns:(\w+)=[\"']" + re.escape(namespace.encode()) + rb"[\"']", xmp)):
        element = rb"<%b:(\w+)>[^<]*</%b:\1>" % (name, name)
        xmp = re.sub(rb"%b|(?<!\s)\s+%b:\w+=%b" % (element, name, _VALUE), b"", xmp)
        xmp = re.sub(rb'<rdf:Description rdf:about="" xmlns:%b="[^"]*"\s*/>\s*' % name, b"", xmp)
    return xmp


def is_packet(xmp: bytes) -> bool:
    """Whether `xmp` is well formed and has room for more."""
    try:
        ElementTree.fromstring(_trimmed(xmp))
    except ElementTree.ParseError:
        return False
    return _END in xmp


def extract(xmp: bytes) -> Provenance | None:
    """What `embed` has put in, also after other programs have rewritten the packet; None if there is nothing."""
    try:
        root = ElementTree.fromstring(_trimmed(xmp))
    except ElementTree.ParseError:
        return None
    found: dict[str, str] = {}
    for element in root.iter():
        found |= element.attrib
        found[element.tag] = element.text or ""
    prefix = f"{{{NAMESPACE}}}"
    return _parse({k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)})


def _trimmed(xmp: bytes) -> bytes:
    return xmp.strip(b"\x00 \r\n\t")


def _parse(values: Mapping[str, str]) -> Provenance | None:
    try:
        return Provenance(**{f.name: _TYPES[f.type](values[f.name]) for f in fields(Provenance) if f.name in values})
    except (TypeError, ValueError):  # one of them is missing, or no number
        return None
