"""The endpoints of the stand-in for the Hub, one method each."""

from __future__ import annotations

import base64
import http.server
import json
import re
import socket
import time
import urllib.parse
from typing import Any

from helpers_hub import Commit, Hub, Person, PullRequest, Repository, blob_id, is_large, sha256

_KIND = r"(?P<kind>models|datasets)"
_NAME = r"(?P<name>[^/]+/[^/]+)"
_REPO = rf"/api/{_KIND}/{_NAME}"
ROUTES: tuple[tuple[str, str, str], ...] = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", rf"{_REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{_REPO}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{_REPO}/branch/(?P<branch>[^/]+)", "branch"),
    ("POST", rf"{_REPO}/discussions/(?P<number>\d+)/merge", "merge"),
    ("GET", rf"{_REPO}/discussions", "discussions"),
    ("GET", rf"{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<under>.+))?", "tree"),
    ("POST", rf"{_REPO}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("GET", rf"{_REPO}/revision/(?P<revision>[^/]+)", "info"),
    ("GET", rf"{_REPO}", "info"),
    ("POST", rf"(?:/(?P<kind>datasets))?/{_NAME}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", rf"/upload/{_NAME}/(?P<oid>\w+)(?:/(?P<part>\d+))?", "upload"),
    ("POST", rf"/upload/{_NAME}/(?P<oid>\w+)", "complete"),
    ("POST", rf"/verify/{_NAME}", "verify"),
    ("GET", rf"/storage/{_NAME}/(?P<oid>\w+)", "storage"),
    ("GET", rf"/api/resolve-cache/{_KIND}/{_NAME}/(?P<revision>[^/]+)/(?P<path>.+)", "content"),
    ("GET", rf"(?:/(?P<kind>datasets))?/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)


class Refused(Exception):  # noqa: N818
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        self.body = b""
        method = "GET" if self.command == "HEAD" else self.command
        matches = ((re.fullmatch(pattern, path), name) for known, pattern, name in ROUTES if known == method)
        found, name = next(((match, name) for match, name in matches if match), (None, ""))
        if found is None:
            self._take_body()
            return self._send(404, {"error": "no such page"}, {"X-Error-Code": "EntryNotFound"})
        parts = {key: urllib.parse.unquote(value) for key, value in found.groupdict().items() if value}
        self.kind = parts.pop("kind", "models")
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.person: Person | None = self.hub.tokens.get(self.token)
        self.owner = parts.get("name", f"{self.person.name if self.person else ''}/").split("/")[0]
        with self.hub.lock:
            self.hub.seen.append((parts.get("name", ""), self.token))
            self.hub.asked.append(name)
            self.hub.tokens_at.setdefault(name, set()).add(self.token)
        self.fault = self.hub.fault(name.replace("_", "-"), self.owner)
        what = self.fault.what if self.fault else ""
        if what == "cut":
            return self._cut()
        if what == "slow":
            time.sleep(1)
        if what == "hang":
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            self.hub.reached.set()
            self.hub.go.wait(120)
            return self._break()
        self._take_body()
        if isinstance(what, int):
            code = {404: "RepoNotFound"}.get(what, "")
            headers = dict(self.fault.headers) | ({"X-Error-Code": code} if code else {})
            return self._send(what, {"error": f"fault {what}"}, headers)
        try:
            with self.hub.lock:
                answer = getattr(self, f"on_{name}")(**parts)
            if what == "cut-after":
                return self._break()
            if answer is not None:
                status, value, headers = answer if isinstance(answer, tuple) else (200, answer, {})
                self._send(status, value, headers)
        except Refused as refusal:
            headers = {"X-Error-Message": refusal.message} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self._send(refusal.status, {"error": refusal.message}, headers)
        return None

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def _take_body(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().strip() or b"0", 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _cut(self) -> None:
        """Break off in the middle of what is being sent."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
        self._break()

    def _break(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # who

    def known(self) -> Person:
        if self.person is None:
            raise Refused(401, "Invalid credentials in Authorization header" if self.token else "Unauthorized")
        return self.person

    def owns(self, name: str) -> bool:
        person = self.person
        return person is not None and name.split("/")[0] in (person.name, *person.organizations)

    def visible(self, name: str) -> Repository:
        if self.token and self.person is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        found = self.hub.repositories.get(f"datasets/{name}" if self.kind == "datasets" else name)
        if found is None or (found.private and not self.owns(name)):
            # As the Hub does: who may not see a repository is not told that it exists.
            raise Refused(404 if self.token else 401, "Repository not found", "RepoNotFound")
        return found

    def writable(self, name: str) -> Repository:
        found = self.visible(name)
        person = self.known()
        if person.role != "write" or not (self.owns(name) or self.query.get("create_pr")):
            raise Refused(403, f"You do not have the rights to write to {name}")
        return found

    def commit_of(self, name: str, revision: str) -> tuple[Repository, Commit]:
        repository = self.visible(name)
        commit = repository.find(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, commit

    # accounts and repositories

    def on_whoami(self) -> object:
        person = self.known()
        return {
            "type": "user",
            "name": person.name,
            "orgs": [{"name": name} for name in person.organizations],
            "auth": {"accessToken": {"displayName": "test", "role": person.role}},
        }

    def on_create(self) -> object:
        asked, person = json.loads(self.body), self.known()
        self.kind = f"{asked.get('type') or 'model'}s"
        name = f"{asked.get('organization') or person.name}/{asked['name']}"
        key = f"datasets/{name}" if self.kind == "datasets" else name
        url = f"{self.hub.endpoint}/{key}"
        if person.role != "write" or not self.owns(name):
            raise Refused(403, "You don't have the rights to create a repository here")
        if key in self.hub.repositories:
            return 409, {"error": "You already created this repo", "url": url}, {}
        self.hub.create(key, private=asked.get("visibility") == "private" or asked.get("private") is True)
        return {"url": url, "name": name, "id": key}

    def on_validate_yaml(self) -> object:
        errors = [{"message": text} for text in self.hub.yaml_errors]
        return 400 if errors else 200, {"errors": errors, "warnings": []}, {}

    def on_branch(self, name: str, branch: str) -> object:
        repository = self.writable(name)
        if branch in repository.branches:
            raise Refused(409, "Reference already exists")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.branches[branch] = repository.branches[start]
        return {}

    def on_info(self, name: str, revision: str = "main") -> object:
        repository, commit = self.commit_of(name, revision)
        files = [self._described(commit, path, "rfilename") for path in sorted(commit.files)]
        if self.fault is not None and self.fault.what == "move":
            repository.branches["main"] = next(oid for oid in repository.commits if oid != commit.oid)
        if "blobs" not in self.query:
            files = [{"rfilename": each["rfilename"]} for each in files]
        return {
            "_id": "0" * 24,
            "id": name,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "sha": commit.oid,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": files,
        }

    def _described(self, commit: Commit, path: str, key: str = "path") -> dict[str, Any]:
        content = commit.files[path]
        found: dict[str, Any] = {key: path, "size": len(content)}
        if path in commit.large:
            pointer = b"pointer to " + sha256(content).encode()
            about = {"size": len(content), "pointerSize": len(pointer)}
            hashed = "sha256" if key == "rfilename" else "oid"
            found |= {"blobId" if key == "rfilename" else "oid": blob_id(pointer)}
            return found | {"lfs": about | {hashed: sha256(content)}}
        return found | {"blobId" if key == "rfilename" else "oid": blob_id(content)}

    def on_tree(self, name: str, revision: str, under: str = "") -> object:
        _, commit = self.commit_of(name, revision)
        paths = [path for path in sorted(commit.files) if not under or path.startswith(f"{under}/")]
        if self.query.get("recursive", "").lower() != "true":
            depth = under.count("/") + 2 if under else 1
            paths = list(dict.fromkeys("/".join(path.split("/")[:depth]) for path in paths))
        start, size = int(self.query.get("cursor", 0)), 3  # small pages, so that the next one is asked for
        page = [self._entry(commit, path) for path in paths[start : start + size]]
        query = urllib.parse.urlencode(self.query | {"cursor": str(start + size)})
        more = {"Link": f'<{self.hub.endpoint}{self.path.split("?")[0]}?{query}>; rel="next"'}
        return 200, page, more if start + size < len(paths) else {}

    def on_paths_info(self, name: str, revision: str) -> object:
        _, commit = self.commit_of(name, revision)
        form = self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
        asked = (
            [value for key, value in urllib.parse.parse_qsl(self.body.decode()) if key == "paths"]
            if form
            else json.loads(self.body)["paths"]
        )
        folders = {path.rpartition("/")[0] for path in commit.files}
        return [self._entry(commit, path) for path in asked if path in commit.files or path in folders]

    def _entry(self, commit: Commit, path: str) -> dict[str, Any]:
        if path in commit.files:
            return {"type": "file"} | self._described(commit, path)
        return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}

    # pushing

    def on_preupload(self, name: str, revision: str) -> object:
        repository = self.writable(name)
        commit = repository.find(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        answers = []
        for file in json.loads(self.body)["files"]:
            path, there = file["path"], commit.files.get(file["path"])
            large = self.hub.lfs and is_large(path)
            oid = None if there is None else (sha256 if large else blob_id)(there)
            mode = "lfs" if large else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def on_batch(self, name: str) -> object:
        if not (self.known().role == "write"):
            raise Refused(403, "This token may only read")
        repository, answers = self.visible(name), []
        for asked in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repository.objects:
                href = f"{self.hub.storage_endpoint}/upload/{name}/{asked['oid']}"
                verify = {"href": f"{self.hub.endpoint}/verify/{name}"}
                upload: dict[str, Any] = {"href": href}
                if size := self.hub.part_size:
                    parts = range(1, -(-asked["size"] // size) + 1)
                    upload["header"] = {"chunk_size": str(size)} | {f"{part:05}": f"{href}/{part}" for part in parts}
                answer["actions"] = {"upload": upload, "verify": verify}
            answers.append(answer)
        return {"transfer": "multipart" if self.hub.part_size else "basic", "objects": answers}

    def on_upload(self, name: str, oid: str, part: str = "") -> object:
        repository = self.hub.repositories[name]
        if part:
            repository.objects[f"{oid}/{part}"] = self.body
        elif sha256(self.body) != oid:
            raise Refused(400, "BadDigest")
        else:
            repository.objects[oid] = self.body
        return 200, b"", {"ETag": f'"{blob_id(self.body)}"'}

    def on_complete(self, name: str, oid: str) -> object:
        repository = self.hub.repositories[name]
        parts = [repository.objects.pop(f"{oid}/{part['partNumber']}") for part in json.loads(self.body)["parts"]]
        if sha256(b"".join(parts)) != oid:
            raise Refused(400, "BadDigest")
        repository.objects[oid] = b"".join(parts)
        return {}

    def on_verify(self, name: str) -> object:
        asked = json.loads(self.body)
        stored = self.hub.repositories[name].objects.get(asked["oid"])
        if stored is None or len(stored) != asked["size"]:
            raise Refused(404, "Object not found")
        return {}

    def on_commit(self, name: str, revision: str) -> object:
        repository = self.writable(name)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        before = repository.find(revision)
        if before is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if header.get("parentCommit", before.oid) != before.oid:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files, large = dict(before.files), set(before.large)
        for line in lines[1:]:
            value = line["value"]
            path = value["path"]
            if line["key"] == "deletedFile":
                del files[path]
                large.discard(path)
                continue
            if line["key"] == "lfsFile":
                if value["oid"] not in repository.objects:
                    raise Refused(400, f"Your push was rejected: unknown object for {path}")
                files[path] = repository.objects[value["oid"]]
                large.add(path)
            else:
                files[path] = base64.b64decode(value["content"])
                large.discard(path)
        if self.fault is not None and self.fault.what == "corrupt":
            files = {path: content[:-1] + bytes([content[-1] ^ 1]) for path, content in files.items()}
        branch, request = revision, None
        if self.query.get("create_pr"):
            request = PullRequest(len(repository.requests) + 1, self.known().name, header["summary"])
            repository.requests.append(request)
            branch = f"refs/pr/{request.number}"
        commit = Commit(self.hub.next_oid(), files, header["summary"], before.oid, frozenset(large))
        self.hub.add_commit(repository, branch, commit)
        url = f"{self.hub.endpoint}/{'datasets/' if self.kind == 'datasets' else ''}{name}"
        return {
            "commitUrl": f"{url}/commit/{commit.oid}",
            "commitOid": commit.oid,
            "pullRequestUrl": f"{url}/discussions/{request.number}" if request else None,
        }

    def on_discussions(self, name: str) -> object:
        repository = self.visible(name)
        wanted = [
            each
            for each in repository.requests
            if self.query.get("author", each.author) == each.author
            and self.query.get("status", each.status) in (each.status, "all")
        ]
        found = [
            {
                "num": each.number,
                "title": each.title,
                "status": each.status,
                "author": {"name": each.author},
                "createdAt": "2026-01-01T00:00:00.000Z",
                "repo": {"name": name, "type": self.kind.removesuffix("s")},
                "isPullRequest": True,
            }
            for each in wanted
        ]
        return {"discussions": found, "count": len(found), "start": 0}

    def on_merge(self, name: str, number: str) -> object:
        repository = self.writable(name)
        repository.branches["main"] = repository.branches[f"refs/pr/{number}"]
        repository.requests[int(number) - 1].status = "merged"
        return {}

    # downloading

    def on_resolve(self, name: str, revision: str, path: str) -> object:
        repository = self.visible(name)
        if repository.gated and not self.owns(name):
            raise Refused(403, f"Access to model {name} is restricted", "GatedRepo")
        _, commit = self.commit_of(name, revision)
        if path not in commit.files:
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit.oid}
        content, about = commit.files[path], {"X-Repo-Commit": commit.oid}
        if path in commit.large:
            linked = {"X-Linked-ETag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            where = f"{self.hub.storage_endpoint}/storage/{name}/{sha256(content)}"
            return 302, b"", about | linked | {"Location": where}
        kind = self.kind
        where = f"/api/resolve-cache/{kind}/{name}/{commit.oid}/{urllib.parse.quote(path)}"
        return 307, b"", about | {"Location": where, "ETag": f'"{blob_id(content)}"'}

    def on_content(self, name: str, revision: str, path: str) -> object:
        _, commit = self.commit_of(name, revision)
        content = commit.files[path]
        return self._bytes(content, {"X-Repo-Commit": commit.oid, "ETag": f'"{blob_id(content)}"'})

    def on_storage(self, name: str, oid: str) -> object:
        found = [each.objects[oid] for each in self.hub.repositories.values() if oid in each.objects]
        return self._bytes(found[0], {"ETag": f'"{oid}"'})

    def _bytes(self, content: bytes, headers: dict[str, str]) -> object:
        if self.fault is not None and self.fault.what == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.command == "HEAD":
            return 200, b"", headers | {"Content-Length": str(len(content))}
        if asked:
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            piece = content[start : end + 1]
            return 206, piece, headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        return 200, content, headers

    def log_message(self, *_arguments: object) -> None:
        pass
