"""Reading from the Hugging Face Hub, and its errors as one line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.protocols import TransferInterruptedError

_CHUNK = 2**20
_MAX_SMALL = 2**20
_TIMEOUT_SECONDS = 30.0
# The Hub may work on a commit for a while before it answers.
_PATIENCE = httpx2.Timeout(120.0, connect=15.0)
_HINTS = {
    401: "log in with 'hf auth login', or set HF_TOKEN",
    403: "the token may not do that: check its rights for this organisation",
    409: "someone else changed it at the same time: try again",
    412: "someone else changed it at the same time: try again",
    429: "the Hub asks to wait: try again later",
}


def read_file(
    api: HfApi, repository: str, commit: str, path: str, offset: int = 0
) -> Iterator[bytes]:
    """A file's bytes from `offset` on. Raises TransferInterruptedError where they stop coming."""
    url = hf_hub_url(repository, path, revision=commit, endpoint=api.endpoint)
    headers = build_hf_headers(token=api.token, library_name=api.library_name)
    # Compressed bytes have other offsets. The token does not go along to another host.
    headers |= {"Accept-Encoding": "identity", "Range": f"bytes={offset}-"}
    try:
        with get_session().stream(
            "GET", url, headers=headers, timeout=_TIMEOUT_SECONDS, follow_redirects=True
        ) as response:
            if response.status_code == 416:
                return
            if response.status_code >= 500:
                raise TransferInterruptedError(
                    f"{repository}: the Hub answers {response.status_code}"
                )
            if response.is_error:
                response.read()
                with clear_errors(repository):
                    hf_raise_for_status(response)
            # A server that knows no ranges sends the whole.
            skip = offset if response.status_code == 200 else 0
            for chunk in response.iter_bytes(_CHUNK):
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))
    except httpx2.TransportError as error:
        raise TransferInterruptedError(f"{repository}: {error or type(error).__name__}") from error


def read_small(api: HfApi, repository: str, commit: str, path: str) -> bytes:
    """The whole of a small file. Raises AdzError (exit code 3) for more than 1 MiB."""
    data = b""
    for chunk in read_file(api, repository, commit, path):
        data += chunk
        if len(data) > _MAX_SMALL:
            raise AdzError(
                f"{path} of {repository} is larger than 1 MiB", exit_code=EXIT_VERIFICATION
            )
    return data


@contextmanager
def clear_errors(repository: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line, and what never answers into an error."""
    session = get_session()
    # It waits without end unless its user says otherwise.
    if session.timeout == httpx2.Timeout(None):
        session.timeout = _PATIENCE
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise AdzError(
            f"{repository} cannot be reached: HF_HUB_OFFLINE is set", "unset it"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        message = error.server_message or _first_line(error)
        raise AdzError(
            f"{repository}: the Hub answers {status}: {_first_line(message)}",
            _HINTS.get(status, "try again later" if status >= 500 else ""),
        ) from error
    except httpx2.TransportError as error:
        raise AdzError(
            f"{repository} cannot be reached: {_first_line(error)}",
            "check the network and HF_ENDPOINT",
        ) from error
    except (ValueError, RuntimeError, OSError) as error:
        # Its own checks, and what an upload wraps.
        cause = error.__cause__
        raise AdzError(f"{repository}: {_first_line(cause or error)}") from error


def _first_line(error: object) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
