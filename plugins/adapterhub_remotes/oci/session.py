"""Requests to one registry: bounded, tried again, authorised, and never led astray."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx2

from adapterhub import __version__
from adapterhub.errors import AdzError
from adapterhub.protocols import TransferInterruptedError
from adapterhub_remotes.oci.address import Address, follow, origin_of
from adapterhub_remotes.oci.answer import Answer, check_plain, read_small, unexpected
from adapterhub_remotes.oci.credentials import Credentials
from adapterhub_remotes.oci.tokens import Authorizer

T = TypeVar("T")

_TRIES = 5
_REDIRECTS = 5
_LONGEST_PAUSE = 30.0
_BUSY = {408, 429, 500, 502, 503, 504}
_REDIRECTING = {301, 302, 303, 307, 308}


@dataclass(frozen=True, slots=True)
class Call:
    """One request. scope: the rights that it needs, such as `repository:zoo/sql:pull,push`, with
    a space between two.

    content: gives the body, anew for each time that it is sent.
    """

    method: str
    url: str
    scope: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Callable[[], bytes | Iterable[bytes]] | None = None


class _BusyError(Exception):
    """The server asks to come again; `seconds` where it says when."""

    def __init__(self, status: int, seconds: float | None) -> None:
        super().__init__(f"the server answers {status}")
        self.seconds = seconds


class Session:
    """Speaks HTTP with one registry. Its methods may be called from several threads.

    timeout_seconds: how long a connection, or a single read or write, may hang; a small answer
    may take twice as long in all, and storing what was sent ten times as long. pause: waits for
    so many seconds between tries.
    """

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        timeout_seconds: float,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.origin = address.origin
        self._pause = pause
        self._timeout = httpx2.Timeout(timeout_seconds)
        self._storing = httpx2.Timeout(timeout_seconds, read=10 * timeout_seconds)
        self._answer_seconds = 2 * timeout_seconds
        self._own = origin_of(address.origin)
        self._authorizer = Authorizer(address.origin, credentials, self._fetch_token)
        self._client = httpx2.Client(
            # A proxy is for what lies outside. A cookie would follow a redirect to another port.
            trust_env=not address.is_loopback,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=self._timeout,
            headers={"User-Agent": f"adapterhub/{__version__}", "Accept-Encoding": "identity"},
        )

    def url(self, location: str, base: str = "") -> str:
        """The absolute URL of a path, or of what a `Location` or `Link` header names."""
        return follow(self.origin, base or self.origin, location)

    def request(self, call: Call, expected: Container[int]) -> Answer:
        """Send and return the small answer, whose status is an expected one."""

        def attempt() -> Answer:
            with self._sent(call) as response:
                self._check_busy(response)
                return self._answer(call, response)

        answer = self._retrying(attempt)
        if answer.status not in expected:
            raise unexpected(answer)
        return answer

    def request_once(self, call: Call, expected: Container[int]) -> Answer:
        """The same without another try, for a body that cannot be sent twice. Raises
        TransferInterruptedError where the connection or the server failed on the way."""
        try:
            with self._sent(call) as response:
                self._check_busy(response)
                answer = self._answer(call, response)
        except (httpx2.TransportError, _BusyError) as error:
            raise TransferInterruptedError(_reason(error)) from error
        if answer.status not in expected:
            raise unexpected(answer)
        return answer

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx2.Response]:
        """Send and yield the response, to read its body from. A body that breaks off raises
        TransferInterruptedError."""
        with ExitStack() as stack:

            def attempt() -> httpx2.Response:
                response = stack.enter_context(self._sent(call))
                if response.status_code in _BUSY:
                    stack.close()
                self._check_busy(response)
                return response

            response = self._retrying(attempt)
            check_plain(response, call.url)
            try:
                yield response
            except httpx2.TransportError as error:
                raise TransferInterruptedError(_reason(error)) from error

    def _retrying(self, attempt: Callable[[], T]) -> T:
        for number in range(1, _TRIES + 1):
            try:
                return attempt()
            except (httpx2.TransportError, _BusyError) as error:
                if number == _TRIES:
                    raise AdzError(
                        f"{self.origin} cannot be used: {_reason(error)}, at {_TRIES} tries",
                        "is the address right, and the registry up?",
                    ) from error
                self._pause(self._delay(error, number))
        raise AssertionError("the last try returns or raises")

    def _delay(self, error: Exception, number: int) -> float:
        asked = error.seconds if isinstance(error, _BusyError) else None
        if asked is None:
            # Not all at once: those who were turned away together would come back together.
            return 0.5 * 2.0 ** (number - 1) * random.uniform(1, 1.5)  # noqa: S311
        if asked > _LONGEST_PAUSE:
            raise AdzError(
                f"{self.origin} asks to wait {asked:.0f} seconds", "try again then"
            ) from error
        return asked

    def _check_busy(self, response: httpx2.Response) -> None:
        if response.status_code in _BUSY:
            after = response.headers.get("Retry-After", "")
            raise _BusyError(response.status_code, float(after) if after.isdecimal() else None)

    def _answer(self, call: Call, response: httpx2.Response) -> Answer:
        body = (
            b"" if call.method == "HEAD" else read_small(response, call.url, self._answer_seconds)
        )
        return Answer(response.status_code, response.headers, body, call.url)

    @contextmanager
    def _sent(self, call: Call) -> Iterator[httpx2.Response]:
        """The response after redirects, and after the registry was told who we are."""
        url, answered = call.url, False
        for _ in range(_REDIRECTS + 2):
            own = origin_of(url) == self._own
            header = self._authorizer.header(call.scope) if own else ""
            response = self._send(call, url, header)
            try:
                status = response.status_code
                if own and status == 401 and not answered:
                    challenge = response.headers.get("WWW-Authenticate", "")
                    answered = self._authorizer.answer(call.scope, challenge, header)
                    if answered:
                        continue
                if own and status in (401, 403):
                    raise self._authorizer.refused(url)
                if status in _REDIRECTING and call.method in ("GET", "HEAD"):
                    url = follow(self.origin, url, response.headers.get("Location", ""))
                    continue
                yield response
                return
            finally:
                response.close()
        raise AdzError(f"{call.url[:200]} redirects more than {_REDIRECTS} times")

    def _send(self, call: Call, url: str, authorization: str) -> httpx2.Response:
        headers = dict(call.headers)
        if authorization:
            headers["Authorization"] = authorization
        content = call.content() if call.content else None
        timeout = self._storing if call.content else self._timeout
        try:
            request = self._client.build_request(
                call.method, url, headers=headers, content=content, timeout=timeout
            )
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise AdzError(f"{self.origin} redirects to what is no URL: {url[:100]!r}") from error
        return self._client.send(request, stream=True, follow_redirects=False)

    def _fetch_token(self, url: str, headers: Mapping[str, str]) -> bytes:
        def attempt() -> Answer:
            request = self._client.build_request("GET", url, headers=dict(headers))
            response = self._client.send(request, stream=True, follow_redirects=False)
            try:
                self._check_busy(response)
                body = read_small(response, url, self._answer_seconds)
            finally:
                response.close()
            return Answer(response.status_code, response.headers, body, url)

        answer = self._retrying(attempt)
        if answer.status in (401, 403):
            raise self._authorizer.refused(url)
        if answer.status != 200:
            raise unexpected(answer)
        return answer.body


def _reason(error: Exception) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return "it does not answer in time"
    text = " ".join(str(error).split())
    return text or type(error).__name__
