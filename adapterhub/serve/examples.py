"""What a user may type next when a server is ready."""

from __future__ import annotations

import json


def example_requests(url: str, model: str, *, needs_key: bool) -> list[str]:
    """Three ways to ask `model` at `url`: curl, Python and adz."""
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 16})
    header = " -H 'Authorization: Bearer KEY'" if needs_key else ""
    key = "KEY" if needs_key else "none"
    return [
        f"curl {url}/completions{header} -H 'Content-Type: application/json' -d '{body}'",
        f"python -c \"from openai import OpenAI; print(OpenAI(base_url='{url}', api_key='{key}')"
        f".completions.create(model='{model}', prompt='Hello').choices[0].text)\"",
        f"adz run {model} 'Hello' --url {url}" + (" --api-key KEY" if needs_key else ""),
    ]
