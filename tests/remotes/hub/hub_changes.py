"""The requests that change what a Hub holds."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import yaml
from hub_answers import Answer, error
from hub_repository import LARGE, Entry, Repository

if TYPE_CHECKING:
    from hub_server import Handler


def create(handler: Handler, *, body: bytes, **_: Any) -> None:
    handler.check_token()
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if asked["organization"] == "forbidden":
        raise error(403, 'You don\'t have the rights to create a model under "forbidden"')
    url = f"{handler.hub.url}/{name}"
    if name in handler.hub.repositories:
        raise Answer(409, {"error": "You already created this model repo", "url": url})
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    repo = handler.hub.repositories[name] = Repository(private)
    repo.commit("main", {".gitattributes": Entry(b"*.safetensors filter=lfs\n")}, None)
    raise Answer(200, {"url": url, "name": name, "id": "1"})


def tag(handler: Handler, name: str, revision: str, *, body: bytes, **_: Any) -> None:
    repo = handler.repository(name, write=True)
    if handler.command == "DELETE":
        if repo.tags.pop(revision, None) is None:
            raise error(404, f"no tag {revision}", "RevisionNotFound")
        raise Answer(200)
    tag, sha = json.loads(body)["tag"], repo.resolve(revision)
    if sha is None:
        raise error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    if tag in repo.tags:
        raise error(409, f"Tag refs/tags/{tag} already exists")
    repo.tags[tag] = sha
    raise Answer(200)


def branch(handler: Handler, name: str, branch: str, *, body: bytes, **_: Any) -> None:
    repo = handler.repository(name, write=True)
    if handler.command == "DELETE":
        if branch == "main" or repo.branches.pop(branch, None) is None:
            raise error(404, f"no branch {branch}", "RevisionNotFound")
        # What neither a branch nor a tag leads to is gone.
        repo.commits = {sha: repo.commits[sha] for sha in repo.reachable()}
        raise Answer(200)
    if branch in repo.branches:
        raise error(409, f"Reference refs/heads/{branch} already exists")
    start = repo.resolve(json.loads(body).get("startingPoint", "main"))
    assert start is not None
    repo.branches[branch] = start
    raise Answer(200)


def preupload(handler: Handler, name: str, revision: str, *, body: bytes, **_: Any) -> None:
    handler.repository(name, write=True)
    _, tree = handler.tree(name, revision)
    files = []
    for asked in json.loads(body)["files"]:
        there = tree.get(asked["path"])
        files.append(
            {
                "path": asked["path"],
                "uploadMode": "lfs" if asked["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": (there.sha256 if there.large else there.oid) if there else None,
            }
        )
    raise Answer(200, {"files": files})


def batch(handler: Handler, name: str, *, body: bytes, **_: Any) -> None:
    handler.repository(name, write=True)
    objects = []
    for asked in json.loads(body)["objects"]:
        answer = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in handler.hub.large:
            href = f"{handler.hub.url}/storage/{asked['oid']}"
            answer["actions"] = {"upload": {"href": href}}
        objects.append(answer)
    raise Answer(200, {"transfer": "basic", "objects": objects})


def commit(handler: Handler, name: str, branch: str, *, body: bytes, **_: Any) -> None:
    hub = handler.hub
    repo = handler.repository(name, write=True)
    if hub.before_commit is not None:
        action, hub.before_commit = hub.before_commit, None
        action()
    lines = [json.loads(line) for line in body.splitlines()]
    assert lines[0]["key"] == "header"
    head = repo.branches.get(branch)
    if head is None:
        raise error(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    parent = lines[0]["value"].get("parentCommit")
    if parent is not None and parent != head:
        raise error(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(repo.commits[head])
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            tree[value["path"]] = Entry(base64.b64decode(value["content"]))
        elif line["key"] == "lfsFile":
            if value["oid"] not in hub.large:
                raise error(400, f"the large file {value['oid']} was not uploaded")
            tree[value["path"]] = Entry(hub.large[value["oid"]], large=True)
        elif line["key"] == "deletedFile":
            if tree.pop(value["path"], None) is None:
                raise error(400, f"no file {value['path']} to delete")
        else:
            raise error(400, f"unknown operation {line['key']}")
    sha = repo.commit(branch, tree, head)
    url = f"{hub.url}/{name}/commit/{sha}"
    raise Answer(200, {"success": True, "commitOid": sha, "commitUrl": url})


def validate(handler: Handler, *, body: bytes, **_: Any) -> None:
    block = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
    try:
        values = yaml.safe_load(block[1]) if block else {}
        if not isinstance(values.get("tags", []), list):
            raise ValueError('"tags" must be an array')
    except (ValueError, yaml.YAMLError) as error:
        raise Answer(400, {"errors": [{"message": str(error)}]}) from error
    raise Answer(200, {"errors": [], "warnings": []})
