"""Ways to be broken by giving another answer than the right one."""

from __future__ import annotations

import gzip
import json
from typing import Any

from broken import Broken, length

BOMB = gzip.compress(bytes(16 << 20), 1)


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
