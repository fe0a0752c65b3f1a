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
}


class RequestError(Exception):
    """A request that is answered with an error. `param` is the field of the request at fault,
    `headers` go with the answer."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        param: str | None = "model",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = headers or {}

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
