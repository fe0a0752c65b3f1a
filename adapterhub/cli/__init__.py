"""The command `adz`: a group that knows its commands by a line each and loads one when called."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys

import click

from adapterhub import __version__
from adapterhub.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, AdzError, unknown_name

# One file a command: adapterhub/cli/<name>.py holds a click command called `command`.
# A test compares these lines with the commands' own short help.
COMMANDS: dict[str, str] = {
    "base": "Add, list, show and remove base models.",
    "data": "Check a data set, or write it in another format.",
    "train": "Train an adapter on a base.",
    "eval": "Score adapters beside their base.",
    "merge": "Merge adapters into one, without the base model.",
    "convert": "Make a plain LoRA of an adapter of another method.",
    "rebuild": "Make a version again and compare the bytes.",
    "ls": "List the adapters.",
    "show": "Show one version.",
    "log": "Show the history of an adapter.",
    "diff": "Compare two adapters.",
    "lineage": "Show what a version or a base was made from.",
    "tag": "Point an alias at a version.",
    "rm": "Remove a version, or all of an adapter.",
    "restore": "Bring back what was removed.",
    "import": "Store a copy of an adapter that was made elsewhere.",
    "adopt": "Find and import the adapters below folders.",
    "export": "Write an adapter, or the model with it folded in.",
    "push": "Copy versions to a remote.",
    "pull": "Store versions from a remote.",
    "gc": "Free the space of removed versions.",
    "fsck": "Verify every file, manifest and alias.",
    "serve": "Serve a base and its adapters over the OpenAI API.",
    "preset": "Set what a version's requests get by default.",
    "ps": "List the servers that run.",
    "top": "Show what a server does, live.",
    "stop": "Stop a server.",
    "keys": "Make, list and remove the keys of servers.",
    "chat": "Talk to a base or an adapter on a running server.",
    "run": "Ask a base or an adapter a prompt, or many.",
    "plugins": "Show what came from which plugin.",
    "doctor": "Show what is installed, what is wrong and what to do.",
}

# What to do, and what else where it happened to our own files.
_NO_SPACE = ("free some space", ", or set ADZ_HOME to a folder on another disk")
_NO_ACCESS = ("check the permissions", ", or set ADZ_HOME to a folder of your own")
_FAILURE_HINTS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EROFS: _NO_ACCESS,
}

# `import` is a word of Python's.
_MODULES = {"import": "import_"}


class LazyGroup(click.Group):
    """Lists commands from `COMMANDS` and the plugins; imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(set(_plugin_commands()) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"adapterhub.cli.{_MODULES.get(cmd_name, cmd_name)}")
            command: click.Command = module.command
            return command
        return _load_plugin_command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown_name("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(COMMANDS.items())
        rows += [(n, s) for n, s in sorted(_plugin_commands().items()) if n not in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugin_commands() -> dict[str, str]:
    from adapterhub.entry_points import GROUP, OWN_DISTRIBUTION, find_entry_points

    # Importing the descriptors and the loader costs 20 ms; most installations add no plugin.
    foreign = [e for e in find_entry_points(GROUP) if e.distribution != OWN_DISTRIBUTION]
    if not foreign:
        return {}
    from adapterhub.plugin_cache import PluginCache
    from adapterhub.plugin_choice import why_disabled

    disabled = why_disabled(foreign)
    wanted = sorted(e for e in foreign if e.distribution not in disabled)
    known = PluginCache().command_summaries(wanted)
    if known is not None:
        return known
    from adapterhub.plugins import load_plugins

    return {name: c.summary for name, c in load_plugins().commands().items()}


def _load_plugin_command(name: str) -> click.Command | None:
    # `distribution:name` chooses among plugins that share a name.
    if name.rpartition(":")[2] not in _plugin_commands():
        return None
    from adapterhub import specs
    from adapterhub.plugins import load_plugins

    plugins = load_plugins()
    component = plugins.get(specs.Command, name)
    command: click.Command = plugins.load_implementation(component)
    return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ADZ"},
)
@click.version_option(__version__, prog_name="adz")
@click.pass_context
def adz(ctx: click.Context) -> None:
    """Train many adapters on one base; keep, merge and serve them."""
    # click ignores NO_COLOR on a terminal.
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    from adapterhub.cli.defaults import user_defaults

    ctx.default_map = user_defaults(ctx, adz)


def main(arguments: list[str] | None = None) -> int:
    """Run `adz` and return its exit code; a user's mistake is one line on stderr. The traceback of
    what nobody expected ends with whose code it is."""
    try:
        return _run(arguments)
    except Exception as error:
        from adapterhub.plugin_fault import blamed_plugin

        plugin = blamed_plugin(error)
        if plugin is not None:
            error.add_note(f"adz: this went wrong in the plugin {plugin}: tell its author")
        raise


def _run(arguments: list[str] | None) -> int:
    _quieten_libraries()
    try:
        result = adz.main(args=arguments, prog_name="adz", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except AdzError as error:
        _complain(str(error))
        return error.exit_code
    except ModuleNotFoundError as error:
        from adapterhub.cli.extras import missing_module

        words = sys.argv[1:] if arguments is None else arguments
        lacking = missing_module(error, next((w for w in words if not w.startswith("-")), ""))
        if lacking is None:
            raise
        _complain(str(lacking))
        return lacking.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        _complain(_message(error))
        return error.exit_code
    except BrokenPipeError:
        # The reader of our stdout went away (`adz ls | head`): no more can be said there.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        return EXIT_FAILED
    except OSError as error:
        _complain(_failure(error))
        return EXIT_FAILED
    except RuntimeError as error:
        # Python 3.11 wraps what ends the making of a class, Ctrl-C during an import too.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        _complain("interrupted")
        return EXIT_INTERRUPTED


def _message(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if context is None or "Did you mean" in text:
        return text
    return f"{text.rstrip('.')} (see '{context.command_path} --help')"


def _failure(error: OSError) -> str:
    # Of a copy it is the target that is full or closed.
    path = error.filename2 or error.filename
    text = f"{error.strerror or error}" + (f": {path}" if path else "")
    if error.errno not in _FAILURE_HINTS:
        return text
    hint, at_home = _FAILURE_HINTS[error.errno]
    return f"{text} ({hint}{at_home if _concerns_home(path) else ''})"


def _concerns_home(path: object) -> bool:
    """Whether a file is below ADZ_HOME or on the way there; an unnamed one may be."""
    if not isinstance(path, str | bytes | os.PathLike):
        return True
    from pathlib import Path

    from adapterhub.home import adz_home

    home, given = adz_home(), Path(os.fsdecode(path)).absolute()
    return given.is_relative_to(home) or home.is_relative_to(given)


def _complain(message: str) -> None:
    print(f"adz: {message}", file=sys.stderr)


def _quieten_libraries() -> None:
    """No telemetry, and no progress bars or warnings of libraries between our own lines."""
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    }.items():
        os.environ.setdefault(name, value)
    # torchao names every kernel for other hardware that it does not load.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
