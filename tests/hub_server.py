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

    def find(self, path: str) -> tuple[bytes | None, str]:
        """(content, error code of the Hub) for /org/repo/resolve/revision/file."""
        parts = path.split("?")[0].strip("/").split("/")
        repo, revision, name = "/".join(parts[:2]), parts[3] if len(parts) > 4 else "", "/".join(parts[4:])
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
            self.send_response(404 if content is None else 200)
            if content is None:
                self.send_header("X-Error-Code", code)
                content = b""
            else:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body and hub.broken:
                self.wfile.write(content[:100])
                self.close_connection = True
            elif body:
                self.wfile.write(content)

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
