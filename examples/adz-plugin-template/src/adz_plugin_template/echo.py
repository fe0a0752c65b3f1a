"""An engine: it resolves, refuses and swaps as every engine must, and answers with the prompt."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from adapterhub.errors import usage_error
from adapterhub.manifest import BaseRecord, Version
from adapterhub.plugins import open_registry
from adapterhub.protocols import Progress, Registry, ServeSettings
from adapterhub.serve.app import serve_app
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import current_request
from adapterhub.serve.models import list_models, resolve_model, why_not_servable

# Requests that are answered together; more wait at the doors.
_AT_ONCE = 16


class Echo:
    """A `protocols.Engine`."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until Ctrl-C (130) or SIGTERM (0). `serve_app` checks keys and limits."""
        if settings.extra:
            raise usage_error(f"echo has no flags of its own: {' '.join(settings.extra)}")
        registry = open_registry()
        base = registry.base(settings.base)
        # Load the base here in place of this line: the address is taken, nobody waits in vain.
        return serve_app(lambda metrics: create_app(registry, base), settings, at_once=_AT_ONCE)


def create_app(registry: Registry, base: BaseRecord) -> FastAPI:
    """The routes of the OpenAI API."""
    app = FastAPI(openapi_url=None)

    def why_not(version: Version) -> str | None:
        return why_not_servable(version, base)

    @app.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, dict(error.headers))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        listed = list_models(registry, base, why_not)
        return {"object": "list", "data": [{"id": model.id, "object": "model"} for model in listed]}

    @app.post("/v1/completions")
    async def completions(body: dict[str, Any]) -> dict[str, Any]:
        # At each request anew: so an alias moves, and a new version answers, without a restart.
        version = resolve_model(registry, base, body.get("model"), why_not)
        name = version.reference if version else base.name
        seen, prompt = current_request(), str(body.get("prompt", ""))
        seen.answered_by(name)
        words = f"{name}: {prompt}".split()[: int(body.get("max_tokens") or 16)]
        seen.prompt_tokens = len(prompt.split())
        return {
            "object": "text_completion",
            "model": name,
            "choices": [{"index": 0, "text": " ".join(words), "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": seen.prompt_tokens,
                "completion_tokens": len(words),
                "total_tokens": seen.prompt_tokens + len(words),
            },
        }

    return app
