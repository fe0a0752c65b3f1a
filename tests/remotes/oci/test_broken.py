"""A broken remote: a relay in front of a right registry that breaks one thing at a time.

Each row of `CASES` is one way to be broken while a version is pulled. Each must be noticed, and
leave nothing: one clear line, no version, no blob, no staging folder.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_FAILED, EXIT_VERIFICATION, AdzError
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.manifest import Version, canonical_json, sha256_of
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry
from adapterhub_remotes.oci.remote import OciRemote

QUIET = Silent()
IMAGE = "application/vnd.oci.image.manifest.v1+json"
TIMEOUT_SECONDS = 0.4
BOMB = gzip.compress(bytes(16 << 20), 1)


@dataclass(frozen=True)
class Broken:
    """What a case needs to break an answer: the request, the right answer, the version."""

    asked: Any
    reply: Any
    version: Version
    relay: Any
    make_reply: Any

    @property
    def is_weights(self) -> bool:
        return self.version.manifest.files["adapter_model.safetensors"].sha256 in self.asked.path

    @property
    def is_config(self) -> bool:
        return self.version.digest in self.asked.path

    @property
    def is_image(self) -> bool:
        return "/manifests/" in self.asked.path

    def image(self, **changes: Any) -> Any:
        """The image manifest with changes, under its right digest."""
        body = canonical_json(json.loads(self.reply.body) | changes)
        return self.make_reply(200, length(body, {"Content-Type": IMAGE}), body)

    def other_manifest(self, **changes: Any) -> Any:
        """The answer to a consistent lie: another config blob, and an image that names it."""
        value = json.loads(self.version.manifest.canonical()) | changes
        body = canonical_json(value)
        if self.is_image:
            config = json.loads(self.reply.body)["config"]
            config |= {"digest": sha256_of(body), "size": len(body)}
            return self.image(config=config)
        if sha256_of(body) in self.asked.path:
            return self.make_reply(200, length(body), body)
        return None


def length(body: bytes, headers: dict[str, str] | None = None) -> dict[str, str]:
    return {"Content-Length": str(len(body)), **(headers or {})}


def flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def flip_weights(b: Broken) -> Any:
    return b.make_reply(200, b.reply.headers, flipped(b.reply.body)) if b.is_weights else None


def flip_config(b: Broken) -> Any:
    return b.make_reply(200, b.reply.headers, flipped(b.reply.body)) if b.is_config else None


def flip_image(b: Broken) -> Any:
    return b.make_reply(200, b.reply.headers, flipped(b.reply.body)) if b.is_image else None


def wrong_digest_header(b: Broken) -> Any:
    if b.is_image:
        headers = b.reply.headers | {"Docker-Content-Digest": f"sha256:{7:064x}"}
        return b.make_reply(200, headers, b.reply.body)
    return None


def short_body(b: Broken) -> Any:
    """The connection ends before the length that the header promised."""
    if b.is_weights:
        return b.make_reply(b.reply.status, b.reply.headers, b.reply.body[:100])
    return None


def short_and_says_so(b: Broken) -> Any:
    if b.is_weights:
        return b.make_reply(200, length(b"x" * 100), b"x" * 100)
    return None


def empty_body(b: Broken) -> Any:
    return b.make_reply(200, {"Content-Length": "0"}) if b.is_weights else None


def length_too_small(b: Broken) -> Any:
    if b.is_weights:
        return b.make_reply(200, b.reply.headers | {"Content-Length": "1000"}, b.reply.body)
    return None


def one_byte_more(b: Broken) -> Any:
    if b.is_weights:
        body = b.reply.body + b"x"
        return b.make_reply(200, length(body), body)
    return None


def forever() -> Iterator[bytes]:
    while True:
        yield b"x" * 65536


def endless_weights(b: Broken) -> Any:
    return b.make_reply(200, {}, forever()) if b.is_weights else None


def endless_image(b: Broken) -> Any:
    return b.make_reply(200, {"Content-Type": IMAGE}, forever()) if b.is_image else None


def endless_config(b: Broken) -> Any:
    return b.make_reply(200, {}, forever()) if b.is_config else None


def huge_json(b: Broken) -> Any:
    body = b'{"x":"' + b"y" * (2 << 20) + b'"}'
    return b.make_reply(200, length(body, {"Content-Type": IMAGE}), body) if b.is_image else None


def deep_json(b: Broken) -> Any:
    body = b"[" * 500_000
    return b.make_reply(200, length(body, {"Content-Type": IMAGE}), body) if b.is_image else None


def silent_weights(b: Broken) -> Any:
    """Nothing comes for longer than the time limit."""

    def body() -> Iterator[bytes]:
        yield b.reply.body[:10]
        time.sleep(3 * TIMEOUT_SECONDS)

    return b.make_reply(200, length(b.reply.body), body()) if b.is_weights else None


def trickle(b: Broken) -> Any:
    def body() -> Iterator[bytes]:
        for at in range(len(b.reply.body)):
            time.sleep(0.02)
            yield b.reply.body[at : at + 1]

    return b.make_reply(200, length(b.reply.body), body()) if b.is_weights else None


def trickling_image(b: Broken) -> Any:
    def body() -> Iterator[bytes]:
        for at in range(len(b.reply.body)):
            time.sleep(0.02)
            yield b.reply.body[at : at + 1]

    return b.make_reply(200, length(b.reply.body), body()) if b.is_image else None


def silent_image(b: Broken) -> Any:
    if b.is_image:
        time.sleep(3 * TIMEOUT_SECONDS)
    return None


def always_500(b: Broken) -> Any:
    return b.make_reply(500, {"Content-Length": "0"})


def weights_503(b: Broken) -> Any:
    return b.make_reply(503, {"Content-Length": "0"}) if b.is_weights else None


def too_many_requests(b: Broken) -> Any:
    return b.make_reply(429, {"Content-Length": "0", "Retry-After": "0"})


def come_back_tomorrow(b: Broken) -> Any:
    return b.make_reply(429, {"Content-Length": "0", "Retry-After": "86400"})


def hang_up(b: Broken) -> Any:
    return b.make_reply(200, {"Content-Length": "100"}, b"") if b.is_image else None


def no_http(b: Broken) -> Any:
    return b.make_reply(200, {"bad header": "x\r\n\0: y"}, b"") if b.is_image else None


def lost_weights(b: Broken) -> Any:
    return b.make_reply(404, {"Content-Length": "0"}) if b.is_weights else None


def lost_config(b: Broken) -> Any:
    return b.make_reply(404, {"Content-Length": "0"}) if b.is_config else None


def wrong_range(b: Broken) -> Any:
    """The second part of the file begins elsewhere than was asked."""
    if b.is_weights and "range" not in b.asked.headers:
        return b.make_reply(200, length(b.reply.body), b.reply.body[:2000])
    if b.is_weights:
        headers = length(b"x" * 500, {"Content-Range": "bytes 0-499/1600"})
        return b.make_reply(206, headers, b"x" * 500)
    return None


def gzip_weights(b: Broken) -> Any:
    if b.is_weights:
        body = gzip.compress(b.reply.body)
        return b.make_reply(200, length(body, {"Content-Encoding": "gzip"}), body)
    return None


def gzip_bomb(b: Broken) -> Any:
    if b.is_image:
        return b.make_reply(200, length(BOMB, {"Content-Encoding": "gzip"}), BOMB)
    return None


def redirect_loop(b: Broken) -> Any:
    if b.is_weights:
        return b.make_reply(307, {"Location": b.asked.path, "Content-Length": "0"})
    return None


def redirect_without_tls(b: Broken) -> Any:
    where = {"Location": "http://198.51.100.7/blob", "Content-Length": "0"}
    return b.make_reply(302, where) if b.is_weights else None


def redirect_to_file(b: Broken) -> Any:
    where = {"Location": "file:///etc/passwd", "Content-Length": "0"}
    return b.make_reply(302, where) if b.is_weights else None


def redirect_nowhere(b: Broken) -> Any:
    where = {"Location": "http://[", "Content-Length": "0"}
    return b.make_reply(302, where) if b.is_image else None


def redirect_to_no_host(b: Broken) -> Any:
    where = {"Location": "https://a%20b\u00fc..c/", "Content-Length": "0"}
    return b.make_reply(302, where) if b.is_image else None


def escaping_file_name(b: Broken) -> Any:
    record = {"sha256": f"sha256:{1:064x}", "size": 3}
    return b.other_manifest(files={"../x": record})


def another_name(b: Broken) -> Any:
    return b.other_manifest(name="other")


def another_number(b: Broken) -> Any:
    return b.other_manifest(version=2)


def no_image(b: Broken) -> Any:
    body = b"<html>Please log in</html>"
    headers = length(body, {"Content-Type": "text/html"})
    return b.make_reply(200, headers, body) if b.is_image else None


def image_of_another_kind(b: Broken) -> Any:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": "x"}
    return b.image(config=config) if b.is_image else None


def config_too_large(b: Broken) -> Any:
    if b.is_image:
        return b.image(config=json.loads(b.reply.body)["config"] | {"size": 1 << 40})
    return None


def config_of_negative_size(b: Broken) -> Any:
    if b.is_image:
        return b.image(config=json.loads(b.reply.body)["config"] | {"size": -1})
    return None


def digest_that_is_a_path(b: Broken) -> Any:
    if b.is_image:
        config = json.loads(b.reply.body)["config"] | {"digest": "sha256:../../../etc/passwd"}
        return b.image(config=config)
    return None


def token_service_without_tls(b: Broken) -> Any:
    challenge = 'Bearer realm="http://198.51.100.7/token",service="x"'
    return b.make_reply(401, {"WWW-Authenticate": challenge, "Content-Length": "0"})


def token_service_that_lies(b: Broken) -> Any:
    if b.asked.path.startswith("/token"):
        body = b'{"token": "a\\r\\nX-Injected: yes"}'
        return b.make_reply(200, length(body), body)
    challenge = f'Bearer realm="http://127.0.0.1:{b.relay.port}/token",service="x"'
    return b.make_reply(401, {"WWW-Authenticate": challenge, "Content-Length": "0"})


def token_that_does_not_help(b: Broken) -> Any:
    if b.asked.path.startswith("/token"):
        return b.make_reply(200, length(b'{"token":"t"}'), b'{"token":"t"}')
    challenge = f'Bearer realm="http://127.0.0.1:{b.relay.port}/token",service="x"'
    return b.make_reply(401, {"WWW-Authenticate": challenge, "Content-Length": "0"})


V, F = EXIT_VERIFICATION, EXIT_FAILED
CASES: list[tuple[Callable[[Broken], Any], int, str]] = [
    (flip_weights, V, "its bytes are not those of sha256:"),
    (flip_config, V, "has other bytes than its digest says"),
    (flip_image, V, "which the registry says that it is"),
    (wrong_digest_header, V, "which the registry says that it is"),
    (short_body, F, "broke off at"),
    (short_and_says_so, F, "broke off at 100 of"),
    (empty_body, F, "broke off at 0 of"),
    (length_too_small, F, "broke off at 1000 of"),
    (one_byte_more, V, "is longer than its"),
    (endless_weights, V, "is longer than its"),
    (endless_image, V, "larger than 1 MiB"),
    (endless_config, V, "larger than 1 MiB"),
    (huge_json, V, "larger than 1 MiB"),
    (deep_json, V, "not a JSON object"),
    (silent_weights, F, "broke off at .* does not answer in time"),
    (trickle, F, "slower than 1024 bytes a second"),
    (trickling_image, F, "does not end within"),
    (silent_image, F, "does not answer in time"),
    (always_500, F, "the server answers 500, at 5 tries"),
    (weights_503, F, "the server answers 503, at 5 tries"),
    (too_many_requests, F, "the server answers 429, at 5 tries"),
    (come_back_tomorrow, F, "asks to wait 86400 seconds"),
    (hang_up, F, "cannot be used"),
    (no_http, F, "cannot be used"),
    (lost_weights, V, "has lost adapter_model.safetensors"),
    (lost_config, F, "answers 404"),
    (wrong_range, F, "sent another part"),
    (gzip_weights, V, "encoded as 'gzip'"),
    (gzip_bomb, V, "encoded as 'gzip'"),
    (redirect_loop, F, "redirects more than"),
    (redirect_without_tls, F, "redirects to http://198.51.100.7"),
    (redirect_to_file, F, "redirects to file://"),
    (redirect_nowhere, F, "redirects to what is no URL"),
    (redirect_to_no_host, F, "redirects to what is no URL"),
    (escaping_file_name, V, "'../x' is not allowed"),
    (another_name, V, "with the manifest of other@1"),
    (another_number, V, "with the manifest of sql@2"),
    (no_image, V, "not a JSON object"),
    (image_of_another_kind, V, "is no adapter"),
    (config_too_large, V, "larger than 1 MiB"),
    (config_of_negative_size, V, "larger than 1 MiB"),
    (digest_that_is_a_path, V, "without a sha256 digest"),
    (token_service_without_tls, F, "redirects to http://198.51.100.7"),
    (token_service_that_lies, F, "gave no token"),
    (token_that_does_not_help, F, "refuses /v2/"),
]


@pytest.fixture(scope="module")
def stock() -> dict[str, Version]:
    """The version that the registry holds for all cases, once it was pushed."""
    return {}


@pytest.fixture
def version(
    stock: dict[str, Version], sender: Registry, commit_small: Any, registry_port: int
) -> Version:
    if "sql" not in stock:
        stock["sql"] = commit_small(sender, width=300)
        list(push(sender, OciRemote(f"oci://127.0.0.1:{registry_port}/broken"), ["sql"], QUIET))
    return stock["sql"]


@pytest.mark.parametrize(("case", "code", "message"), CASES, ids=[c[0].__name__ for c in CASES])
def test_what_is_broken_is_noticed_and_leaves_nothing(
    case: Callable[[Broken], Any],
    code: int,
    message: str,
    version: Version,
    open_home: Callable[[str], Registry],
    relay: Any,
    make_reply: Any,
    quick: Any,
) -> None:
    def instead(asked: Any) -> Any:
        reply = relay.forward(asked)
        return case(Broken(asked, reply, version, relay, make_reply)) or reply

    relay.instead = instead
    receiver = open_home("receiver")
    url = f"oci://127.0.0.1:{relay.port}/broken"
    remote = OciRemote(url, timeout_seconds=TIMEOUT_SECONDS, pause=lambda seconds: None)
    with pytest.raises(AdzError, match=message) as caught:
        list(pull(receiver, remote, ["sql@1"], QUIET, bounds=quick))
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    home = Path(os.environ["ADZ_HOME"])
    assert receiver.names() == []
    assert list((home / "registry" / "blobs" / "sha256").iterdir()) == []
    assert list((home / "staging").glob("*")) == []
    # And when the remote is whole again, the same command succeeds.
    relay.instead = lambda asked: None
    (result,) = pull(receiver, OciRemote(url), ["sql@1"], QUIET, bounds=quick)
    assert result.digest == version.digest
