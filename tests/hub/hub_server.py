# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The routes of the Hugging Face Hub that publishing and loading a model take, over HTTP on loopback, in memory."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


TOKENS = {"hf_ada": "ada", "hf_bob": "bob"}
CHUNK_SIZE = 4096


class HubError(Exception):
    """An answer other than success: HTTP status, the Hub's error code and its message."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Repository:
    """A model repository. A commit is a whole listing of files; a branch names its newest commit."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        listing = {path: hashlib.sha1(content).hexdigest() for path, content in sorted(files.items())}
        state = json.dumps([branch, len(self.messages), message, listing])
        sha = hashlib.sha1(state.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str:
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha


class HubServer(ThreadingHTTPServer):
    """
    A Hub with the users `ada` and `bob`. Every request is noted in `requests`, as method, path and `Range` header.

    `cut` holds how many bytes of a file (by its path in the repository) are sent before the connection breaks; once.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.lock = threading.RLock()
        self.clear()

    def clear(self):
        """Forgets everything."""
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[repo_id]
        return repository.commits[repository.resolve(revision)]

    def downloads(self) -> list[str]:
        """The files that were sent since `requests` was last cleared."""
        return [path.split("/", 5)[5] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    routes = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/repos/create", "create_repository"),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/(.+)", "create_branch"),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)", "preupload"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "large_file_batch"),
        ("PUT", r"/large-files/(\w+)", "put_large_file"),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)", "commit"),
        ("GET", r"/api/models/([^/]+/[^/]+)", "model_info"),
        ("GET", r"/api/models/([^/]+/[^/]+)/revision/(.+)", "model_info"),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
        ("(?:GET|HEAD)", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def log_message(self, *args):
        pass

    def handle_request(self):
        path = urlsplit(self.path).path
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        with self.server.lock:
            self.server.requests.append((self.command, path, self.headers.get("Range")))
            try:
                self.user = self.authenticate()
                for method, pattern, name in self.routes:
                    match = re.fullmatch(pattern, path)
                    if match and re.fullmatch(method, self.command):
                        return getattr(self, name)(*map(unquote, match.groups()))
                raise HubError(404, "NotFound", f"No such route: {self.command} {path}")
            except HubError as error:
                headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
                self.send(error.status, json.dumps({"error": error.message}).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": len(body) if length is None else length, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value):
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def authenticate(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return TOKENS.get(token)

    def repository(self, repo_id: str, write: bool = False) -> Repository:
        repository = self.server.repositories.get(repo_id)
        owner = repo_id.split("/")[0]
        if repository is None or (repository.private and self.user != owner):
            raise HubError(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if write and self.user != owner:
            raise HubError(403, "", "You don't have the rights to write to this repository")
        return repository

    def whoami(self):
        if self.user is None:
            raise HubError(401, "", "Invalid username or password.")
        self.send_json({"type": "user", "name": self.user, "orgs": [], "auth": {}})

    def validate_yaml(self):
        self.send_json({"errors": [], "warnings": []})

    def create_repository(self):
        request = json.loads(self.body)
        if self.user is None:
            raise HubError(401, "", "Invalid username or password.")
        owner = request.get("organization") or self.user
        if owner != self.user:
            raise HubError(403, "", f"You don't have the rights to create a model under the namespace {owner!r}")
        repo_id = f"{owner}/{request['name']}"
        if repo_id in self.server.repositories:
            body = json.dumps({"error": "You already created this model repo", "url": f"{self.server.url}/{repo_id}"})
            return self.send(409, body.encode(), {})
        private = request.get("visibility") == "private" or request.get("private", False)
        repository = self.server.repositories[repo_id] = Repository(private=private)
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.send_json({"url": f"{self.server.url}/{repo_id}", "name": repo_id})

    def create_branch(self, repo_id: str, branch: str):
        repository = self.repository(repo_id, write=True)
        if branch in repository.branches:
            raise HubError(409, "", "Reference already exists")
        start = (json.loads(self.body) if self.body else {}).get("startingPoint", "main")
        repository.branches[branch] = repository.resolve(start)
        self.send_json({})

    def preupload(self, repo_id: str, revision: str):
        self.repository(repo_id, write=True).resolve(revision)
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.send_json({"files": files})

    def large_file_batch(self, repo_id: str):
        self.repository(repo_id, write=True)
        objects = []
        for item in json.loads(self.body)["objects"]:
            if item["oid"] not in self.server.large_files:
                item["actions"] = {"upload": {"href": f"{self.server.url}/large-files/{item['oid']}"}}
            objects.append(item)
        self.send_json({"transfer": "basic", "objects": objects})

    def put_large_file(self, oid: str):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "", "The file's SHA-256 is another than was announced")
        self.server.large_files[oid] = self.body
        self.send(200, b"", {})

    def commit(self, repo_id: str, branch: str):
        repository = self.repository(repo_id, write=True)
        files = dict(repository.commits[repository.resolve(branch)])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                message = value["summary"]
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.server.large_files[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(branch, files, message)
        self.send_json({"commitUrl": f"{self.server.url}/{repo_id}/commit/{sha}", "commitOid": sha})

    def model_info(self, repo_id: str, revision: str = "main"):
        repository = self.repository(repo_id)
        sha = repository.resolve(revision)
        siblings = [{"rfilename": path} for path in repository.commits[sha]]
        info = {"id": repo_id, "sha": sha, "private": repository.private, "tags": [], "siblings": siblings}
        self.send_json(info)

    def tree(self, repo_id: str, revision: str):
        repository = self.repository(repo_id)
        files = repository.commits[repository.resolve(revision)]
        self.send_json(
            [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
        )

    def resolve(self, repo_id: str, revision: str, path: str):
        repository = self.repository(repo_id)
        sha = repository.resolve(revision)
        if path not in repository.commits[sha]:
            raise HubError(404, "EntryNotFound", "Entry not found")
        content = repository.commits[sha][path]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        status, start, total = 200, 0, len(content)
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            status, start = 206, int(match[1])
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        content = content[start:]
        if self.command == "GET" and path in self.server.cut:
            self.send(status, content[: self.server.cut.pop(path)], headers, length=len(content))
            self.close_connection = True
        else:
            self.send(status, content, headers)
