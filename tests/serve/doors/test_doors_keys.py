"""Who may enter: keys, their scope, and the routes that there are."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from adapterhub.serve.doors import keys as keys_module
from adapterhub.serve.doors.keys import digest_of, keys_file, new_key, remove_keys

GUARDED = ("/v1/models", "/metrics", "/docs", "/openapi.json", "/ping", "/version", "/load")
POSTED = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/tokenize",
          "/detokenize", "/v1/messages/count_tokens")  # fmt: skip
# Routes of vLLM that load, unload, stop, run or tell too much; all are there in some release.
MANAGEMENT = (
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/sql", "/sleep",
    "/wake_up", "/is_sleeping", "/collective_rpc", "/reset_prefix_cache", "/server_info",
    "/start_profile", "/stop_profile", "/scale_elastic_ep", "/pause", "/resume", "/update_weights",
    "/invocations", "/abort_requests", "/inference/v1/generate", "/tokenizer_info",
    "/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/static/x", "/v1/models/sql",
    "//v1/models", "/v1/models/", "/V1/models", "/v1/%2e%2e/metrics", "/%6detrics/",
    "/kv_event_sources",
)  # fmt: skip


def test_every_route_but_two_needs_a_key(serve: Any) -> None:
    site = serve(digests=(digest_of("right"),), keys=True)
    for path in GUARDED:
        assert site.get(path).status_code == 401, path
        assert site.get(path, "wrong").status_code == 401, path
        assert site.get(path, "right").status_code == 200, path
    for path in POSTED:
        assert site.client.post(path, json={"model": "sql"}).status_code == 401, path
    for path in MANAGEMENT:
        assert site.client.post(path, json={}).status_code == 401, path
    assert {entry["path"] for entry in site.stub.seen} == set(GUARDED) - {"/v1/models"}
    for path in ("/health", "/ready"):
        assert site.get(path).status_code == 200


def test_the_error_is_that_of_the_api_and_names_the_scheme(serve: Any) -> None:
    site = serve(digests=(digest_of("right"),), keys=True)
    answer = site.ask()
    assert answer.json() == {
        "error": {
            "message": "no API key was given",
            "type": "AuthenticationError",
            "param": None,
            "code": 401,
        }
    }
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "not right" in site.ask(key="wrong").json()["error"]["message"]


def test_what_manages_an_engine_is_not_there(serve: Any) -> None:
    site = serve(digests=(digest_of("right"),), keys=True)
    for path in MANAGEMENT:
        for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS"):
            url = site.client.base_url.copy_with(raw_path=path.encode())
            answer = site.client.request(method, url, headers={"Authorization": "Bearer right"})
            assert answer.status_code == 404, (method, path)
            assert answer.json()["error"]["type"] == "NotFoundError"
    assert site.stub.seen == []


def test_another_method_is_refused_with_the_right_one(serve: Any) -> None:
    site = serve()
    answer = site.get("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert site.client.delete("/v1/models").status_code == 405


def test_a_key_is_followed_from_its_making_to_its_removal(serve: Any) -> None:
    site = serve()
    assert site.ask().status_code == 200
    _, first = new_key("first")
    assert site.ask().status_code == 401
    assert site.ask(key=first).status_code == 200
    _, second = new_key("second")
    remove_keys(["first"])
    assert site.ask(key=first).status_code == 401
    assert site.ask(key=second).status_code == 200
    # The last key is gone: the server does not open itself to everybody.
    remove_keys(["second"])
    assert [site.ask(key=key).status_code for key in (None, first, second)] == [401, 401, 401]
    keys_file().unlink()
    assert site.ask().status_code == 401


def test_a_file_that_is_no_file_of_keys_lets_nobody_in(serve: Any, caplog: Any) -> None:
    site = serve(digests=(digest_of("given"),))
    _, stored = new_key("stored")
    assert site.ask(key=stored).status_code == 200
    good = keys_file().read_text()
    keys_file().write_text(good + "broken: [1\n")
    assert site.ask(key=stored).status_code == 503
    assert site.ask().status_code == 503
    assert site.ask(key="given").status_code == 200
    assert "keys.yaml" in caplog.text
    assert str(keys_file()) not in site.ask(key=stored).text
    keys_file().write_text(good)
    assert site.ask(key=stored).status_code == 200
    keys_file().unlink()
    keys_file().symlink_to("nowhere")
    assert site.ask(key=stored).status_code == 503


def test_a_key_ends_with_its_time(serve: Any) -> None:
    site = serve()
    _, text = new_key("short", days=1)
    assert site.ask(key=text).status_code == 200
    values = yaml.safe_load(keys_file().read_text())
    values["short"]["expires"] = datetime.now(UTC) + timedelta(seconds=2)
    keys_file().write_text(yaml.safe_dump(values))
    assert site.ask(key=text).status_code == 200
    time.sleep(2.1)
    answer = site.ask(key=text)
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        401,
        "the API key has expired",
    )


def test_both_headers_that_clients_send_are_read(serve: Any) -> None:
    site = serve(digests=(digest_of("right"),), keys=True)
    for headers, status in (
        ({"Authorization": "bearer right"}, 200),
        ({"x-api-key": "right"}, 200),
        ({"Authorization": "Basic right"}, 401),
        ({"Authorization": "right"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"x-api-key": ""}, 401),
        ({"Authorization": "Bearer wrong", "x-api-key": "right"}, 401),
    ):
        assert site.client.get("/v1/models", headers=headers).status_code == status, headers


def test_a_scope_holds_for_every_form_of_a_reference(serve: Any) -> None:
    site = serve()
    _, text = new_key("team", models=["team/*", "sql"])
    for model in ("sql", "sql@1", "sql@prod", "sql@sha256:" + "0" * 64, "team/a", "team/b@2"):
        assert site.ask(model, key=text).status_code == 200, model
    refused: list[Any] = ["french", "tiny", "team", "sqll", "other/sql", "SQL", " sql", "sql@",
                          "sql+french", "french*0.5+sql", "sql - team/a+x", "", None, 7,
                          ["sql"], "../sql"]  # fmt: skip
    assert site.ask("ties(sql*0.5+team/a@prod - team/b,density=0.5)", key=text).status_code == 200
    before = len(site.stub.seen)
    malformed = site.ask("sql*french", key=text)
    assert (malformed.status_code, "character 5" in malformed.text) == (400, True)
    for model in refused:
        answer = site.ask(model, key=text)
        assert answer.status_code == 404, model
        assert "may not use it" in answer.json()["error"]["message"]
    assert len(site.stub.seen) == before


def test_the_engine_reads_the_model_that_was_checked(serve: Any) -> None:
    site = serve()
    _, text = new_key("team", models=["sql"])
    for body in ('{"model": "french", "model": "sql"}', '{"model": "sql", "model": "french"}'):
        site.client.post(
            "/v1/completions", content=body, headers={"Authorization": f"Bearer {text}"}
        )
    assert [entry["body"] for entry in site.stub.seen] == [{"model": "sql"}]
    (headers,) = (dict(entry["headers"]) for entry in site.stub.seen)
    assert headers[b"content-length"] == b"16"


def test_a_scoped_key_learns_no_other_name(serve: Any) -> None:
    site = serve()
    _, scoped = new_key("team", models=["team/*"])
    _, every = new_key("all")
    listed = site.get("/v1/models", scoped)
    assert [card["id"] for card in listed.json()["data"]] == ["team/a", "team/a@prod"]
    assert int(listed.headers["content-length"]) == len(listed.content)
    assert len(site.get("/v1/models", every).json()["data"]) == 5
    for path in GUARDED[1:]:
        assert site.get(path, scoped).status_code == 403
    # An engine's 404 names what is near; for this key it says what it says of all names.
    site.stub.status = 404
    there = site.ask("team/c", key=scoped, hint="did you mean secret/c?")
    elsewhere = site.ask("secret/c", key=scoped)
    assert (there.status_code, elsewhere.status_code) == (404, 404)
    assert there.text.replace("team/c", "NAME") == elsewhere.text.replace("secret/c", "NAME")
    assert "did you mean" in site.ask("team/c", key=every, hint="did you mean secret/c?").text


def test_without_keys_only_this_machines_user_is_answered(serve: Any) -> None:
    site = serve()
    host = f"127.0.0.1:{site.port}"
    for headers, status in (
        ({"Host": host}, 200),
        ({"Host": f"localhost:{site.port}"}, 200),
        ({"Host": f"[::1]:{site.port}"}, 200),
        ({"Host": host, "Origin": f"http://{host}"}, 200),
        ({"Host": host, "Origin": "https://evil.example"}, 403),
        ({"Host": host, "Origin": "null"}, 403),
        ({"Host": f"evil.example:{site.port}"}, 403),
        ({"Host": "0.0.0.0"}, 403),
        ({"Host": "[::1"}, 403),
    ):
        assert site.client.get("/v1/models", headers=headers).status_code == status, headers
    new_key("first")
    assert site.client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 401


def test_no_keys_at_all_is_for_what_stands_behind_a_proxy(serve: Any) -> None:
    site = serve(keys=False)
    new_key("unused")
    assert site.get("/v1/models", Host="api.example", Origin="https://a.example").status_code == 200


def test_a_browser_may_ask_before_it_sends_its_key(serve: Any) -> None:
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    closed = serve(keys=True, digests=(digest_of("right"),))
    assert closed.client.options("/v1/models", headers=headers).status_code == 200
    assert closed.client.options("/sleep", headers=headers).status_code == 401
    assert closed.client.options("/v1/models").status_code == 401
    assert serve().client.options("/v1/models", headers=headers).status_code == 403


def test_a_websocket_is_refused(serve: Any) -> None:
    site = serve()
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
    assert site.client.get("/v1/realtime", headers=headers).status_code in (403, 404)
    assert site.stub.seen == []


def test_the_file_holds_no_key_and_is_for_its_owner_only(home: Any) -> None:
    key, text = new_key("ci", models=["team/*"], requests_per_minute=5, concurrent=2, days=3)
    stored = keys_file().read_text()
    assert text not in stored
    assert text.startswith("adz_")
    assert digest_of(text) in stored
    assert keys_file().stat().st_mode & 0o777 == 0o600
    assert keys_module.read_keys() == [key]
    assert not list(home.glob("*.part"))
