"""Every hook of adapterhub on one page.

A plugin is a module named by an entry point in the group `adapterhub.plugins`:

    [project.entry-points."adapterhub.plugins"]
    my_plugin = "my_package.plugin"

Its functions carry `@adapterhub.hookimpl`. Hooks whose name is a noun return descriptors
(`adapterhub.specs`); the module that holds them must not import torch. Hooks whose name
begins with `before_` or `after_` are events; a `before_` hook that raises refuses the action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from adapterhub import specs

if TYPE_CHECKING:
    from adapterhub.manifest import Manifest

PROJECT = "adapterhub"
API_VERSION = 1
"""Grows when a hook or an argument is added: see docs/authors/compatibility.md."""


class HookDeprecationWarning(UserWarning):
    """A hook, an argument or a descriptor's field that will be gone; the loader prints it as one
    line.

    For `@hookspec(warn_on_impl=...)`, `warn_on_impl_args` and `specs.DEPRECATED`. since: the
    release that deprecates it, as `0.2`; it goes two minor versions later. A UserWarning, because
    Python hides DeprecationWarning from users.
    """

    def __init__(self, name: str, *, since: str, instead: str) -> None:
        major, minor = map(int, since.split("."))
        gone = f"{major}.{minor + 2}"
        super().__init__(
            f"{name} is deprecated since adapterhub {since} and goes in {gone}: use {instead}"
        )


hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def adapterhub_methods() -> Iterable[specs.Method]:  # type: ignore[empty-body]
    """Ways to adapt a base: `adz train --method NAME`.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_methods():
            yield specs.Method(name="bitfit", summary="Train the biases only",
                               impl="my_package.bitfit:BitFit", storage="own")
    """


@hookspec
def adapterhub_quantizers() -> Iterable[specs.Quantizer]:  # type: ignore[empty-body]
    """Ways to hold the base while training: `adz train --quantizer NAME`.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_quantizers():
            yield specs.Quantizer(name="nf4", summary="4-bit NormalFloat", bits=4,
                                  impl="my_package.nf4:Nf4", requires=("bitsandbytes",))
    """


@hookspec
def adapterhub_objectives() -> Iterable[specs.Objective]:  # type: ignore[empty-body]
    """What a run optimises: `adz train --objective NAME`.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_objectives():
            yield specs.Objective(name="sft", summary="Supervised fine-tuning",
                                  impl="my_package.sft:Sft", requires=("trl",))
    """


@hookspec
def adapterhub_formats() -> Iterable[specs.Format]:  # type: ignore[empty-body]
    """Layouts of data rows: `adz train --format NAME`, or recognised from the columns.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_formats():
            yield specs.Format(name="alpaca", summary="instruction, input, output",
                               impl="my_package.alpaca:Alpaca")
    """


@hookspec
def adapterhub_merge_rules() -> Iterable[specs.MergeRule]:  # type: ignore[empty-body]
    """Ways to combine adapters: `adz merge --rule NAME`, and `adz merge --NAME`.

    A name that is also an option of `adz merge` is refused when the plugin is loaded.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_merge_rules():
            yield specs.MergeRule(name="median", summary="The element-wise median",
                                  impl="my_package.median:median", spaces=("dense",))
    """


@hookspec
def adapterhub_merge_spaces() -> Iterable[specs.MergeSpace]:  # type: ignore[empty-body]
    """Coordinates in which a rule runs: `adz merge --space NAME`.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_merge_spaces():
            yield specs.MergeSpace(name="core", summary="The shared core of all factors",
                                   impl="my_package.core:core", ranks="up-to-sum")
    """


@hookspec
def adapterhub_engines() -> Iterable[specs.Engine]:  # type: ignore[empty-body]
    """What answers requests: `adz serve --engine NAME`.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_engines():
            yield specs.Engine(name="vllm", summary="vLLM with multi-LoRA", priority=10,
                               impl="my_package.engine:VllmEngine", requires=("vllm",))
    """


@hookspec
def adapterhub_registries() -> Iterable[specs.Registry]:  # type: ignore[empty-body]
    """Where adapters are kept; `ADZ_REGISTRY` chooses, `local` is the default.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_registries():
            yield specs.Registry(name="local", summary="A directory below ADZ_HOME",
                                 impl="my_package.store:LocalRegistry")
    """


@hookspec
def adapterhub_remotes() -> Iterable[specs.Remote]:  # type: ignore[empty-body]
    """Where versions are pushed to and pulled from: `adz push sql --to SCHEME://...`.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_remotes():
            yield specs.Remote(name="oci", summary="An OCI registry", schemes=("oci",),
                               impl="my_package.oci:OciRemote")
    """


@hookspec
def adapterhub_metrics() -> Iterable[specs.Metric]:  # type: ignore[empty-body]
    """Scores of an answer: `adz eval --metric NAME`.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_metrics():
            yield specs.Metric(name="exact_match", summary="1 when the texts are equal",
                               impl="my_package.exact_match:exact_match")
    """


@hookspec
def adapterhub_commands() -> Iterable[specs.Command]:  # type: ignore[empty-body]
    """Commands of `adz`: `adz NAME`.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_commands():
            yield specs.Command(name="hello", summary="Greet", impl="my_package.hello:hello")
    """


@hookspec
def adapterhub_before_train(run: Any) -> None:
    """Called with the prepared `adapterhub.train.run.Run` before the first step; raise to refuse.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_before_train(run):
            if run.recipe.data.train.name == "secret.jsonl":
                raise AdzError("this data set may not be trained on")
    """


@hookspec
def adapterhub_after_train(run: Any, result: Mapping[str, Any]) -> None:
    """Called after the last step and before the commit, with the run's metrics.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_after_train(run, result):
            print(result["train_loss"])
    """


@hookspec
def adapterhub_before_commit(manifest: Manifest) -> None:
    """Called before a version is stored, however it was made; raise to refuse.

    Added in adapterhub 0.1 (hook API 1).

    Example:

        @hookimpl
        def adapterhub_before_commit(manifest):
            if not manifest.data:
                raise AdzError("an adapter without known data is not kept here")
    """
