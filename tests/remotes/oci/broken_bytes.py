"""Ways to be broken while the right answer is sent: other bytes, fewer, more, none, too late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from broken import IMAGE, TIMEOUT_SECONDS, Broken, length


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
