"""A broken registry while a version is pushed, or its tags are listed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry
from adapterhub_remotes.oci.remote import OciRemote

QUIET = Silent()


def length(body: bytes, headers: dict[str, str] | None = None) -> dict[str, str]:
    return {"Content-Length": str(len(body)), **(headers or {})}


def endless_pages(asked: Any, make_reply: Any) -> Any:
    page = len(asked.path)
    body = json.dumps({"name": "x", "tags": [f"t{page}"]}).encode()
    link = f'<{asked.path}x>; rel="next"'
    return make_reply(200, length(body, {"Link": link}), body)


def repeated_page(asked: Any, make_reply: Any) -> Any:
    body = b'{"name": "x", "tags": ["1"]}'
    return make_reply(200, length(body, {"Link": f'<{asked.path}>; rel="next"'}), body)


@pytest.mark.parametrize("answer", [endless_pages, repeated_page])
def test_a_list_of_tags_that_never_ends(
    answer: Callable[[Any, Any], Any], start_relay: Any, make_reply: Any, open_home: Any
) -> None:
    relay = start_relay(None)
    relay.instead = lambda asked: answer(asked, make_reply)
    receiver = open_home("receiver")
    remote = OciRemote(f"oci://127.0.0.1:{relay.port}/zoo")
    with pytest.raises(AdzError, match="a list that never ends") as caught:
        list(pull(receiver, remote, ["sql"], QUIET))
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert len(relay.asked) <= 200


def refuse_manifest(asked: Any, make_reply: Any) -> Any:
    is_manifest = asked.method == "PUT" and "/manifests/" in asked.path
    return make_reply(500, {"Content-Length": "0"}) if is_manifest else None


def refuse_uploads(asked: Any, make_reply: Any) -> Any:
    changes = asked.method in ("PATCH", "POST", "PUT")
    return make_reply(500, {"Content-Length": "0"}) if changes else None


def upload_elsewhere(asked: Any, make_reply: Any) -> Any:
    where = {"Location": "http://198.51.100.7/upload", "Content-Length": "0"}
    return make_reply(202, where) if asked.method == "POST" else None


def store_something_else(asked: Any, make_reply: Any) -> Any:
    headers = {"Content-Length": "0", "Docker-Content-Digest": f"sha256:{7:064x}"}
    return make_reply(201, headers) if asked.method == "PUT" else None


def publish_something_else(asked: Any, make_reply: Any) -> Any:
    return store_something_else(asked, make_reply) if "/manifests/" in asked.path else None


def forget_what_was_published(asked: Any, make_reply: Any) -> Any:
    if "/manifests/" in asked.path and asked.method == "PUT":
        return make_reply(201, {"Content-Length": "0"})
    return None


def out_of_space(asked: Any, make_reply: Any) -> Any:
    body = b'{"errors": [{"code": "DENIED", "message": "quota\\u001b[31m exceeded"}]}'
    return make_reply(413, length(body), body) if asked.method == "POST" else None


PUSHES = [
    (refuse_manifest, "answers 500, at 5 tries"),
    (refuse_uploads, "answers 500, at 5 tries"),
    (upload_elsewhere, "redirects to http://198.51.100.7"),
    (store_something_else, "instead of sha256:"),
    (publish_something_else, "is sha256:0000.* there, but sha256:"),
    (forget_what_was_published, "another version after the push"),
    (out_of_space, r"answers 413 \(DENIED quota \[31m exceeded\)"),
]


@pytest.mark.parametrize(("answer", "message"), PUSHES, ids=[c[0].__name__ for c in PUSHES])
def test_a_push_that_fails_publishes_nothing(
    answer: Callable[[Any, Any], Any],
    message: str,
    sender: Registry,
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    make_reply: Any,
) -> None:
    commit_small(sender, width=300)
    relay.instead = lambda asked: answer(asked, make_reply)
    with pytest.raises(AdzError, match=message) as caught:
        list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    relay.instead = lambda asked: None
    assert open_remote(relay.port).find("sql", "1") is None
    (result,) = push(sender, open_remote(relay.port), ["sql"], QUIET)
    assert result.action == "pushed"


@pytest.mark.parametrize(
    ("status", "headers", "requests"),
    [
        (500, {}, 5),
        (429, {"Retry-After": "0"}, 5),
        (307, {"Location": "/v2/again"}, 7),
        (400, {}, 1),
    ],
)
def test_how_often_a_server_is_asked(
    start_relay: Any, make_reply: Any, status: int, headers: dict[str, str], requests: int
) -> None:
    relay = start_relay(None)
    relay.instead = lambda asked: make_reply(status, {"Content-Length": "0", **headers})
    remote = OciRemote(f"oci://127.0.0.1:{relay.port}/zoo", pause=lambda seconds: None)
    with pytest.raises(AdzError):
        remote.find("sql", "1")
    assert len(relay.asked) == requests
