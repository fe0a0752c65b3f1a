"""A broken remote: a relay in front of a right registry that breaks one thing at a time.

Each row of `CASES` is one way to be broken while a version is pulled. Each must be noticed, and
leave nothing: one clear line, no version, no blob, no staging folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broken import TIMEOUT_SECONDS, Broken
from broken_answers import (
    another_name,
    another_number,
    config_of_negative_size,
    config_too_large,
    digest_that_is_a_path,
    escaping_file_name,
    gzip_bomb,
    gzip_weights,
    image_of_another_kind,
    lost_config,
    lost_weights,
    no_image,
    redirect_loop,
    redirect_nowhere,
    redirect_to_file,
    redirect_to_no_host,
    redirect_without_tls,
    token_service_that_lies,
    token_service_without_tls,
    token_that_does_not_help,
    wrong_range,
)
from broken_bytes import (
    always_500,
    come_back_tomorrow,
    deep_json,
    empty_body,
    endless_config,
    endless_image,
    endless_weights,
    flip_config,
    flip_image,
    flip_weights,
    hang_up,
    huge_json,
    length_too_small,
    no_http,
    one_byte_more,
    short_and_says_so,
    short_body,
    silent_image,
    silent_weights,
    too_many_requests,
    trickle,
    trickling_image,
    weights_503,
    wrong_digest_header,
)

from adapterhub.errors import EXIT_FAILED, EXIT_VERIFICATION, AdzError
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.manifest import Version
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry
from adapterhub_remotes.oci.remote import OciRemote

QUIET = Silent()
V, F = EXIT_VERIFICATION, EXIT_FAILED
CASES: list[tuple[Callable[[Broken], Any], int, str]] = [
    (flip_weights, V, "its bytes are not those of sha256:"),
    (flip_config, V, "has other bytes than its digest says"),
    (flip_image, V, "which the registry says that it is"),
    (wrong_digest_header, V, "which the registry says that it is"),
    (short_body, F, "broke off at"),
    (short_and_says_so, F, "broke off at 100 of"),
    (empty_body, F, "broke off at 0 of"),
    (length_too_small, F, "broke off at 1000 of"),
    (one_byte_more, V, "is longer than its"),
    (endless_weights, V, "is longer than its"),
    (endless_image, V, "larger than 1 MiB"),
    (endless_config, V, "larger than 1 MiB"),
    (huge_json, V, "larger than 1 MiB"),
    (deep_json, V, "not a JSON object"),
    (silent_weights, F, "broke off at .* does not answer in time"),
    (trickle, F, "slower than 1024 bytes a second"),
    (trickling_image, F, "does not end within"),
    (silent_image, F, "does not answer in time"),
    (always_500, F, "the server answers 500, at 5 tries"),
    (weights_503, F, "the server answers 503, at 5 tries"),
    (too_many_requests, F, "the server answers 429, at 5 tries"),
    (come_back_tomorrow, F, "asks to wait 86400 seconds"),
    (hang_up, F, "cannot be used"),
    (no_http, F, "cannot be used"),
    (lost_weights, V, "has lost adapter_model.safetensors"),
    (lost_config, F, "answers 404"),
    (wrong_range, F, "sent another part"),
    (gzip_weights, V, "encoded as 'gzip'"),
    (gzip_bomb, V, "encoded as 'gzip'"),
    (redirect_loop, F, "redirects more than"),
    (redirect_without_tls, F, "redirects to http://198.51.100.7"),
    (redirect_to_file, F, "redirects to file://"),
    (redirect_nowhere, F, "redirects to what is no URL"),
    (redirect_to_no_host, F, "redirects to what is no URL"),
    (escaping_file_name, V, "'../x' is not allowed"),
    (another_name, V, "with the manifest of other@1"),
    (another_number, V, "with the manifest of sql@2"),
    (no_image, V, "not a JSON object"),
    (image_of_another_kind, V, "is no adapter"),
    (config_too_large, V, "larger than 1 MiB"),
    (config_of_negative_size, V, "larger than 1 MiB"),
    (digest_that_is_a_path, V, "without a sha256 digest"),
    (token_service_without_tls, F, "redirects to http://198.51.100.7"),
    (token_service_that_lies, F, "gave no token"),
    (token_that_does_not_help, F, "refuses /v2/"),
]


@pytest.fixture(scope="module")
def stock() -> dict[str, Version]:
    """The version that the registry holds for all cases, once it was pushed."""
    return {}


@pytest.fixture
def version(
    stock: dict[str, Version], sender: Registry, commit_small: Any, registry_port: int
) -> Version:
    if "sql" not in stock:
        stock["sql"] = commit_small(sender, width=300)
        list(push(sender, OciRemote(f"oci://127.0.0.1:{registry_port}/broken"), ["sql"], QUIET))
    return stock["sql"]


@pytest.mark.parametrize(("case", "code", "message"), CASES, ids=[c[0].__name__ for c in CASES])
def test_what_is_broken_is_noticed_and_leaves_nothing(
    case: Callable[[Broken], Any],
    code: int,
    message: str,
    version: Version,
    open_home: Callable[[str], Registry],
    relay: Any,
    make_reply: Any,
    quick: Any,
) -> None:
    def instead(asked: Any) -> Any:
        reply = relay.forward(asked)
        return case(Broken(asked, reply, version, relay, make_reply)) or reply

    relay.instead = instead
    receiver = open_home("receiver")
    url = f"oci://127.0.0.1:{relay.port}/broken"
    remote = OciRemote(url, timeout_seconds=TIMEOUT_SECONDS, pause=lambda seconds: None)
    with pytest.raises(AdzError, match=message) as caught:
        list(pull(receiver, remote, ["sql@1"], QUIET, bounds=quick))
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    home = Path(os.environ["ADZ_HOME"])
    assert receiver.names() == []
    assert list((home / "registry" / "blobs" / "sha256").iterdir()) == []
    assert list((home / "staging").glob("*")) == []
    # And when the remote is whole again, the same command succeeds.
    relay.instead = lambda asked: None
    (result,) = pull(receiver, OciRemote(url), ["sql@1"], QUIET, bounds=quick)
    assert result.digest == version.digest
