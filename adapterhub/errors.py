"""The one error that adapterhub raises for a user's mistake, and its exit codes."""

from __future__ import annotations

from collections.abc import Iterable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_VERIFICATION = 3
EXIT_INTERRUPTED = 130


class AdzError(Exception):
    """What happened and what was given (`message`), what to do next (`hint`).

    The command line prints it as one line on stderr and exits with `exit_code`;
    it never shows a traceback for it.
    """

    def __init__(self, message: str, hint: str = "", *, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def usage_error(message: str, hint: str = "") -> AdzError:
    """An error in what the user asked for (exit code 2), before any work began."""
    return AdzError(message, hint, exit_code=EXIT_USAGE)


class UnknownNameError(AdzError):
    """A name that nothing has; `known`: the names that were compared with it, so that who takes
    other things too can offer those as well."""

    def __init__(self, kind: str, name: str, known: list[str], hint: str) -> None:
        super().__init__(f"unknown {kind} {name!r}", hint, exit_code=EXIT_USAGE)
        self.name = name
        self.known = known


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """A name that is not known, with the nearest known ones as the hint (exit code 2)."""
    import difflib

    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(near) + "?"
    elif choices:
        hint = "known: " + ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    else:
        hint = f"there is no {kind} yet"
    return UnknownNameError(kind, name, choices, hint)
