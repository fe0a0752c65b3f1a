"""A client that sends bytes, and patience."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


class Raw:
    """A client that sends what it is told, when it is told."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def head(self, *lines: str, path: str = "/v1/completions") -> None:
        self.send("\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]))

    def send_until_cut_off(self, pieces: Iterable[str | bytes], pause: float) -> bool:
        """Whether the server closed the connection before all was sent."""
        try:
            for piece in pieces:
                self.send(piece)
                time.sleep(pause)
        except OSError:
            return True
        return False

    def answer(self) -> str:
        """All that comes until the server closes."""
        text = b""
        while chunk := self.socket.recv(65536):
            text += chunk
        return text.decode(errors="replace")
