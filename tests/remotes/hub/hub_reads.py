"""The requests that read what a Hub holds, and the storage of large files behind a redirect to
another host name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from hub_answers import TOKEN, Answer, content, error, range_of
from hub_repository import Entry

if TYPE_CHECKING:
    from hub_server import Handler


def refs(handler: Handler, name: str, **_: Any) -> None:
    repo = handler.repository(name)

    def refs(kind: str, found: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in found.items()
        ]

    answer = {"branches": refs("heads", repo.branches), "tags": refs("tags", repo.tags)}
    raise Answer(200, {**answer, "converts": []})


def storage(handler: Handler, oid: str, *, body: bytes, **_: Any) -> None:
    hub = handler.hub
    if handler.command == "PUT":
        if hashlib.sha256(body).hexdigest() != oid:
            raise error(400, "the bytes are others")
        hub.large[oid] = body
        raise Answer(200)
    hub.tokens_at_storage.append(handler.token)
    data = hub.large[oid]
    if hub.breaks and hub.break_after is not None and handler.command == "GET":
        hub.breaks -= 1
        start, _ = range_of(handler, data)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + hub.break_after])
        handler.close_connection = True
        return
    handler.send(content(handler, data, {"ETag": f'"{oid}"'}))


def _describe(path: str, entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(entry.data),
        "oid": entry.oid,
    }
    if entry.large:
        described["lfs"] = {"oid": entry.sha256, "size": len(entry.data), "pointerSize": 134}
    return described


def tree(
    handler: Handler, name: str, revision: str, *, query: dict[str, list[str]], **_: Any
) -> None:
    _, tree = handler.tree(name, revision)
    is_recursive = query.get("recursive", ["false"])[0].lower() == "true"
    folders = {path.rpartition("/")[0] for path in tree if "/" in path}
    found = [{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in sorted(folders)]
    shown = {path: entry for path, entry in tree.items() if is_recursive or "/" not in path}
    raise Answer(200, [*found, *(_describe(path, entry) for path, entry in shown.items())])


def paths_info(handler: Handler, name: str, revision: str, *, body: bytes, **_: Any) -> None:
    _, tree = handler.tree(name, revision)
    asked = parse_qs(body.decode())["paths"]
    raise Answer(200, [_describe(path, tree[path]) for path in asked if path in tree])


def resolve(handler: Handler, name: str, revision: str, path: str, **_: Any) -> None:
    sha, tree = handler.tree(name, revision)
    entry = tree.get(path)
    headers = {"X-Repo-Commit": sha}
    if entry is None:
        message = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        raise Answer(404, {"error": "Entry not found"}, {**headers, **message})
    if not entry.large:
        raise content(handler, entry.data, {**headers, "ETag": f'"{entry.oid}"'})
    storage = handler.hub.url.replace("127.0.0.1", "localhost")
    headers |= {
        "Location": f"{storage}/storage/{entry.sha256}",
        "X-Linked-Size": str(len(entry.data)),
        "X-Linked-ETag": f'"{entry.sha256}"',
    }
    raise Answer(302, b"", headers)


def info(handler: Handler, name: str, revision: str | None = None, **_: Any) -> None:
    sha, tree = handler.tree(name, revision or "main")
    siblings = [{"rfilename": path, "size": len(entry.data)} for path, entry in tree.items()]
    raise Answer(200, {"id": name, "sha": sha, "private": False, "siblings": siblings, "tags": []})


def models(handler: Handler, *, query: dict[str, list[str]], **_: Any) -> None:
    found = []
    for name, repo in handler.hub.repositories.items():
        siblings = [{"rfilename": path} for path in repo.commits[repo.branches["main"]]]
        visible = not repo.private or handler.token == TOKEN
        if visible and name.startswith(query["author"][0] + "/"):
            more = {"siblings": siblings} if "full" in query else {}
            found.append({"id": name, "private": repo.private, **more})
    raise Answer(200, found)
