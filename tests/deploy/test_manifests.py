"""What `adz serve --manifest` prints, against the published schemas and a real shell."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from adapterhub.cli.serve import command
from adapterhub.deploy.render import documents, render
from adapterhub.deploy.subject import Subject
from adapterhub.plugins import open_registry

SCHEMAS = Path(__file__).parent / "schemas"
# Sidecars came with 1.29.
KUBERNETES = ("1.29", "1.33", "1.37")
SUBJECT = Subject(
    name="adz-smollm2",
    base="smollm2",
    source="HuggingFaceTB/SmolLM2-135M-Instruct",
    adapters=("sql", "team/french"),
    remote="oci://registry.example/zoo",
    image="registry.example/adapterhub:0.1.0",
    replicas=3,
    gpus=1,
    flags=("--max-rank", "32"),
)
ALONE = Subject(**{name: getattr(SUBJECT, name) for name in SUBJECT.__slots__} | {"replicas": 1})


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


def check(document: dict[str, Any]) -> None:
    """Raise where a document is none of its kind; an unknown key is an error too."""
    custom = {"InferencePool": "inferencepool-v1", "HTTPRoute": "httproute-v1"}
    if document.get("kind") in custom:
        jsonschema.validate(document, schema(custom[document["kind"]]))
    elif "kind" in document:
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)
    else:
        jsonschema.validate(document, schema("compose-spec"))


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        ("k8s", ["Service", "StatefulSet"]),
        ("llm-d", ["Service", "StatefulSet", "InferencePool", "HTTPRoute"]),
    ],
)
def test_kubernetes_takes_them(kind: Any, kinds: list[str]) -> None:
    loaded = list(yaml.safe_load_all(render(kind, SUBJECT)))
    assert loaded == documents(kind, SUBJECT)
    assert [document["kind"] for document in loaded] == kinds
    for document in loaded:
        check(document)


def test_compose_takes_it() -> None:
    (loaded,) = yaml.safe_load_all(render("compose", ALONE))
    check(loaded)
    assert loaded == documents("compose", ALONE)[0]


@pytest.mark.parametrize("kind", ["k8s", "llm-d", "compose"])
def test_the_schemas_see_a_wrong_key_and_a_wrong_type(kind: Any) -> None:
    for document in documents(kind, ALONE):
        wrong = copy.deepcopy(document)
        place = wrong["spec"] if "spec" in wrong else wrong["services"]["server"]
        place["replicaz"] = 3
        with pytest.raises(jsonschema.ValidationError, match="replicaz"):
            check(wrong)
        wrong = copy.deepcopy(document)
        if "spec" in wrong:
            wrong["spec"] = 3
        else:
            wrong["services"]["server"]["image"] = 3
        with pytest.raises(jsonschema.ValidationError):
            check(wrong)


def test_they_belong_together() -> None:
    service, replicas, pool, route = documents("llm-d", SUBJECT)
    labels = replicas["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert replicas["spec"]["selector"]["matchLabels"] == labels
    assert pool["spec"]["selector"]["matchLabels"] == labels
    (server,) = replicas["spec"]["template"]["spec"]["containers"]
    (port,) = server["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert pool["spec"]["targetPorts"] == [{"number": port["containerPort"]}]
    assert route["spec"]["rules"][0]["backendRefs"][0]["name"] == pool["metadata"]["name"]
    assert "nvidia.com/gpu" in server["resources"]["limits"]


def test_what_nobody_tried_is_said() -> None:
    assert "# Checked against the published schemas; not deployed anywhere.\n" in render(
        "k8s", SUBJECT
    )
    assert "# GPU unproven" in render("k8s", SUBJECT)


def calls(script: str, folder: Path, known: bool) -> list[str]:
    """The calls of `adz` that a script makes in a real shell."""
    log = folder / "log"
    fake = folder / "adz"
    shown = 0 if known else 2
    fake.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n[ "$2" = show ] && exit {shown}\n[ "$1" = pull ] && '
        "kill -TERM $PPID\nexit 0\n"
    )
    fake.chmod(0o755)
    sleep = folder / "sleep"
    sleep.write_text("#!/bin/sh\nexit 0\n")
    sleep.chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", script],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        timeout=20,
        check=False,
    )
    assert done.returncode in (0, -15)
    return log.read_text().splitlines()


PULL = "pull sql team/french --all --from oci://registry.example/zoo"
ADD = "base add smollm2 HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.parametrize(("known", "added"), [(False, [ADD]), (True, [])])
def test_a_volume_is_filled_once(tmp_path: Path, known: bool, added: list[str]) -> None:
    expected = ["base show smollm2", *added, PULL]
    assert calls(SUBJECT.prepare, tmp_path, known) == expected


def test_the_follower_pulls_until_it_is_told_to_end(tmp_path: Path) -> None:
    assert calls(SUBJECT.follow, tmp_path, known=True) == [PULL]


def test_compose_leaves_the_shell_its_own_variables() -> None:
    (loaded,) = documents("compose", ALONE)
    script = loaded["services"]["follow"]["command"][-1]
    assert "wait $$!" in script
    assert script.replace("$$", "$") == ALONE.follow


def test_the_server_is_one_that_adz_can_start() -> None:
    given = command.make_context("serve", SUBJECT.serve[2:]).params
    assert (given["base"], given["host"], given["max_rank"]) == ("smollm2", "0.0.0.0", 32)


@pytest.fixture
def hub_base(home: Path, tiny_base: Any, commit_adapter: Callable[..., Any]) -> None:
    """The tiny base, as if it had come from the Hub, and an adapter on it."""
    registry = open_registry()
    registry.remove_base("tiny")
    registry.add_base(tiny_base.model_copy(update={"source": "acme/tiny"}))
    commit_adapter("sql")


def test_the_command(adz: Any, hub_base: None) -> None:
    place = ["--image", "acme/adapterhub:1", "--remote", "oci://registry.example/zoo"]
    done = adz("serve", "--manifest", "k8s", *place, "--max-rank", "16", "--replicas", "2",
               "--", "--enforce-eager")  # fmt: skip
    assert done.code == 0, done.err
    _, replicas = yaml.safe_load_all(done.out)
    check(replicas)
    assert replicas["spec"]["replicas"] == 2
    pod = replicas["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"][3:] == [
        "--host", "0.0.0.0", "--port", "8000", "--max-rank", "16", "--", "--enforce-eager",
    ]  # fmt: skip
    assert "adz base add tiny acme/tiny" in pod["initContainers"][0]["command"][-1]
    as_json = adz("serve", "--manifest", "compose", *place, "--json")
    check(json.loads(as_json.out)[0])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--remote", "oci://h/z"], "which image should run?"),
        (["--image", "a b", "--remote", "oci://h/z"], "'a b' names no image"),
        (["--image", "a/b", "--remote", "./share"], "a remote that it reaches"),
        (["--image", "a/b"], "a remote that it reaches"),
        (["--image", "a/b", "--remote", "oci://h/z", "--replicas", "2"], "runs one replica"),
    ],
)
def test_what_could_not_run_is_refused(
    adz: Any, hub_base: None, options: list[str], problem: str
) -> None:
    done = adz("serve", "--manifest", "compose", *options)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err


def test_a_base_of_this_machine_is_refused(adz: Any, tiny_base: Any) -> None:
    done = adz("serve", "--manifest", "k8s", "--image", "a/b", "--remote", "oci://h/z")
    assert done.code == 2
    assert "which a replica cannot reach" in done.err
