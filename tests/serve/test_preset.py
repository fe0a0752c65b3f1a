"""What an adapter's requests get where they do not say otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from adapterhub.errors import AdzError
from adapterhub.plugins import open_registry
from adapterhub.serve.preset import (
    Preset,
    Presets,
    apply_preset,
    change_preset,
    check_template,
    digest_of,
    preset_of,
)

FULL = Preset(system="Be short.", temperature=0.2, top_p=0.9, max_tokens=50, stop=("END",))


class Chat(BaseModel):
    messages: list[dict[str, str]] = []
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class Response(BaseModel):
    instructions: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None


USER = {"role": "user", "content": "Hello"}


def test_a_silent_request_gets_all_of_it() -> None:
    request = Chat(messages=[USER])
    apply_preset(request, FULL, None)
    assert request.messages == [{"role": "system", "content": "Be short."}, USER]
    assert (request.temperature, request.top_p, request.max_tokens) == (0.2, 0.9, 50)
    assert request.stop == ["END"]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_what_a_request_says_wins(role: str) -> None:
    own = {"role": role, "content": "Be long."}
    said = {"temperature": 0.0, "top_p": 1.0, "stop": [], "max_completion_tokens": 7}
    request = Chat(messages=[own, USER], **said)  # type: ignore[arg-type]
    before = request.model_copy(deep=True)
    apply_preset(request, FULL, None)
    assert request == before


def test_a_value_of_null_is_not_said() -> None:
    request = Chat(messages=[USER], temperature=None, max_tokens=None)
    apply_preset(request, FULL, None)
    assert (request.temperature, request.max_tokens) == (0.2, 50)


@pytest.mark.parametrize(("limit", "tokens"), [(20, 20), (80, 50)])
def test_the_servers_limit_stays_in_force(limit: int, tokens: int) -> None:
    # The doors have written their limit into the request, which did not say anything.
    request = Chat(messages=[USER], max_tokens=limit)
    apply_preset(request, FULL, limit)
    assert request.max_tokens == tokens


def test_the_responses_api_has_other_names() -> None:
    request = Response()
    apply_preset(request, FULL, None)
    assert (request.instructions, request.max_output_tokens) == ("Be short.", 50)
    asked = Response(instructions="Mine", max_output_tokens=3)
    apply_preset(asked, FULL, None)
    assert (asked.instructions, asked.max_output_tokens) == ("Mine", 3)


def test_the_last_preset_holds_and_one_version_has_it(commit_small: Any, home: Path) -> None:
    registry = open_registry()
    first, second = commit_small(registry, seed=1), commit_small(registry, seed=2)
    presets = Presets()
    assert presets.of(registry, first) == Preset()
    change_preset(registry, first, {"temperature": 0.5, "system": "a"})
    assert presets.of(registry, first) == Preset(temperature=0.5, system="a")
    change_preset(registry, first, {"temperature": None, "max_tokens": 9})
    assert presets.of(registry, first) == Preset(max_tokens=9, system="a")
    assert presets.of(registry, second) == Preset()
    assert [a["kind"] for a in registry.attestations(first)] == ["preset", "preset"]


def test_a_template_is_used_only_by_the_digest_it_was_chosen_by(
    commit_small: Any, home: Path
) -> None:
    registry = open_registry()
    version = commit_small(registry)
    text = "{% for m in messages %}{{ m.content }}{% endfor %}"
    preset = change_preset(registry, version, {"chat_template": text})
    assert preset.chat_template_sha256 == digest_of(text)
    body = {"chat_template": text + "!", "chat_template_sha256": digest_of(text)}
    registry.attest(version, "preset", body)
    with pytest.raises(AdzError, match="is not the one that was chosen"):
        preset_of(registry, version)


def test_what_is_no_template_is_refused() -> None:
    check_template("{% for m in messages %}{% break %}{% endfor %}")
    with pytest.raises(AdzError, match="this is not a chat template"):
        check_template("{% for m in messages %}")


def test_the_command_sets_shows_and_takes_away(commit_small: Any, adz: Any, tmp_path: Path) -> None:
    commit_small(open_registry())
    assert adz("preset", "sql").out == "sql@1 has no preset\n"
    (tmp_path / "system.txt").write_text("You write SQL.\n")
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    done = adz(
        "preset", "sql", "--system", f"@{tmp_path}/system.txt", "--temperature", "0",
        "--stop", ";", "--chat-template", tmp_path / "t.jinja", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    preset = json.loads(done.out)["preset"]
    assert (preset["system"], preset["temperature"], preset["stop"]) == ("You write SQL.", 0, [";"])
    assert preset["chat_template_sha256"] == digest_of("{{ messages }}")
    shown = adz("preset", "sql", "--unset", "stop", "--unset", "chat_template").out
    assert shown.splitlines() == [
        "sql@1", "  system         You write SQL.", "  temperature    0.0"
    ]  # fmt: skip
    assert "You write SQL." in adz("show", "sql").out
    for wrong in (("--temperature", "3"), ("--max-tokens", "0"), ("--chat-template", "nowhere")):
        refused = adz("preset", "sql", *wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    # Nothing of what was refused is left.
    assert "temperature    0.0" in adz("preset", "sql").out
