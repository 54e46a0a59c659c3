"""A Hub on loopback: the endpoints that `huggingface_hub` and `datasets` call, byte counts, faults on demand.

An upload takes four steps: `_preupload` says which way each file goes, `_batch` where the large ones go,
`_store` takes the bytes of one, and `_commit` makes them files, or takes files away.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any

#: Bytes sent at a time, so that a client that stops reading leaves the rest unsent.
CHUNK = 1 << 14


@dataclass
class Repo:
    """A dataset repo: its commits, oldest first, each with the bytes of its files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    page: int = 3  #: entries a page of a listing: few, so that tests see several pages
    objects: dict[str, bytes] = field(default_factory=dict)  #: large files that were uploaded, by sha256

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit and let "main" stand for it."""
        content = sorted((name, _sha256(data)) for name, data in files.items())
        sha = hashlib.sha1(repr((len(self.commits), content)).encode()).hexdigest()  # noqa: S324
        self.commits[sha] = files
        self.refs["main"] = sha
        return sha


@dataclass
class Request:
    """What a client asked for, and how many bytes of a body it was sent."""

    method: str
    path: str
    range: str | None
    agent: str = ""
    sent: int = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing when a client hangs up: some of them are meant to."""


class Hub:
    """The server and what it saw."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        #: By file name: what happens to the next requests for its bytes, one fault a request.
        self.faults: dict[str, list[Any]] = {}
        self.lock = threading.Lock()  #: one commit at a time
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: str) -> dict[str, str]:
        """Variables that have the Hub's client use this server, and this folder for its files."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": home,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",  # the server speaks plain HTTP
            "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
        }

    def downloads(self) -> dict[str, int]:
        """Bytes sent of each raw file, by its name."""
        sent: dict[str, int] = {}
        for request in self.requests:
            if request.method == "GET" and "/resolve/" in request.path:
                name = request.path.rpartition("/")[2]
                sent[name] = sent.get(name, 0) + request.sent
        return sent

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[Request]]:
        """Collect the requests made meanwhile."""
        start = len(self.requests)
        seen: list[Request] = []
        yield seen
        seen.extend(self.requests[start:])


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else a body waits 40 ms for the word that the head has come

        def setup(self) -> None:
            super().setup()
            # What the kernel takes beyond what the client reads counts as sent: let it be little.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            path = urllib.parse.unquote(url.path)
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            agent = self.headers.get("User-Agent", "")
            self.request_seen = Request(self.command, path, self.headers.get("Range"), agent)
            hub.requests.append(self.request_seen)
            verbs = "revision|tree|paths-info|preupload|commit"
            if found := re.fullmatch(rf"/api/datasets/([^/]+/[^/]+)(?:/({verbs})/([^/]+)(.*))?", path):
                repo_id, verb, revision, rest = found.groups()
                if (files := self._files(repo_id, revision or "main")) is not None:
                    getattr(self, f"_{verb or 'revision'}")(repo_id, *files, rest or "", url.query)
            elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                repo_id, revision, name = found.groups()
                if (files := self._files(repo_id, revision)) is not None:
                    self._resolve(*files, name)
            elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)", path):
                repo_id, verb = found.groups()
                if self._files(repo_id, "main") is not None:
                    getattr(self, f"_{verb}")(repo_id, json.loads(self.body))
            elif found := re.fullmatch(r"/lfs/([^/]+/[^/]+)/([^/]+)", path):  # a signed URL: no token
                self._store(*found.groups())
            elif path == "/api/repos/create":
                asked = json.loads(self.body)
                repo_id = f"{asked['organization']}/{asked['name']}"
                if repo_id not in hub.repos:
                    hub.repos[repo_id] = Repo()
                    hub.repos[repo_id].commit({})
                self._json({"url": f"{hub.url}/datasets/{repo_id}"})
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            else:
                self._error(404, "EntryNotFound")

        def _files(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
            repo = hub.repos.get(repo_id)
            if repo is None or (repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}"):
                return self._error(401 if repo else 404, "RepoNotFound")
            sha = repo.refs.get(revision, revision)
            if sha not in repo.commits:
                return self._error(404, "RevisionNotFound")
            return sha, repo.commits[sha]

        def _revision(self, repo_id: str, sha: str, files: dict[str, bytes], rest: str, query: str) -> None:
            siblings = [{"rfilename": name} for name in files]
            self._json(
                {
                    "id": repo_id,
                    "sha": sha,
                    "siblings": siblings,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                }
            )

        def _tree(self, repo_id: str, sha: str, files: dict[str, bytes], rest: str, query: str) -> None:
            options = dict(urllib.parse.parse_qsl(query))
            below = f"{rest.strip('/')}/".lstrip("/")
            is_deep = options.get("recursive", "").lower() == "true"
            entries = [
                entry
                for entry in _entries(files)
                if entry["path"].startswith(below) and (is_deep or "/" not in entry["path"][len(below) :])
            ]
            if below and not entries:
                self._error(404, "EntryNotFound", sha)
                return
            page = hub.repos[repo_id].page
            start = int(options.get("cursor", 0))
            headers = {}
            if start + page < len(entries):
                more = urllib.parse.urlencode({**options, "cursor": start + page})
                headers["Link"] = f'<{hub.url}/api/datasets/{repo_id}/tree/{sha}{rest}?{more}>; rel="next"'
            self._json(entries[start : start + page], headers)

        def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, header in (headers or {}).items():
                self.send_header(name, header)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _paths_info(self, *args: Any) -> None:
            _, _, files, _, _ = args
            asked = json.loads(self.body)["paths"]
            self._json([_entry(name, files[name]) for name in asked if name in files])

        def _preupload(self, repo_id: str, sha: str, files: dict[str, bytes], rest: str, query: str) -> None:
            told = []
            for file in json.loads(self.body)["files"]:
                name = file["path"]
                # As .gitattributes has it in a new repo; and what is larger than that goes this way, too.
                is_large = name.endswith(".parquet") or file["size"] > 5 << 20
                known = {"oid": (_sha256 if is_large else _git_sha1)(files[name])} if name in files else {}
                mode = "lfs" if is_large else "regular"
                told.append({"path": name, "uploadMode": mode, "shouldIgnore": False, **known})
            self._json({"files": told})

        def _batch(self, repo_id: str, asked: dict[str, Any]) -> None:
            told = []
            for one in asked["objects"]:
                upload = {"href": f"{hub.url}/lfs/{repo_id}/{one['oid']}"}
                verify = {"href": f"{hub.url}/datasets/{repo_id}.git/info/lfs/objects/verify"}
                is_known = one["oid"] in hub.repos[repo_id].objects
                told.append(one if is_known else {**one, "actions": {"upload": upload, "verify": verify}})
            self._json({"transfer": "basic", "objects": told})

        def _store(self, repo_id: str, oid: str) -> None:
            if _sha256(self.body) != oid:
                self._error(400, "BadDigest")
                return
            hub.repos[repo_id].objects[oid] = self.body
            self._json({})

        def _verify(self, repo_id: str, asked: dict[str, Any]) -> None:
            stored = hub.repos[repo_id].objects.get(asked["oid"])
            if stored is None or len(stored) != asked["size"]:
                self._error(404, "ObjectNotFound")
            else:
                self._json({})

        def _commit(self, repo_id: str, *args: Any) -> None:
            repo = hub.repos[repo_id]
            with hub.lock:
                files = dict(repo.commits[repo.refs["main"]])
                for line in self.body.splitlines():
                    change = json.loads(line)
                    key, value = change["key"], change["value"]
                    if key == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif key == "lfsFile":
                        files[value["path"]] = repo.objects[value["oid"]]
                    elif key == "deletedFile" and value["path"] not in files:
                        self._error(404, "EntryNotFound")
                        return
                    elif key == "deletedFile":
                        del files[value["path"]]
                    elif key == "deletedFolder":
                        folder = value["path"].rstrip("/") + "/"
                        files = {name: files[name] for name in files if not name.startswith(folder)}
                sha = repo.commit(files)
            url = f"{hub.url}/datasets/{repo_id}/commit/{sha}"
            self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

        def _resolve(self, sha: str, files: dict[str, bytes], name: str) -> None:
            if name not in files:
                self._error(404, "EntryNotFound", sha)
                return
            data = files[name]
            waiting = hub.faults.get(name.rpartition("/")[2], [])
            fault = waiting.pop(0) if waiting and self.command == "GET" else None
            if isinstance(fault, int):
                self._error(fault, "Fault")
                return
            start = 0
            if (asked := self.headers.get("Range")) and (found := re.match(r"bytes=(\d+)-(\d*)", asked)):
                start = int(found[1])
                data = data[: int(found[2]) + 1] if found[2] else data
                if start >= len(data):
                    self._error(416, "RangeNotSatisfiable")
                    return
            self.send_response(206 if asked else 200)
            self.send_header("X-Repo-Commit", sha)
            self.send_header("ETag", f'"{_sha256(files[name])}"')
            self.send_header("X-Linked-ETag", f'"{_sha256(files[name])}"')
            self.send_header("X-Linked-Size", str(len(files[name])))
            self.send_header("Accept-Ranges", "bytes")
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(files[name])}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            if isinstance(fault, bytes):  # other bytes of the same length
                data = (fault * len(data))[: len(data)]
            stop = start + fault["cut_after"] if isinstance(fault, dict) else len(data)
            self._send(data[start:stop])
            if stop < len(data):
                self.close_connection = True

        def _send(self, data: bytes) -> None:
            with contextlib.suppress(ConnectionError):
                for at in range(0, len(data), CHUNK):
                    self.wfile.write(data[at : at + CHUNK])
                    self.request_seen.sent += len(data[at : at + CHUNK])

        def _error(self, status: int, code: str, sha: str | None = None) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            if sha:
                self.send_header("X-Repo-Commit", sha)
            self.send_header("Content-Length", "0")
            self.end_headers()

    setattr(Handler, "_paths-info", Handler._paths_info)
    return Handler


def _entries(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Give what is in a repo: the folders, then the files."""
    folders = {str(folder) for name in files for folder in list(PurePosixPath(name).parents)[:-1]}
    return [
        {"type": "directory", "path": name, "oid": _git_sha1(name.encode()), "size": 0}
        for name in sorted(folders)
    ] + [_entry(name, data) for name, data in files.items()]


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "oid": _git_sha1(data), "size": len(data)}
    if name.endswith(".json"):  # text is not in LFS: the Hub has no sha256 of it
        return entry
    return {**entry, "lfs": {"oid": _sha256(data), "size": len(data), "pointerSize": 130}}


@functools.lru_cache(maxsize=256)
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@functools.lru_cache(maxsize=256)
def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 (git's)
