"""A refused request, in the shape that clients of the OpenAI API read."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

_TYPES = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.UNAUTHORIZED: "AuthenticationError",
    HTTPStatus.FORBIDDEN: "PermissionDeniedError",
    HTTPStatus.NOT_FOUND: "NotFoundError",
    HTTPStatus.UNPROCESSABLE_ENTITY: "UnprocessableEntityError",
    HTTPStatus.TOO_MANY_REQUESTS: "RateLimitError",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailableError",
}

# Why a request was refused, in a word for the metrics.
_REASONS = {
    HTTPStatus.BAD_REQUEST: "malformed",
    HTTPStatus.UNAUTHORIZED: "key",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method",
    HTTPStatus.REQUEST_TIMEOUT: "slow",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "not_servable",
    HTTPStatus.TOO_MANY_REQUESTS: "too_many",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
}


def refusal_reason(status: int) -> str:
    """The word for a refusal of which only the status is known."""
    return next((word for code, word in _REASONS.items() if code == status), "failed")


class RequestError(Exception):
    """A request that is answered with an error. `param` is the field of the request at fault,
    `headers` go with the answer, `reason` is a word for the metrics."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        param: str | None = "model",
        headers: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = headers or {}
        self.reason = reason or refusal_reason(status)

    @property
    def type(self) -> str:
        """The word that stands beside the message, such as `NotFoundError`."""
        return _TYPES.get(self.status, "APIError")

    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.status.value,
            }
        }
