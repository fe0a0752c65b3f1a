"""`adz push`, `adz pull` and the same in Python: what they print, and the exit codes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapterhub.cli import main
from adapterhub.errors import EXIT_OK, EXIT_USAGE, EXIT_VERIFICATION
from adapterhub.hub import Hub
from adapterhub.protocols import Registry


@pytest.fixture
def adz() -> Any:
    """Run `adz` in this process, on the home that was opened last."""

    def run(*arguments: str) -> Any:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(list(arguments))
        return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())

    return run


@pytest.fixture
def share(tmp_path: Path) -> str:
    return str(tmp_path / "share")


def run_pushed(adz: Any, sender: Registry, commit_small: Any, share: str) -> Any:
    commit_small(sender, width=100_000)
    sender.tag("sql@1", "prod")
    return adz("push", "sql@prod", "--to", share)


def test_results_on_stdout_and_the_rest_on_stderr(
    adz: Any, sender: Registry, open_home: Callable[[str], Registry], commit_small: Any, share: str
) -> None:
    pushed = run_pushed(adz, sender, commit_small, share)
    assert (pushed.code, pushed.out) == (EXIT_OK, "sql@1  pushed, 1.6 MB  (prod)\n")
    assert "pushing sql@1 (MB)" in pushed.err
    assert adz("push", "sql@1", "--to", share).out == "sql@1  already there, 1.6 MB\n"
    open_home("receiver")
    pulled = adz("pull", "sql", "--from", share)
    assert pulled.out.splitlines()[0] == "sql@1  pulled, 1.6 MB"
    assert "its base is unknown" in pulled.out
    assert adz("pull", "sql", "--from", share).out.startswith("sql@1  already there")
    renamed = adz("pull", "sql", "--from", share, "--as", "mine")
    assert renamed.out.startswith("mine@1 <- sql@1  pulled, 1.6 MB, 0 B of it read")


def test_json(
    adz: Any, sender: Registry, open_home: Callable[[str], Registry], commit_small: Any, share: str
) -> None:
    version = commit_small(sender)
    (value,) = json.loads(adz("push", "sql", "--to", share, "--json").out)
    assert (value["reference"], value["action"]) == ("sql@1", "pushed")
    assert value["sent"] == value["size"]
    open_home("receiver")
    (value,) = json.loads(adz("pull", "sql", "--from", share, "--json", "--dry-run").out)
    assert value["action"] == "would pull"
    (value,) = json.loads(adz("pull", "sql", "--from", share, "--json").out)
    assert (value["action"], value["digest"]) == ("pulled", version.digest)


def test_the_remote_may_stand_in_the_configuration(
    adz: Any, sender: Registry, commit_small: Any, share: str, tmp_path: Path
) -> None:
    commit_small(sender)
    assert adz("push", "sql").code == EXIT_USAGE
    (tmp_path / "sender" / "config.yaml").write_text(f"push: {{to: {share}}}\n")
    assert adz("push", "sql").code == EXIT_OK


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("push", "sql", "--to", "ftp://x/y"), EXIT_USAGE, "unknown kind of remote 'ftp://'"),
        (("push", "sql", "--to", "share"), EXIT_USAGE, "write a directory as ./share"),
        (("push", "sql", "--to", "https://x/y"), EXIT_USAGE, "an OCI registry as oci://host/path"),
        (("pull", "sql", "--from", "./nowhere"), EXIT_USAGE, "nowhere holds no adapter"),
        (("push", "sqk", "--to", "SHARE"), EXIT_USAGE, "did you mean sql?"),
        (("push", "sql@9", "--to", "SHARE"), EXIT_USAGE, "sql has no version 9"),
        (("push", "sql@1", "--all", "--to", "SHARE"), EXIT_USAGE, "--all means every version"),
        (("push", "sql", "--to", "SHARE", "--sign", "none.pem"), EXIT_USAGE, "none.pem"),
        (("pull", "sql", "--from", "SHARE", "--as", "Bad Name"), EXIT_USAGE, "not a valid name"),
        (("pull", "sql@prod", "--from", "SHARE"), EXIT_USAGE, "has no sql@prod"),
        (
            ("pull", "sql", "--from", "SHARE", "--max-bytes", "10"),
            EXIT_VERIFICATION,
            "more than 10",
        ),
        (("pull", "--from", "SHARE"), EXIT_USAGE, "Missing argument"),
    ],
)
def test_mistakes_are_one_line(
    adz: Any,
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    share: str,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    commit_small(sender)
    assert adz("push", "sql", "--to", share).code == EXIT_OK
    if arguments[0] == "pull":
        open_home("receiver")
    result = adz(*[share if word == "SHARE" else word for word in arguments])
    assert result.code == code
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert result.out == ""


def test_a_loopback_registry_that_is_not_there(
    adz: Any, sender: Registry, commit_small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterhub_remotes.oci.session._TRIES", 1)
    commit_small(sender)
    result = adz("push", "sql", "--to", "oci://127.0.0.1:9/zoo")
    assert result.code == 1
    assert "http://127.0.0.1:9 cannot be used" in result.err
    assert len(result.err.splitlines()) == 1


def test_in_python(sender: Registry, commit_small: Any, share: str, tmp_path: Path) -> None:
    version = commit_small(sender)
    (pushed,) = Hub(tmp_path / "sender").push("sql", to=share)
    assert pushed.action == "pushed"
    receiver = Hub(tmp_path / "receiver")
    (pulled,) = receiver.pull("sql", source=share)
    assert (pulled.action, receiver.resolve("sql").digest) == ("pulled", version.digest)
