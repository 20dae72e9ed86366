"""A Hugging Face Hub on 127.0.0.1, for tests that speak real HTTP: models, datasets and spaces, kept in memory.

Where the real Hub refuses, so does this one: metadata of cards, names, tokens and their roles, private repositories, stale
parents, regular files that belong into LFS, uploads whose hash or size is not what was announced. The fixture `hub`
of `conftest.py` hands it out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from support import hub_environment
from support.hub_cards import card_errors, front_matter
from support.hub_repos import (
    LFS_PATTERNS,
    File,
    HubError,
    Repo,
    apply,
    belongs_into_lfs,
    checked_path,
    now,
    repo_info,
    repo_tree,
)


SPACE_SDKS = ("gradio", "streamlit", "docker", "static")
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
REPO_NAME = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)[A-Za-z0-9_][A-Za-z0-9._-]{0,94}(?<![.-])")


@dataclass(frozen=True)
class User:
    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()


@dataclass
class _Fault:
    method: str
    path: re.Pattern[str]
    times: int
    status: int | None
    after: bool


class Hub:
    """The server's state and what a test does with it.

    Attributes:
        url: Its address.
        token, read_token, other_token: Of alice, who may write; of alice, who may only read; of bob.
        repos: By kind (`"model"`, `"dataset"`, `"space"`) and id.
        requests: Method and path of each request, in order.
    """

    def __init__(self) -> None:
        self.url = hub_environment.URL
        self.token, self.read_token, self.other_token = "hf_aliceWrites", "hf_aliceReads", "hf_bobWrites"
        self.page_size = 50
        self._server: uvicorn.Server | None = None
        self.reset()

    def reset(self) -> None:
        """An empty Hub on which nothing goes wrong."""
        self.users = {
            self.token: User("alice", "write", ("lab",)),
            self.read_token: User("alice", "read", ("lab",)),
            self.other_token: User("bob"),
        }
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.uploads: dict[str, tuple[Repo, str, int]] = {}
        self._faults: list[_Fault] = []
        self._meanwhile: list[tuple[re.Pattern[str], Callable[[], Any]]] = []

    def start(self) -> None:
        """Answers from now on."""
        config = uvicorn.Config(
            _app(self), http="h11", ws="none", lifespan="off", log_config=None, timeout_keep_alive=60
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [hub_environment.SOCKET]}, daemon=True
        )
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(10)

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        return self.repos[kind, repo_id]

    def fail(
        self, path: str, *, method: str = "", times: int = 1, status: int | None = None, after: bool = False
    ) -> None:
        """Lets requests fail.

        Args:
            path: Regular expression, searched in the path.
            method: Only this one; any by default.
            times: How often, then all is well again.
            status: What is answered; by default nothing is, and the connection breaks.
            after: Do what was asked for first, so that only the answer is lost.
        """
        self._faults.append(_Fault(method, re.compile(path), times, status, after))

    def meanwhile(self, path: str, action: Callable[[], Any]) -> None:
        """Lets somebody else do something just before the next request to a path is answered.

        Args:
            path: Regular expression, searched in the path.
            action: What they do.
        """
        self._meanwhile.append((re.compile(path), action))

    def fault(self, method: str, path: str) -> _Fault | None:
        for fault in self._faults:
            if fault.times > 0 and fault.method in ("", method) and fault.path.search(path):
                fault.times -= 1
                return fault
        return None

    def create(self, kind: str, repo_id: str, private: bool = False) -> Repo:
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private, now())
        lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split())
        repo.add("main", None, repo_id.split("/")[0], "initial commit", "", {".gitattributes": File(lines.encode())})
        return repo


# -- who may do what ------------------------------------------------------------------------------------------------------


def _user(hub: Hub, request: Request) -> User | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    user = hub.users.get(header.removeprefix("Bearer "))
    if user is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return user


def _is_member(user: User | None, repo_id: str) -> bool:
    return user is not None and repo_id.split("/")[0] in (user.name, *user.orgs)


def _readable(hub: Hub, request: Request, kind: str, repo_id: str) -> Repo:
    user = _user(hub, request)
    repo = hub.repos.get((kind, repo_id))
    if repo is None or (repo.private and not _is_member(user, repo_id)):
        if user is None:
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        raise HubError(404, "Repository not found", "RepoNotFound")
    return repo


def _writer(hub: Hub, request: Request) -> User:
    user = _user(hub, request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    if user.role != "write":
        raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
    return user


def _writable(hub: Hub, request: Request, kind: str, repo_id: str, as_pull_request: bool = False) -> Repo:
    repo = _readable(hub, request, kind, repo_id)
    if not _is_member(_writer(hub, request), repo_id) and not as_pull_request:
        raise HubError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
    return repo


def _page(hub: Hub, request: Request, items: list[Any]) -> JSONResponse:
    """A page of a list, with the address of the next one as the Hub gives it."""
    start, limit = int(request.query_params.get("cursor", 0)), hub.page_size
    wanted = request.query_params.get("limit")
    limit = min(limit, int(wanted)) if wanted else limit
    headers = {}
    if start + limit < len(items):
        query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        query.append(("cursor", str(start + limit)))
        headers["Link"] = f'<{hub.url}{request.url.path}?{urlencode(query)}>; rel="next"'
    return JSONResponse(items[start : start + limit], headers=headers)


# -- the server ------------------------------------------------------------------------------------------------------------


class _Gate:
    """Keeps a path's segments quoted until they are split, writes requests down and lets some of them fail."""

    def __init__(self, app: Any, hub: Hub):
        self.app, self.hub = app, hub

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        scope["path"] = path = scope["raw_path"].decode()
        self.hub.requests.append((scope["method"], path))
        for entry in [entry for entry in self.hub._meanwhile if entry[0].search(path)]:
            self.hub._meanwhile.remove(entry)
            entry[1]()
        fault = self.hub.fault(scope["method"], path)
        if fault is None:
            return await self.app(scope, receive, send)

        async def drop(message: dict) -> None:
            receive.__self__.transport.abort()

        async def refuse(message: dict) -> None:
            if message["type"] == "http.response.start":
                # What stands before the Hub answers in HTML.
                page = HTMLResponse("<html>Bad Gateway</html>", fault.status)
                answer = page if fault.status == 502 else JSONResponse({"error": "Internal Error"}, fault.status)
                await answer(scope, receive, send)

        instead = drop if fault.status is None else refuse
        if fault.after:
            return await self.app(scope, receive, instead)
        await receive()  # the beginning of the request's body
        await instead({"type": "http.response.start"})


