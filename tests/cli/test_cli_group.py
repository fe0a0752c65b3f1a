"""What holds for every command: help, JSON, suggestions, exit codes, colours, imports, time."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import click
import pytest

from adapterhub.cli import COMMANDS, adz
from adapterhub.errors import EXIT_USAGE, AdzError

HEAVY = ("torch", "transformers", "peft", "trl", "vllm", "pydantic", "rich", "numpy")


def every_command():
    """(words, command) for each command and each command of a group."""
    context = click.Context(adz)
    for name in COMMANDS:
        command = adz.get_command(context, name)
        yield (name,), command
        if isinstance(command, click.Group):
            yield from (((name, sub), c) for sub, c in command.commands.items())


ALL = dict(every_command())
LEAVES = {words: c for words, c in ALL.items() if not isinstance(c, click.Group)}


@pytest.mark.parametrize("name", COMMANDS)
def test_line_in_the_list_is_the_commands_short_help(name):
    assert ALL[(name,)].get_short_help_str(limit=200) == COMMANDS[name]


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_has_json(words):
    options = {o for p in LEAVES[words].params for o in p.opts}
    assert "--json" in options


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_option_is_explained(words):
    options = [p for p in LEAVES[words].params if isinstance(p, click.Option) and not p.hidden]
    assert [p.name for p in options if not p.help] == []
    assert LEAVES[words].help


@pytest.mark.parametrize("words", [(), *ALL], ids=lambda words: " ".join(words) or "adz")
def test_help_imports_nothing_heavy(words, tmp_path):
    code = (
        "import sys\nfrom adapterhub.cli import main\n"
        f"code = main({[*words, '--help']!r})\n"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "print(loaded, file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "ADZ_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stderr == "[]\n"
    assert done.stdout.startswith("Usage: adz")


def test_help_takes_little_longer_than_python(tmp_path):
    def seconds(*arguments):
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.DEVNULL,
            env={**os.environ, "ADZ_HOME": str(tmp_path)},
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime

    # Processor time, and the least of many: what else runs here only ever adds to it. Both are
    # single-threaded, so on an idle machine it is the time that a user waits.
    runs = [(seconds("-c", "pass"), seconds("-m", "adapterhub.cli", "--help")) for _ in range(15)]
    bare, helped = (min(column) for column in zip(*runs, strict=True))
    assert helped - bare < 0.12


def test_mistyped_command_is_one_line(adz_process):
    done = adz_process("plugin")
    assert done.code == EXIT_USAGE
    assert done.err == "adz: unknown command 'plugin' (did you mean plugins?)\n"
    assert done.out == ""


def test_mistyped_option_is_one_line_with_the_nearest(adz):
    done = adz("plugins", "--jsn")
    assert (done.code, done.out) == (EXIT_USAGE, "")
    assert done.err == "adz: No such option '--jsn'. Did you mean '--json'?\n"


def test_usage_error_names_the_help(adz):
    done = adz("gc", "more")
    assert done.code == EXIT_USAGE
    assert done.err == "adz: Got unexpected extra argument (more) (see 'adz gc --help')\n"


def test_no_command_shows_the_help(adz):
    done = adz()
    assert (done.code, done.out) == (EXIT_USAGE, "")
    assert "plugins" in done.err


def test_version(adz):
    from adapterhub import __version__

    assert adz("--version").out == f"adz, version {__version__}\n"


def test_reader_that_goes_away_is_no_traceback():
    done = subprocess.run(
        [f"{sys.executable} -m adapterhub.cli plugins --json | true; exit ${{PIPESTATUS[0]}}"],
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(("value", "coloured"), [(None, True), ("1", False)])
def test_no_color_is_honoured_on_a_terminal(value, coloured):
    code = (
        "import click\nfrom adapterhub.cli import adz, main\n"
        "@click.command()\ndef shout(): click.secho('red', fg='red')\n"
        "adz.add_command(shout, 'plugins')\n"
        "import adapterhub.cli.plugins as module\nmodule.command = shout\nmain(['plugins'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment |= {"NO_COLOR": value} if value else {}
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=slave, env=environment, check=True)
    os.close(slave)
    shown = os.read(master, 1000)
    os.close(master)
    assert b"red" in shown
    assert (b"\x1b[" in shown) is coloured


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell, adz_process):
    done = adz_process(env={"_ADZ_COMPLETE": f"{shell}_source"})
    assert done.code == 0
    assert "_ADZ_COMPLETE" in done.out
    assert "adz" in done.out


def test_completion_of_commands_and_options(adz_process):
    words = {"_ADZ_COMPLETE": "bash_complete", "COMP_CWORD": "1", "COMP_WORDS": "adz plu"}
    assert adz_process(env=words).out == "plain,plugins\n"
    words = {"_ADZ_COMPLETE": "bash_complete", "COMP_CWORD": "2", "COMP_WORDS": "adz plugins --js"}
    assert adz_process(env=words).out == "plain,--json\n"


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        # The empty line ends the one on which the terminal shows ^C.
        (KeyboardInterrupt(), 130, "\nadz: interrupted\n"),
        (OSError(28, "No space left on device", "/full"), 1,
         "adz: No space left on device: /full (free some space)\n"),
        (OSError(28, "No space left on device"), 1, "adz: No space left on device "
         "(free some space, or set ADZ_HOME to a folder on another disk)\n"),
        (PermissionError(13, "Permission denied", "/closed"), 1,
         "adz: Permission denied: /closed (check the permissions)\n"),
        *((PermissionError(13, "Permission denied", path), 1,
           f"adz: Permission denied: {path} "
           "(check the permissions, or set ADZ_HOME to a folder of your own)\n")
          for path in ("/srv", "/srv/adz", "/srv/adz/adapters/blobs")),
        (FileExistsError(17, "File exists", "/there"), 1, "adz: File exists: /there\n"),
        (AdzError("it is wrong", "do this", exit_code=3), 3, "adz: it is wrong (do this)\n"),
        (click.FileError("x", "unreadable"), 1, "adz: Could not open file 'x': unreadable\n"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_a_command_raises_is_one_line_and_an_exit_code(adz, monkeypatch, raised, code, line):
    @click.command()
    def command():
        raise raised

    monkeypatch.setattr("adapterhub.cli.plugins.command", command)
    monkeypatch.setenv("ADZ_HOME", "/srv/adz")
    done = adz("plugins")
    assert (done.code, done.out, done.err) == (code, "", line)
