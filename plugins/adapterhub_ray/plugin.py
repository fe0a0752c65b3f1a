"""Hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_engines() -> Iterator[specs.Engine]:
    """Never the default: `adz serve --ray` asks for it."""
    yield specs.Engine(
        name="ray",
        summary="replicas of another engine behind Ray Serve",
        impl="adapterhub_ray.engine:RayEngine",
        requires=("ray", "starlette", "openai"),
        install_hint="pip install 'adapterhub[ray,serve]'",
        priority=-1,
    )