def _app(hub: Hub) -> _Gate:
    app = FastAPI(openapi_url=None)

    @app.exception_handler(HubError)
    async def refuse(request: Request, error: HubError) -> Response:
        headers = {"X-Error-Message": error.message.splitlines()[0]}
        if error.code:
            headers["X-Error-Code"] = error.code
        content = {"error": error.message, **error.body}
        return JSONResponse(content, error.status, headers)

    @app.get("/api/whoami-v2")
    async def whoami(request: Request) -> dict:
        user = _user(hub, request)
        if user is None:
            raise HubError(401, "Invalid username or password.")
        return {
            "type": "user",
            "name": user.name,
            "fullname": user.name.title(),
            "orgs": [{"type": "org", "name": name} for name in user.orgs],
            "auth": {"type": "access_token", "accessToken": {"displayName": "tests", "role": user.role}},
        }

    @app.post("/api/repos/create")
    async def create(request: Request) -> dict:
        user, body = _writer(hub, request), await request.json()
        kind, owner = body.get("type") or "model", body.get("organization") or user.name
        if kind not in PREFIXES:
            raise HubError(400, f"Invalid repo type {kind!r}")
        if not REPO_NAME.fullmatch(body["name"]):
            raise HubError(400, f"Invalid repo name: {body['name']!r}")
        if kind == "space" and body.get("sdk") not in SPACE_SDKS:
            raise HubError(400, "Invalid value for sdk")
        if not _is_member(user, f"{owner}/"):
            raise HubError(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        repo_id = f"{owner}/{body['name']}"
        url = f"{hub.url}/{PREFIXES[kind]}{repo_id}"
        if (kind, repo_id) in hub.repos:
            raise HubError(409, f"You already created this {kind} repo: {repo_id}", url=url)
        hub.create(kind, repo_id, body.get("visibility") == "private" or bool(body.get("private")))
        return {"url": url, "name": repo_id, "id": secrets.token_hex(12)}

    @app.delete("/api/repos/delete")
    async def delete(request: Request) -> dict:
        user, body = _writer(hub, request), await request.json()
        repo_id = f"{body.get('organization') or user.name}/{body['name']}"
        _writable(hub, request, body.get("type") or "model", repo_id)
        del hub.repos[body.get("type") or "model", repo_id]
        return {}

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> Response:
        body = await request.json()
        errors = card_errors(body["content"], body["repoType"])
        empty = not errors and not front_matter(body["content"])
        warnings = [{"message": "empty or missing yaml metadata in repo card"}] if empty else []
        content = {"errors": [{"message": error} for error in errors], "warnings": warnings}
        return JSONResponse(content, 400 if errors else 200)

    @app.get("/api/{kinds}")
    async def listing(request: Request, kinds: str) -> Response:
        user, query = _user(hub, request), request.query_params
        found = []
        for repo in sorted(hub.repos.values(), key=lambda repo: repo.head.date, reverse=True):
            if repo.kind != KINDS.get(kinds) or (repo.private and not _is_member(user, repo.id)):
                continue
            info = repo_info(repo, repo.head)
            if not set(query.getlist("filter")) <= set(info["tags"]):
                continue
            if query.get("author", info["author"]) != info["author"] or query.get("search", "") not in repo.id:
                continue
            found.append(info)
        return _page(hub, request, found)

    repo_path = "/api/{kinds}/{owner}/{name}"

    @app.get(repo_path)
    @app.get(repo_path + "/revision/{revision}")
    async def info(request: Request, kinds: str, owner: str, name: str, revision: str = "main") -> dict:
        repo = _readable(hub, request, KINDS[kinds], f"{owner}/{name}")
        return repo_info(repo, repo.at(revision), "blobs" in request.query_params)

    @app.get(repo_path + "/tree/{revision}")
    @app.get(repo_path + "/tree/{revision}/{folder:path}")
    async def tree(
        request: Request, kinds: str, owner: str, name: str, revision: str, folder: str = "", recursive: bool = False
    ) -> Response:
        commit = _readable(hub, request, KINDS[kinds], f"{owner}/{name}").at(revision)
        return _page(hub, request, repo_tree(commit, unquote(folder).strip("/"), recursive))

    @app.post(repo_path + "/paths-info/{revision}")
    async def paths_info(request: Request, kinds: str, owner: str, name: str, revision: str) -> list:
        commit = _readable(hub, request, KINDS[kinds], f"{owner}/{name}").at(revision)
        wanted = parse_qs((await request.body()).decode()).get("paths", [])
        everything = {entry["path"]: entry for entry in repo_tree(commit, "", recursive=True)}
        return [everything[path] for path in wanted if path in everything]

    @app.get(repo_path + "/refs")
    async def refs(request: Request, kinds: str, owner: str, name: str) -> dict:
        repo = _readable(hub, request, KINDS[kinds], f"{owner}/{name}")
        named = {ref: {"targetCommit": commit.oid} for ref, commit in repo.refs.items()}
        return {
            "branches": [
                {"name": ref, "ref": f"refs/heads/{ref}", **target}
                for ref, target in named.items()
                if not ref.startswith("refs/")
            ],
            "converts": [],
            "tags": [],
            "pullRequests": [{"name": ref, "ref": ref, **target} for ref, target in named.items() if "/pr/" in ref],
        }

    @app.get(repo_path + "/discussions")
    async def discussions(request: Request, kinds: str, owner: str, name: str) -> dict:
        repo, author = _readable(hub, request, KINDS[kinds], f"{owner}/{name}"), request.query_params.get("author")
        found = [
            {
                "title": commit.title,
                "num": int(ref.rsplit("/")[-1]),
                "author": {"name": commit.author},
                "createdAt": commit.date,
                "status": "open",
                "repo": {"name": repo.id, "type": repo.kind},
                "isPullRequest": True,
            }
            for ref, commit in repo.refs.items()
            if ref.startswith("refs/pr/") and author in (None, commit.author)
        ]
        return {"discussions": found, "count": len(found), "start": 0}

    @app.get(repo_path + "/commits/{revision}")
    async def commits(request: Request, kinds: str, owner: str, name: str, revision: str) -> Response:
        commit = _readable(hub, request, KINDS[kinds], f"{owner}/{name}").at(revision)
        told = [
            {"id": c.oid, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": c.author}]}
            for c in commit.history()
        ]
        return _page(hub, request, told)

    @app.post(repo_path + "/branch/{branch}")
    async def branch(request: Request, kinds: str, owner: str, name: str, branch: str) -> dict:
        repo = _writable(hub, request, KINDS[kinds], f"{owner}/{name}")
        branch, body = unquote(branch), json.loads(await request.body() or b"{}")
        if branch in repo.refs:
            raise HubError(409, f"Reference already exists: refs/heads/{branch}")
        if branch.startswith("refs/"):
            raise HubError(400, f"Invalid branch name: {branch}")
        repo.refs[branch] = repo.at(body.get("startingPoint", "main"))
        return {}

    @app.post(repo_path + "/preupload/{revision}")
    async def preupload(request: Request, kinds: str, owner: str, name: str, revision: str) -> dict:
        as_pull_request = request.query_params.get("create_pr") == "1" or unquote(revision).startswith("refs/pr/")
        repo = _writable(hub, request, KINDS[kinds], f"{owner}/{name}", as_pull_request)
        commit, answers = repo.at(revision), []
        for file in (await request.json())["files"]:
            path, sample = checked_path(file["path"]), base64.b64decode(file["sample"])
            lfs = belongs_into_lfs(path, sample, file["size"], commit.files[".gitattributes"].content)
            known = commit.files.get(path)
            # Of a file in LFS, the Hub names the content and not the pointer.
            oid = {"oid": known.sha256 if known.lfs else known.oid} if known else {}
            answers.append({"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, **oid})
        return {"files": answers, "commitOid": commit.oid}

    @app.post(repo_path + "/commit/{revision}")
    async def commit(request: Request, kinds: str, owner: str, name: str, revision: str) -> dict:
        as_pull_request = request.query_params.get("create_pr") == "1"
        kind, repo_id = KINDS[kinds], f"{owner}/{name}"
        # To the branch of a pull request, whoever opened it may add.
        repo = _writable(hub, request, kind, repo_id, as_pull_request or unquote(revision).startswith("refs/pr/"))
        if request.headers.get("content-type") != "application/x-ndjson":
            raise HubError(400, "A commit is sent as application/x-ndjson")
        header, *operations = [json.loads(line) for line in (await request.body()).splitlines() if line]
        if header["key"] != "header" or not header["value"].get("summary"):
            raise HubError(400, "A commit begins with a header that has a summary")
        if not operations:
            raise HubError(400, "No files in the commit")
        ref, parent = unquote(revision), header["value"].get("parentCommit")
        base = repo.at(revision)
        if as_pull_request:
            base = repo.at(parent) if parent else base
            ref = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in repo.refs)}"
        elif ref not in repo.refs:
            raise HubError(400, f"{ref} is not a branch")
        elif parent and not base.oid.startswith(parent):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = apply(repo, base, operations)
        summary, description = header["value"]["summary"], header["value"].get("description", "")
        made = repo.add(ref, base, _writer(hub, request).name, summary, description, files)
        url = f"{hub.url}/{PREFIXES[kind]}{repo_id}"
        answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{url}/commit/{made.oid}"}
        return answer | ({"pullRequestUrl": f"{url}/discussions/{ref.rsplit('/')[-1]}"} if as_pull_request else {})

    async def lfs_batch(request: Request, kind: str, repo_id: str) -> dict:
        # Whoever may open a pull request may upload the objects for it.
        repo, body = _writable(hub, request, kind, repo_id, as_pull_request=True), await request.json()
        if body["operation"] != "upload" or "basic" not in body["transfers"] or body["hash_algo"] != "sha256":
            raise HubError(422, "Only basic uploads with sha256")
        objects = []
        for wanted in body["objects"]:
            if wanted["oid"] not in repo.objects:
                ticket = secrets.token_hex(8)
                hub.uploads[ticket] = (repo, wanted["oid"], wanted["size"])
                upload = {"href": f"{hub.url}/lfs/upload/{ticket}", "header": {}}
                verify = {"href": f"{hub.url}/{PREFIXES[kind]}{repo_id}.git/info/lfs/objects/verify"}
                wanted = {**wanted, "actions": {"upload": upload, "verify": verify}}
            objects.append(wanted)
        return {"transfer": "basic", "objects": objects}

    async def lfs_verify(request: Request, kind: str, repo_id: str) -> dict:
        repo, body = _writable(hub, request, kind, repo_id, as_pull_request=True), await request.json()
        if len(repo.objects.get(body["oid"], b"")) != body["size"]:
            raise HubError(404, "Object does not exist")
        return {}

    @app.post("/{owner}/{name}.git/info/lfs/objects/{action}")
    async def lfs_of_model(request: Request, owner: str, name: str, action: str) -> dict:
        return await {"batch": lfs_batch, "verify": lfs_verify}[action](request, "model", f"{owner}/{name}")

    @app.post("/{kinds}/{owner}/{name}.git/info/lfs/objects/{action}")
    async def lfs_of_other(request: Request, kinds: str, owner: str, name: str, action: str) -> dict:
        return await {"batch": lfs_batch, "verify": lfs_verify}[action](request, KINDS[kinds], f"{owner}/{name}")

    @app.put("/lfs/upload/{ticket}")
    async def upload(request: Request, ticket: str) -> Response:
        if ticket not in hub.uploads or "authorization" in request.headers:
            raise HubError(403, "SignatureDoesNotMatch")
        repo, oid, size = hub.uploads[ticket]
        content = await request.body()
        if len(content) != size or hashlib.sha256(content).hexdigest() != oid:
            raise HubError(400, "BadDigest: the content is not what was announced")
        repo.objects[oid] = content
        del hub.uploads[ticket]
        return Response()

    def resolve(request: Request, kind: str, repo_id: str, revision: str, path: str) -> Response:
        commit = _readable(hub, request, kind, repo_id).at(revision)
        file = commit.files.get(unquote(path))
        if file is None:
            raise HubError(404, "Entry not found", "EntryNotFound")
        headers = {
            "X-Repo-Commit": commit.oid,
            "ETag": f'"{file.sha256 if file.lfs else file.oid}"',
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'inline; filename="{unquote(path).rsplit("/")[-1]}"',
        }
        if file.lfs:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(file.content))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if asked is None:
            return Response(file.content, 200, headers, "application/octet-stream")
        first, last = int(asked[1]), min(int(asked[2] or 10**18), len(file.content) - 1)
        if first >= len(file.content):
            return Response(b"", 416, {**headers, "Content-Range": f"bytes */{len(file.content)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(file.content)}"
        return Response(file.content[first : last + 1], 206, headers, "application/octet-stream")

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    async def resolve_model(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        return resolve(request, "model", f"{owner}/{name}", revision, path)

    @app.api_route("/{kinds}/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    async def resolve_other(request: Request, kinds: str, owner: str, name: str, revision: str, path: str) -> Response:
        return resolve(request, KINDS[kinds], f"{owner}/{name}", revision, path)

    return _Gate(app, hub)
