"""`adz export`: a plain PEFT directory, the merged model, or files for llama.cpp and Ollama."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, format_size, json_option, print_result
from adapterhub.errors import usage_error

if TYPE_CHECKING:
    from adapterhub.export.result import Exported

_PATH = click.Path(path_type=Path)


@click.command(short_help="Write an adapter, or the model with it folded in.")
@click.argument("reference")
@click.argument("path", type=_PATH, required=False)
@click.option("--merged", type=_PATH, metavar="DIR", help="The base with the adapter folded in.")
@click.option(
    "--gguf",
    type=click.Choice(
        [
            "q2_k",
            "q3_k_s",
            "q3_k_m",
            "q3_k_l",
            "q4_k_s",
            "q4_k_m",
            "q5_k_s",
            "q5_k_m",
            "q6_k",
            "q8_0",
            "f16",
            "bf16",
            "f32",
        ]
    ),
    help="The same as one GGUF file for llama.cpp; a base's name writes the base.",
)
@click.option("--lora-gguf", is_flag=True, help="The adapter alone as a GGUF file.")
@click.option(
    "--dtype",
    type=click.Choice(["f32", "f16", "bf16"]),
    help="Of --merged (the base's by default) and of --lora-gguf (f16 by default).",
)
@click.option("--ollama", is_flag=True, help="Also a Modelfile, beside the GGUF file.")
@click.option(
    "--from",
    "ollama_base",
    metavar="MODEL",
    help="What the Modelfile of --lora-gguf stands on: the base's GGUF file, or a name in Ollama.",
)
@click.option("--data", type=_PATH, help="Rows on which the logits are compared.")
@click.option("--no-compare", is_flag=True, help="Do not load the models to compare their logits.")
@click.option("--with-artifacts", is_flag=True, help="Also metrics, curve and recipe.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    reference: str,
    path: Path | None,
    merged: Path | None,
    gguf: str | None,
    lora_gguf: bool,
    dtype: str | None,
    ollama: bool,
    ollama_base: str | None,
    data: Path | None,
    no_compare: bool,
    with_artifacts: bool,
    as_json: bool,
) -> None:
    """Write the version REFERENCE into the directory PATH, which PEFT and vLLM open.

    --merged, --gguf and --lora-gguf write something else; of the last two PATH is the file, by
    default one in this directory. The base is read tensor by tensor. What was folded is loaded
    afterwards, and its logits are compared with those of the adapter over its base: a difference
    above what the number format explains refuses the export.
    """
    _check(context.params)
    from adapterhub.plugins import open_registry

    registry, progress = open_registry(), TerminalProgress()
    if merged:
        from adapterhub.export.merged import export_merged

        result = export_merged(
            registry, reference, merged,
            dtype=dtype, data=data, compare=not no_compare, progress=progress,
        )  # fmt: skip
    elif gguf:
        from adapterhub.export.gguf import export_gguf

        result = export_gguf(
            registry, reference, path,
            kind=gguf, ollama=ollama, data=data, compare=not no_compare, progress=progress,
        )  # fmt: skip
    elif lora_gguf:
        from adapterhub.export.lora_gguf import export_lora_gguf

        result = export_lora_gguf(
            registry, reference, path,
            kind=dtype or "f16", ollama_base=ollama_base, progress=progress,
        )  # fmt: skip
    elif path:
        from adapterhub.export.directory import export_version

        version = export_version(registry, reference, path, with_artifacts=with_artifacts)
        value = {"reference": version.reference, "directory": str(path)}
        print_result(value, f"{version.reference} -> {path}", as_json=as_json)
        return
    else:
        raise usage_error("there is no directory to write to", f"adz export {reference} DIR")
    print_result(result.as_dict(), _describe(result), as_json=as_json)


# What may be given beside each of the three, and beside none.
_BESIDE = {
    None: {"path", "with_artifacts"},
    "merged": {"dtype", "data", "no_compare"},
    "gguf": {"path", "ollama", "data", "no_compare"},
    "lora_gguf": {"path", "dtype", "ollama", "ollama_base"},
}
_FLAGS = {"ollama_base": "--from", "path": "PATH"}


def _check(parameters: Mapping[str, Any]) -> None:
    given = [name for name, value in parameters.items() if value]
    kinds = [name for name in given if name in _BESIDE]
    if len(kinds) > 1:
        raise usage_error(f"{_flag(kinds[0])} and {_flag(kinds[1])} exclude each other")
    kind = kinds[0] if kinds else None
    for name in given:
        if name not in {"reference", "as_json", kind} | _BESIDE[kind]:
            beside = [_flag(k) for k, names in _BESIDE.items() if k and name in names]
            if kind is None:
                raise usage_error(f"{_flag(name)} goes with {' or '.join(beside)} only")
            raise usage_error(f"{_flag(name)} does not go with {_flag(kind)}")
    if kind == "lora_gguf" and ("ollama" in given) != ("ollama_base" in given):
        raise usage_error(
            "--ollama and --from go together with --lora-gguf",
            "--from names what the adapter stands on: the base's GGUF file, or a name in Ollama",
        )


def _flag(name: str) -> str:
    return _FLAGS.get(name, "--" + name.replace("_", "-"))


def _describe(result: Exported) -> str:
    lines = [f"{result.reference} -> {result.path} ({result.dtype}, {format_size(result.size)})"]
    if result.format != "lora-gguf":
        lines.append(f"tensors changed: {result.changed}" + ", head untied" * result.untied)
    for name, loss in result.losses.items():
        stored = f"stored in {name}" if name == result.dtype else f"if it were stored in {name}"
        update = loss.of_update
        share = "" if update is None else f", {update:.2%} of the adapter's update"
        lines.append(f"lost by rounding {stored}: {loss.of_weights:.2e} of the weights{share}")
    if result.comparison:
        found = result.comparison
        lines.append(
            f"logits against unmerged: at most {found.largest:.2e} apart, {found.relative:.2e} of "
            f"the largest (bound {found.bound:g}); same first token at {found.agreement:.1%} of "
            f"{found.positions} positions ({found.source})"
        )
    lines += [f"beside it: {file}" for file in result.files]
    return "\n".join(lines)
