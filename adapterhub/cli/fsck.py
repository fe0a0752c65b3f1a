"""`adz fsck`: verify every file, manifest and alias."""

from __future__ import annotations

from dataclasses import asdict

import click

from adapterhub.cli.output import json_option, print_result


@click.command(short_help="Verify every file, manifest and alias.")
@json_option
def command(as_json: bool) -> int:
    """Verify every stored byte and name; exit with 3 when something is wrong."""
    from adapterhub.errors import EXIT_OK, EXIT_VERIFICATION
    from adapterhub.plugins import open_registry

    findings = list(open_registry().check())
    lines = [
        f"{f.subject}: {f.problem}" + (f" (needed by {', '.join(f.versions)})" * bool(f.versions))
        for f in findings
    ]
    text = "\n".join(lines) if lines else "everything is as it was stored"
    print_result([asdict(finding) for finding in findings], text, as_json=as_json)
    return EXIT_VERIFICATION if findings else EXIT_OK
