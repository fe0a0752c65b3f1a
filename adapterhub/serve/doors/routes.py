"""What a client may reach. A route that is not listed here does not exist for clients, so an
engine's own management routes are off, and so are those that its next release brings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from adapterhub.serve.errors import RequestError


class Kind(Enum):
    """Who may use a route, and what its request says."""

    OPEN = "everybody"
    LIST = "who has a key; what it may not use is left out"
    MODEL = "who has a key for the `model` of the JSON body"
    SERVER = "who has a key for every model"


@dataclass(frozen=True, slots=True)
class Route:
    """One path and its method."""

    method: str
    kind: Kind


# Left out on purpose: /invocations takes the model from a header, /v1/responses/ID answers what
# others asked, /v1/load_lora_adapter and /adapters take paths, and the rest changes the engine.
_ROUTES = {
    "/health": Route("GET", Kind.OPEN),
    "/ready": Route("GET", Kind.OPEN),
    "/v1/models": Route("GET", Kind.LIST),
    "/v1/completions": Route("POST", Kind.MODEL),
    "/v1/chat/completions": Route("POST", Kind.MODEL),
    "/v1/responses": Route("POST", Kind.MODEL),
    "/v1/messages": Route("POST", Kind.MODEL),
    "/v1/messages/count_tokens": Route("POST", Kind.MODEL),
    "/tokenize": Route("POST", Kind.MODEL),
    "/detokenize": Route("POST", Kind.MODEL),
    "/metrics": Route("GET", Kind.SERVER),
    "/load": Route("GET", Kind.SERVER),
    "/ping": Route("GET", Kind.SERVER),
    "/version": Route("GET", Kind.SERVER),
    "/docs": Route("GET", Kind.SERVER),
    "/openapi.json": Route("GET", Kind.SERVER),
}


def is_open(method: str, path: str) -> bool:
    """Whether the route needs no key."""
    route = _ROUTES.get(path)
    return route is not None and route.kind is Kind.OPEN and method in ("GET", "HEAD")


def is_listed(path: str) -> bool:
    """Whether there is such a path."""
    return path in _ROUTES


def find_route(method: str, path: str) -> Route:
    """The route. Raises RequestError: 404 for an unknown path, 405 for another method."""
    route = _ROUTES.get(path)
    if route is None:
        raise RequestError(HTTPStatus.NOT_FOUND, f"Not Found: {method} {path:.100}", None)
    if method not in (route.method, "HEAD" if route.method == "GET" else ""):
        raise RequestError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"{path} takes {route.method}, not {method}",
            None,
            {"allow": route.method},
        )
    return route
