"""Answering a registry's `401`: basic authentication, or a bearer token from its token service."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

from adapterhub.errors import AdzError
from adapterhub_remotes.oci.address import follow
from adapterhub_remotes.oci.credentials import Credentials

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """A parsed `WWW-Authenticate` header."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenge(header: str) -> Challenge:
    """The scheme in lower case and the parameters of a challenge."""
    scheme, _, rest = header.strip().partition(" ")
    pairs = {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _PARAMETER.finditer(rest)}
    return Challenge(scheme.lower(), pairs)


class Authorizer:
    """The `Authorization` header for each scope, learnt from the registry's challenges.

    fetch: URL and headers -> the body of a token service's answer.
    """

    def __init__(
        self,
        origin: str,
        credentials: Credentials,
        fetch: Callable[[str, Mapping[str, str]], bytes],
    ) -> None:
        self._origin = origin
        self._credentials = credentials
        self._fetch = fetch
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        self._basic = ""

    def header(self, scope: str) -> str:
        """What to send with a request of this scope; empty before the first challenge."""
        return self._known.get(scope, self._basic)

    def answer(self, scope: str, header: str, sent: str) -> bool:
        """Learn what a `401` asks for; False where nothing better than `sent` can be given."""
        challenge = parse_challenge(header)
        with self._lock:
            if self.header(scope) != sent:
                # Another thread was faster.
                return True
            if challenge.scheme == "basic" and self._credentials and not sent:
                self._basic = self._credentials.basic
                return True
            if challenge.scheme == "bearer":
                token = self._token(challenge, scope)
                self._known[scope] = f"Bearer {token}"
                return True
        return False

    def refused(self, url: str) -> AdzError:
        """The error of a request that stays refused."""
        return AdzError(f"{self._origin} refuses {urlsplit(url).path}", self._credentials.hint)

    def _token(self, challenge: Challenge, scope: str) -> str:
        realm = follow(self._origin, self._origin, challenge.parameters.get("realm", ""))
        wanted = dict.fromkeys([*scope.split(), *challenge.parameters.get("scope", "").split()])
        query = [("scope", value) for value in wanted]
        if service := challenge.parameters.get("service"):
            query.insert(0, ("service", service))
        parts = urlsplit(realm)
        joined = "&".join(filter(None, (parts.query, urlencode(query))))
        url = urlunsplit(parts._replace(query=joined, fragment=""))
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        body = self._fetch(url, headers)
        try:
            answer = json.loads(body)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise AdzError(f"the token service {parts.hostname} gave no token")
        return token
