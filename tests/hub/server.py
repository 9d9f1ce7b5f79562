"""A small Hugging Face hub on this machine: what `huggingface_hub` asks when it lists and downloads a model.

Weights are on another host, behind a redirect, as on the real hub.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pth")
Content = dict[str, bytes]
"""The files of a repository at a commit."""


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, Content]] = {}
        """owner/name -> branch or tag -> files."""
        self.gated: set[str] = set()
        self.status: int | None = None
        """The answer to every request, if the hub is out of order."""
        self.listing: tuple[bytes, dict[str, str]] | None = None
        """Content and headers in place of every list of files."""
        self.pause = 0.0
        """Seconds between two bytes of a list of files."""
        self.requests: list[str] = []
        """`GET owner/name` for a list of files, `HEAD owner/name/file` and `GET owner/name/file` for a file."""
        self.halfway: Callable[[], None] | None = None
        """Called when half of the next weights file is sent."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def downloads(self) -> list[str]:
        """Files that were downloaded, in order, without the name of the repository."""
        return [
            file for file in (each.partition("GET ")[2].split("/", 2)[2:] for each in self.requests) for file in file
        ]

    def commits(self, repository: str) -> dict[str, str]:
        """Return the commit of each branch or tag. It follows from the names and sizes of the files."""
        return {
            name: hashlib.sha1(repr([(file, len(files[file])) for file in sorted(files)]).encode()).hexdigest()
            for name, files in self.repositories[repository].items()
        }

    def find(self, repository: str, revision: str) -> tuple[str, Content] | None:
        """Return a commit and its files for a branch, a tag or a commit."""
        for name, commit in self.commits(repository).items():
            if revision in (name, commit):
                return commit, self.repositories[repository][name]
        return None


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.server.status:
            self.send(b"", self.server.status)
        elif path.startswith("/api/models/"):
            repository, kind, revision = re.fullmatch(r"/api/models/([^/]+/[^/]+)/?(\w*)/?(.*)", path).groups()
            self.list_files(repository, revision or "main", tree=kind == "tree")
        elif path.startswith("/cdn/"):
            self.send_file(path.removeprefix("/cdn"), on_cdn=True)
        elif "/resolve/" in path:
            self.send_file(path)
        else:  # what newer clients ask besides
            self.send(b"", 404)

    do_HEAD = do_GET  # noqa: N815

    def list_files(self, repository: str, revision: str, tree: bool) -> None:
        self.server.requests.append(f"{self.command} {repository}")
        if self.server.listing is not None:
            content, headers = self.server.listing
            return self.send(content, 302 if "Location" in headers else 200, pause=self.server.pause, **headers)
        if repository not in self.server.repositories:
            return self.send(b"", 401, **{"X-Error-Code": "RepoNotFound"})
        found = self.server.find(repository, revision)
        if found is None:
            return self.send(b"", 404, **{"X-Error-Code": "RevisionNotFound"})
        if tree:  # of snapshot_download
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": "0"} for name, content in found[1].items()
            ]
            return self.send(json.dumps(listed).encode())
        siblings = [{"rfilename": name, "size": len(content), "blobId": "0"} for name, content in found[1].items()]
        return self.send(json.dumps({"id": repository, "sha": found[0], "siblings": siblings, "tags": []}).encode())

    def send_file(self, path: str, on_cdn: bool = False) -> None:
        repository, _, rest = path[1:].partition("/resolve/")
        revision = next(each for each in self.revisions(repository) if rest.startswith(f"{each}/"))
        commit, files = self.server.find(repository, revision) or ("", {})
        name = rest.removeprefix(f"{revision}/")
        content, remote = files[name], name.endswith(WEIGHTS)
        if on_cdn or not remote or self.command == "HEAD":
            self.server.requests.append(f"{self.command} {repository}/{name}")
        if repository in self.server.gated:
            return self.send(b"", 403, **{"X-Error-Code": "GatedRepo"})
        if on_cdn:
            return self.send(content, halfway=self.server.halfway)
        facts = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if not remote:
            return self.send(content, **facts)
        facts |= {"X-Linked-Etag": facts.pop("ETag"), "X-Linked-Size": str(len(content))}
        return self.send(b"", 302, Location=f"http://localhost:{self.server.server_port}/cdn{path}", **facts)

    def revisions(self, repository: str) -> list[str]:
        return [each for pair in self.server.commits(repository).items() for each in pair]

    def send(
        self,
        content: bytes,
        status: int = 200,
        halfway: Callable[[], None] | None = None,
        pause: float = 0,
        **headers: str,
    ) -> None:
        if wanted := self.headers.get("Range"):  # of an interrupted download
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            middle = len(content) // 2
            self.wfile.write(content[:middle])
            if halfway:
                halfway()
            for piece in [content[middle:]] if not pause else [bytes([byte]) for byte in content[middle:]]:
                self.wfile.write(piece)
                time.sleep(pause)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that runs in a thread."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
