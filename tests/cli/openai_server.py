"""A server of the OpenAI API that says what it heard."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = ("base", "sql", "sql@1", "french")


@dataclass
class Heard:
    """`requests`: the bodies; `busy`: answers of 429 to come; `most`: largest number at once."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    busy: int = 0
    now: int = 0
    most: int = 0
    left: threading.Event = field(default_factory=threading.Event)


def text_of(body: dict[str, Any]) -> str:
    """What the server answers to a request."""
    if "prompt" in body:
        return f"<{body['model']}> {body['prompt']}"
    turns = " / ".join(f"{turn['role']}: {turn['content']}" for turn in body["messages"])
    return f"<{body['model']}> {turns}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    heard: Heard

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, value: Any, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        cards = [{"id": model, "object": "model"} for model in MODELS]
        self.reply(200, {"object": "list", "data": cards})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.requests.append(body)
        self.heard.now += 1
        self.heard.most = max(self.heard.most, self.heard.now)
        try:
            self.answer(body)
        finally:
            self.heard.now -= 1

    def answer(self, body: dict[str, Any]) -> None:
        text = text_of(body)
        if self.heard.busy:
            self.heard.busy -= 1
            self.reply(429, {"error": {"message": "full"}}, retry_after="0")
        elif "refuse" in text.rpartition(":")[2]:
            self.reply(422, {"error": {"message": "it is damaged"}})
        elif "prompt" in body:
            # The earlier ones take longer, so that only order puts them first.
            time.sleep(0.2 / len(self.heard.requests))
            choice = {"index": 0, "text": text, "finish_reason": "stop"}
            self.reply(200, {"model": f"{body['model']}@1", "choices": [choice]})
        else:
            self.stream(f"{body['model']}@1", text, forever="forever" in text)

    def stream(self, model: str, text: str, *, forever: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self.piece(model, text)
            while forever:
                time.sleep(0.02)
                self.piece(model, ".")
            self.piece(model, "", "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.heard.left.set()

    def piece(self, model: str, text: str, finish: str | None = None) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
        event = {"id": "x", "model": model, "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()


@contextmanager
def serving() -> Iterator[Heard]:
    """Run it on a free port."""
    heard = Heard()
    handler = type("Handler", (_Handler,), {"heard": heard})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    heard.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
