"""A hub on the loopback device that stores what is pushed, as far as huggingface_hub needs it."""

import base64
import hashlib
import http.server
import json
import re
import threading

import huggingface_hub
import pytest
from huggingface_hub import constants

TOKEN = "hf_right"
LARGE = 2000
"""Bytes from which a file goes through the storage of large files (LFS)."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request. Writing needs the token; reading a private repository does too."""

    def log_message(self, *_): ...

    def answer(self, status, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @property
    def hub(self):
        return self.server.hub

    def handle_all(self):
        path, sent = self.path.partition("?")[0], self.body()
        self.hub.asked.append((self.command, path))
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for fault, status in self.hub.faults.items():
            if re.fullmatch(fault, path):
                return self.answer(status, {"error": "broken"})
        if path.startswith("/lfs/"):  # the storage takes signed addresses, and no token
            assert "Authorization" not in self.headers
            self.hub.large[path.removeprefix("/lfs/")] = sent
            return self.answer(200)
        if self.command in ("POST", "PUT") and not allowed:
            return self.answer(401, {"error": "Invalid username or password."})
        for pattern, method in ROUTES.items():
            if (match := re.fullmatch(pattern, path)) is not None:
                return method(self, sent, *match.groups())
        return self.answer(404, {"error": "not found"}, X_Error_Code="EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_all  # noqa: N815

    def create(self, sent):
        asked = json.loads(sent)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            return self.answer(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repos[name] = {"private": private, "files": {}, "sha": "0" * 40}
        return self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def check_card(self, sent):
        assert "content" in json.loads(sent)
        return self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, sent, name):
        files = [
            {
                "path": file["path"], "shouldIgnore": False,
                "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
            }
            for file in json.loads(sent)["files"]
        ]  # fmt: skip
        return self.answer(200, {"files": files})

    def batch(self, sent, name):
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            for one in json.loads(sent)["objects"]
        ]
        return self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, sent, name):
        repo, files = self.hub.repos[name], dict(self.hub.repos[name]["files"])
        for line in map(json.loads, sent.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                assert value["parentCommit"] == repo["sha"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        repo["files"], repo["sha"] = files, hashlib.sha1(sent).hexdigest()
        page = f"{self.hub.url}/{name}/commit/{repo['sha']}"
        return self.answer(200, {"commitUrl": page, "commitOid": repo["sha"]})

    def info(self, sent, name, revision=None):
        repo = self.hub.repos.get(name)
        if repo is None:
            return self.answer(404, {"error": "no"}, X_Error_Code="RepoNotFound")
        files = [{"rfilename": path} for path in repo["files"]]
        facts = {"id": name, "sha": repo["sha"], "private": repo["private"], "siblings": files}
        return self.answer(200, facts)

    def tree(self, sent, name, revision):
        files = self.hub.repos[name]["files"].items()
        entries = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in files
        ]
        return self.answer(200, entries)

    def resolve(self, sent, name, revision, path):
        repo = self.hub.repos[name]
        if path not in repo["files"]:
            return self.answer(404, X_Error_Code="EntryNotFound")
        data = repo["files"][path]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        return self.answer(200, data, ETag=etag, X_Repo_Commit=repo["sha"])


NAME = r"([\w-]+/[\w.-]+)"
ROUTES = {
    "/api/repos/create": Handler.create,
    "/api/validate-yaml": Handler.check_card,
    rf"/api/models/{NAME}": Handler.info,
    rf"/api/models/{NAME}/revision/([^/]+)": Handler.info,
    rf"/api/models/{NAME}/tree/([^/]+)": Handler.tree,
    rf"/api/models/{NAME}/preupload/main": Handler.preupload,
    rf"/api/models/{NAME}/commit/main": Handler.commit,
    rf"/{NAME}\.git/info/lfs/objects/batch": Handler.batch,
    rf"/{NAME}/resolve/([^/]+)/(.+)": Handler.resolve,
}


class LoopbackHub:
    """repos: OWNER/NAME -> private, files, sha. faults: pattern of paths -> status. asked: method
    and path of each request."""

    def __init__(self):
        self.repos, self.large, self.faults, self.asked = {}, {}, {}, []
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.hub = self
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def files(self, name):
        return self.repos[name]["files"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on the loopback device, and a user with the right token."""
    running = LoopbackHub()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name, value in {
        "ENDPOINT": running.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HUGGINGFACE_CO_URL_TEMPLATE": running.url + "/{repo_id}/resolve/{revision}/{filename}",
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    huggingface_hub.close_session()  # it read the proxies when it was made
    yield running
    huggingface_hub.close_session()
    running.http.shutdown()
    running.http.server_close()
