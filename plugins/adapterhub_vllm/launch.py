"""The command line and the environment of the vLLM that `adz serve` starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from adapterhub.errors import usage_error
from adapterhub.manifest import BaseRecord
from adapterhub.models import cpu_has_bf16
from adapterhub.protocols import ServeSettings
from adapterhub_vllm.machine import cache_gigabytes, cores_to_bind
from adapterhub_vllm.settings import ServerSettings

PLUGIN = "adapterhub"
"""Our name in vLLM's entry-point group, for a user's VLLM_PLUGINS."""

_CPU_CONTEXT = 2048

# What adz serve itself decides, and what would let a client or a base run code.
_OURS = {
    "--model": "name the base: adz serve BASE",
    "--host": "adz serve --host",
    "--port": "adz serve --port",
    "--api-key": "adz serve --api-key",
    "--dtype": "adz serve --dtype",
    "--max-model-len": "adz serve --max-context",
    "--max-lora-rank": "adz serve --max-rank",
    "--max-loras": "adz serve --max-resident",
    "--max-cpu-loras": "it is 4 times --max-resident",
    "--data-parallel-size": "adz serve --data-parallel",
    "-dp": "adz serve --data-parallel",
    "--served-model-name": "the base answers under its name in the registry",
    "--enable-lora": "it is always on",
    "--no-enable-lora": "adapters are what this server is for",
    "--lora-modules": "commit the adapter: adz import",
    "--default-mm-loras": "a request names its adapter",
    "--trust-remote-code": "a base may not bring code",
    "--middleware": "it would run outside the check of API keys",
    "--root-path": "routes are compared with their whole path",
    "--uds": "adz serve --host",
    "--ssl-keyfile": "adz serve --ssl-keyfile",
    "--ssl-certfile": "adz serve --ssl-certfile",
    "--allowed-local-media-path": "a client names no file of this machine",
    "--trust-request-chat-template": "a client brings no template",
}
_SEVERAL_WORKERS = ("--tensor-parallel", "-tp", "--pipeline-parallel", "-pp", "--data-parallel",
                    "-dp")  # fmt: skip


def command_line(
    settings: ServeSettings, base: BaseRecord, max_rank: int, *, on_cpu: bool
) -> list[str]:
    """What to run. Raises a usage error for a flag of vLLM's that adz serve sets itself."""
    _check_extra(settings.extra)
    resident = settings.max_resident
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", base.path,
        "--served-model-name", base.name,
        "--host", settings.host,
        "--port", str(settings.port),
        "--runner", "generate",
        "--enable-lora",
        "--max-lora-rank", str(max_rank),
        "--max-loras", str(resident),
        "--max-cpu-loras", str(room(resident)),
        "--dtype", served_dtype(settings.dtype, on_cpu=on_cpu),
        "--disable-uvicorn-access-log",
    ]  # fmt: skip
    context = settings.max_context or (_default_context(base) if on_cpu else None)
    if context:
        command += ["--max-model-len", str(context)]
    if settings.data_parallel > 1:
        command += ["--data-parallel-size", str(settings.data_parallel)]
    if settings.ssl_keyfile and settings.ssl_certfile:
        command += ["--ssl-keyfile", str(settings.ssl_keyfile)]
        command += ["--ssl-certfile", str(settings.ssl_certfile)]
    return [*command, *settings.extra]


def room(resident: int) -> int:
    """How many adapters stay in memory where `resident` can be in one batch."""
    return 4 * resident


def environment(
    settings: ServeSettings,
    server: ServerSettings,
    own_key: str,
    given: Mapping[str, str],
    *,
    on_cpu: bool,
) -> dict[str, str]:
    """`given` (the user's environment) with ours in it. `own_key` closes a vLLM into which our
    plugin, and with it our doors, did not come."""
    result = {
        **given,
        **server.to_environment(),
        # The base lies on this machine, and adapters come from the registry.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
        "VLLM_SERVER_DEV_MODE": "0",
        # In the environment, since a command line can be read by every user of the machine.
        "VLLM_API_KEY": own_key,
        "PYTHONUNBUFFERED": "1",
    }
    # An allowlist stays in force, with our plugin added.
    if "VLLM_PLUGINS" in given:
        names = [name for name in given["VLLM_PLUGINS"].split(",") if name]
        result["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*names, PLUGIN]))
    if on_cpu:
        result.setdefault("VLLM_CPU_KVCACHE_SPACE", str(cache_gigabytes(settings.data_parallel)))
        cores = cores_to_bind(settings.data_parallel)
        if cores and not any(flag.startswith(_SEVERAL_WORKERS) for flag in settings.extra):
            result.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
    return result


def served_dtype(asked: str, *, on_cpu: bool) -> str:
    """What `--dtype` becomes: `auto` is left to vLLM but where that would be slow."""
    # Without instructions for it, bfloat16 is 1.6 times slower than float32.
    return "float32" if asked == "auto" and on_cpu and not cpu_has_bf16() else asked


def _default_context(base: BaseRecord) -> int:
    """Tokens of prompt and answer together: small, as the KV cache of a CPU server is."""
    config = json.loads((Path(base.path) / "config.json").read_text(encoding="utf-8"))
    longest = config.get("max_position_embeddings") or _CPU_CONTEXT
    return min(int(longest), _CPU_CONTEXT)


def _check_extra(extra: tuple[str, ...]) -> None:
    for argument in extra:
        if argument.startswith("-"):
            flag = argument.partition("=")[0].replace("_", "-")
            reason = next((_OURS[name] for name in _OURS if flag in (name, name + ".")), None)
            if reason:
                raise usage_error(f"{flag} cannot be given to vLLM here", reason)
