"""Repositories of the Hub for tests: what a commit may hold, and what is told of one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from typing import Any
from urllib.parse import unquote

from support.hub_cards import card_errors, front_matter


MAX_REGULAR_FILE = 10 * 2**20
LFS_PATTERNS = (
    "*.arrow *.bin *.gguf *.gz *.h5 *.model *.npy *.npz *.onnx *.parquet *.pt *.pth *.safetensors *.tar *.zip"
)


class HubError(Exception):
    """What the Hub answers instead."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any):
        self.status, self.message, self.code, self.body = status, message, code, body


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """Git's name for the file; of one in LFS, for the pointer that Git holds."""
        content = self.content
        if self.lfs:
            content = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n".encode()
            )
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        lfs = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134} if self.lfs else None
        return {
            "type": "file",
            "path": path,
            "oid": self.oid,
            "size": len(self.content),
            **({"lfs": lfs} if lfs else {}),
        }


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: Commit | None
    author: str
    title: str
    message: str
    files: dict[str, File]
    date: str

    def history(self) -> Iterator[Commit]:
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent


@dataclass
class Repo:
    kind: str
    id: str
    private: bool
    created: str
    refs: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS, by SHA-256

    @property
    def head(self) -> Commit:
        return self.refs["main"]

    @property
    def files(self) -> dict[str, bytes]:
        """What a reader of `main` sees, without the file that the Hub itself adds."""
        return {path: file.content for path, file in self.head.files.items() if path != ".gitattributes"}

    def commits(self, ref: str = "main") -> list[Commit]:
        """The pushes, oldest first, without the commit that the Hub itself makes."""
        return list(self.refs[ref].history())[-2::-1]

    def at(self, revision: str) -> Commit:
        revision = unquote(revision)
        if revision in self.refs:
            return self.refs[revision]
        if len(revision) >= 7:
            for commit in (c for head in self.refs.values() for c in head.history()):
                if commit.oid.startswith(revision):
                    return commit
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def add(
        self, ref: str, parent: Commit | None, author: str, title: str, message: str, files: dict[str, File]
    ) -> Commit:
        self.refs[ref] = Commit(secrets.token_hex(20), parent, author, title, message, files, now())
        return self.refs[ref]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def belongs_into_lfs(path: str, sample: bytes, size: int, attributes: bytes) -> bool:
    patterns = [line.split()[0] for line in attributes.decode().splitlines() if "filter=lfs" in line]
    try:
        sample.decode()
        binary = b"\0" in sample
    except UnicodeDecodeError as error:
        binary = error.start < len(sample) - 4  # not merely a character cut at the sample's end
    return size > MAX_REGULAR_FILE or (binary and size > 0) or any(fnmatch(path, p) for p in patterns)


def checked_path(path: str) -> str:
    if not path or path.startswith("/") or {"", ".", "..", ".git"} & set(path.split("/")):
        raise HubError(400, f"Invalid path in repo: {path!r}")
    return path


def apply(repo: Repo, base: Commit, operations: list[dict[str, Any]]) -> dict[str, File]:
    files = dict(base.files)
    attributes = files[".gitattributes"].content
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = checked_path(value["path"])
        if key == "file":
            if value.get("encoding") != "base64":
                raise HubError(400, f"{path}: encoding must be base64")
            try:
                content = base64.b64decode(value["content"], validate=True)
            except binascii.Error as error:
                raise HubError(400, f"{path}: {error}") from None
            if belongs_into_lfs(path, content[:512], len(content), attributes):
                raise HubError(400, f"{path}: binary files and files over 10 MiB must be uploaded through LFS")
            files[path] = File(content)
        elif key == "lfsFile":
            if value.get("algo") != "sha256" or value["oid"] not in repo.objects:
                raise HubError(400, f"{path}: no LFS object {value['oid']} was uploaded")
            content = repo.objects[value["oid"]]
            if value.get("size", len(content)) != len(content):
                raise HubError(400, f"{path}: the LFS object has another size")
            files[path] = File(content, lfs=True)
            if not belongs_into_lfs(path, b"", 0, attributes):
                attributes += f"{path} filter=lfs diff=lfs merge=lfs -text\n".encode()
        elif key in ("deletedFile", "deletedFolder"):
            gone = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(f"{path}/"))]
            if not gone:
                raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise HubError(400, f"Unknown operation {key!r}")
    if attributes != base.files[".gitattributes"].content:
        files[".gitattributes"] = File(attributes)
    if "README.md" in files and files["README.md"] != base.files.get("README.md"):
        errors = card_errors(files["README.md"].content.decode(), repo.kind)
        if errors:
            raise HubError(400, "Invalid metadata in README.md: " + "; ".join(errors))
    return files


def repo_info(repo: Repo, commit: Commit, blobs: bool = False) -> dict[str, Any]:
    text = commit.files["README.md"].content.decode() if "README.md" in commit.files else ""
    data = {} if card_errors(text, repo.kind) else front_matter(text) or {}
    one_or_more = {
        "license": "license:",
        "library_name": "",
        "pipeline_tag": "",
        "language": "",
        "datasets": "dataset:",
        "base_model": "base_model:",
    }
    tags = list(data.get("tags") or [])
    for name, prefix in one_or_more.items():
        values = data.get(name) or []
        tags += [f"{prefix}{value}" for value in ([values] if isinstance(values, str) else values)]
    tags += [f"arxiv:{number}" for number in dict.fromkeys(re.findall(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{5})", text))]
    siblings = []
    for path, file in sorted(commit.files.items()):
        details = {"size": len(file.content), "blobId": file.oid}
        if file.lfs:
            details["lfs"] = {"sha256": file.sha256, "size": len(file.content), "pointerSize": 134}
        siblings.append({"rfilename": path, **(details if blobs else {})})
    info = {
        "_id": hashlib.sha1(repo.id.encode()).hexdigest()[:24],
        "id": repo.id,
        "author": repo.id.split("/")[0],
        "sha": commit.oid,
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [*dict.fromkeys(tags), "region:us"],
        "cardData": data,
        "siblings": siblings,
        "createdAt": repo.created,
        "lastModified": commit.date,
    }
    if repo.kind == "model":
        info |= {"modelId": repo.id, "model-index": data.get("model-index"), "library_name": data.get("library_name")}
        info["pipeline_tag"] = data.get("pipeline_tag")
    if repo.kind == "space":
        info["sdk"] = data.get("sdk")
    return info


def repo_tree(commit: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
    inside = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(commit.files.items()):
        if not path.startswith(inside):
            continue
        parts = path.removeprefix(inside).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            parent = inside + "/".join(parts[:depth])
            entries[parent] = {
                "type": "directory",
                "path": parent,
                "oid": hashlib.sha1(parent.encode()).hexdigest(),
                "size": 0,
            }
        if recursive or len(parts) == 1:
            entries[path] = file.entry(path)
    if not entries and folder:
        raise HubError(404, f"{folder} does not exist on this revision", "EntryNotFound")
    return list(entries.values())
