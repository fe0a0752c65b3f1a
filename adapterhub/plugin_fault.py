"""Whose code an unexpected error came from."""

from __future__ import annotations

from adapterhub.entry_points import GROUP, OWN_DISTRIBUTION, find_entry_points


def blamed_plugin(error: BaseException) -> str | None:
    """The distribution and version of the innermost code of a foreign plugin that an error went
    through; None where it went through ours and libraries alone."""
    packages = {
        entry.value.partition(":")[0].partition(".")[0]: f"{entry.distribution} {entry.version}"
        for entry in find_entry_points(GROUP)
        if entry.distribution != OWN_DISTRIBUTION
    }
    blamed, place = None, error.__traceback__
    while place is not None:
        module = place.tb_frame.f_globals.get("__name__", "")
        blamed = packages.get(module.partition(".")[0], blamed)
        place = place.tb_next
    return blamed
