"""Uploading one blob: not at all where it is there, else in one stream that can be taken up."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord
from adapterhub.protocols import TransferInterruptedError
from adapterhub_remotes.oci.answer import Answer
from adapterhub_remotes.oci.session import Call, Session

_AT_ONCE = 1 << 20
_TRIES = 5
_RANGE = re.compile(r"(?:bytes=)?0-([1-9]\d*)")


class Upload:
    """One blob on its way into a repository.

    source: offset -> the bytes from there. sent: is told how many more bytes went.
    pause: waits for so many seconds between tries.
    """

    def __init__(
        self,
        session: Session,
        repository: str,
        record: FileRecord,
        source: Callable[[int], Iterator[bytes]],
        sent: Callable[[int], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session = session
        self._repository = repository
        self._record = record
        self._source = source
        self._sent = sent
        self._pause = pause
        self._location = ""
        self._offset = 0
        self._told = 0

    def run(self, other: str | None = None) -> None:
        """Bring the blob there. other: a repository that has it, to take it from if possible.

        After a break it goes on where the registry says that it is, or else begins again.
        """
        if self._begin(other):
            self._tell(self._record.size)
            return
        for number in range(_TRIES):
            try:
                self._send()
                self._tell(self._record.size)
                return
            except TransferInterruptedError as error:
                if number == _TRIES - 1:
                    raise AdzError(
                        f"{self._session.origin}: an upload broke off {_TRIES} times: "
                        f"{error.message}",
                        "nothing was published; the same command tries again",
                    ) from error
                self._pause(0.5 * 2**number)
                self._take_up()

    def _begin(self, other: str | None = None) -> bool:
        """Open an upload; True where the registry took the blob from `other` instead."""
        self._offset = 0
        url, scope = self._session.url(f"/v2/{self._repository}/blobs/uploads/"), self._scope
        if other is not None:
            url += f"?mount={quote(self._record.sha256, safe='')}&from={quote(other, safe='')}"
            scope += f" repository:{other}:pull"
        answer = self._session.request(Call("POST", url, scope), {201, 202})
        if answer.status == 201:
            return True
        self._move(answer)
        return False

    def _send(self) -> None:
        size = self._record.size
        if size > _AT_ONCE:
            while self._offset < size:
                answer = self._call("PATCH", self._location, self._offset, {201, 202, 204})
                self._move(answer)
                end = _RANGE.fullmatch(answer.headers.get("Range", ""))
                self._offset = int(end[1]) + 1 if end else size
        begin = self._offset
        joint = "&" if "?" in self._location else "?"
        url = f"{self._location}{joint}digest={quote(self._record.sha256, safe='')}"
        answer = self._call("PUT", url, begin, {201, 202, 204})
        given = answer.headers.get("Docker-Content-Digest", self._record.sha256)
        if given != self._record.sha256:
            raise AdzError(
                f"{self._session.origin} stored {given[:19]} instead of {self._record.sha256[:19]}",
                "nothing was published",
                exit_code=EXIT_VERIFICATION,
            )

    def _call(self, method: str, url: str, begin: int, expected: Iterable[int]) -> Answer:
        count = self._record.size - begin
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(count)}
        if method == "PATCH":
            headers["Content-Range"] = f"{begin}-{self._record.size - 1}"
        call = Call(method, url, self._scope, headers, lambda: self._body(begin))
        return self._session.request_once(call, set(expected))

    def _body(self, begin: int) -> Iterator[bytes]:
        position = begin
        for chunk in self._source(begin):
            yield chunk
            position += len(chunk)
            self._tell(position)

    def _take_up(self) -> None:
        call = Call("GET", self._location, self._scope)
        answer = self._session.request(call, range(200, 500))
        end = _RANGE.fullmatch(answer.headers.get("Range", ""))
        # '0-0' is one byte or none: nobody can tell.
        if answer.status not in (200, 202, 204) or end is None:
            self._begin()
            return
        self._move(answer)
        self._offset = int(end[1]) + 1

    def _move(self, answer: Answer) -> None:
        location = answer.headers.get("Location", "")
        if location:
            self._location = self._session.url(location, answer.url)

    def _tell(self, position: int) -> None:
        # What is sent twice counts once.
        if position > self._told:
            self._sent(position - self._told)
            self._told = position

    @property
    def _scope(self) -> str:
        return f"repository:{self._repository}:pull,push"
