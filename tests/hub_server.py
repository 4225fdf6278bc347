"""A small server on 127.0.0.1 that answers as the Hugging Face Hub does to a download."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Files by (repo, revision, name), and the requests that came."""

    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""
    broken: bool = False
    """Close the connection in the middle of every answer to GET."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers to GET end, one after the other."""
    ranges: list[str] = field(default_factory=list)
    """Headers `Range` that came."""
    gated: set[str] = field(default_factory=set)
    """Repositories that ask for a login."""
    etag: str = ""
    """What every file is said to hash to (default: its SHA-256)."""

    def find(self, path: str) -> tuple[bytes | None, str]:
        """(content, error code of the Hub) for /org/repo/resolve/revision/file."""
        parts = path.split("?")[0].strip("/").split("/")
        repo, revision, name = "/".join(parts[:2]), parts[3] if len(parts) > 4 else "", "/".join(parts[4:])
        if repo in self.gated:
            return None, "GatedRepo"
        if repo not in {key[0] for key in self.files}:
            return None, "RepoNotFound"
        if revision not in {key[1] for key in self.files if key[0] == repo}:
            return None, "RevisionNotFound"
        return self.files.get((repo, revision, name)), "EntryNotFound"


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            content, code = hub.find(self.path)
            start = self.first_byte()
            missing = 401 if code == "GatedRepo" else 404
            self.send_response(missing if content is None else 206 if start else 200)
            if content is None:
                self.send_header("X-Error-Code", code)
                content = b""
            else:
                self.send_header("ETag", f'"{hub.etag or hashlib.sha256(content).hexdigest()}"')
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                content = content[start:]
                self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            cut = 100 if hub.broken else hub.cuts.pop(0) if body and hub.cuts else None
            if body:
                self.wfile.write(content[:cut])
                self.close_connection = cut is not None

        def first_byte(self) -> int:
            if "Range" not in self.headers:
                return 0
            hub.ranges.append(self.headers["Range"])
            return int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))

        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
