"""What was asked for and is not there, so that asking again costs little."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from adapterhub.protocols import Registry
from adapterhub.serve.errors import RequestError

_MOST = 1024


class UnknownNames:
    """Remembers at most 1024 answers 404, and those only until the registry changes, so that a
    version that is committed answers the next request. Used from one thread at a time."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, RequestError] = OrderedDict()
        self._revision = -1

    @contextmanager
    def remembered(self, registry: Registry, model: object) -> Iterator[None]:
        """Raise what resolving `model` raised before, or remember what it raises in the block."""
        revision = registry.revision()
        if revision != self._revision:
            self._answers.clear()
            self._revision = revision
        known = self._answers.get(model) if isinstance(model, str) else None
        if known is not None:
            raise RequestError(known.status, known.message, known.param)
        try:
            yield
        except RequestError as error:
            if error.status is HTTPStatus.NOT_FOUND and isinstance(model, str):
                self._answers[model] = error.with_traceback(None)
                if len(self._answers) > _MOST:
                    self._answers.popitem(last=False)
            raise
