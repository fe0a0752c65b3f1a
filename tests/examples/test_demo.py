"""The demo's own work, with a fake `adz`: what is reused and recorded, who stops the server."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from adapterhub.errors import AdzError

ROOT = Path(__file__).resolve().parents[2]

FAKE = """
import http.server, json, os, pathlib, subprocess, sys, time
home = pathlib.Path(os.environ["ADZ_HOME"])
words = [w for w in sys.argv[1:] if w != "--json"]
with open(home / "calls", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
store = home / "store.json"
made = json.loads(store.read_text()) if store.exists() else {}
if words[0] == "show":
    if words[1] not in made:
        sys.exit(2)
    print(json.dumps({"digest": made[words[1]]}))
elif words[0] in ("train", "merge"):
    name = words[-1]
    made[name] = f"sha256:{len(made)}"
    store.write_text(json.dumps(made))
elif words[0] == "fail":
    sys.exit(3)
elif words[0] == "serve" and (home / "broken").exists():
    sys.exit("no such engine")
elif words[0] == "serve":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (home / "child").write_text(str(child.pid))
    class Models(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
    http.server.HTTPServer(("127.0.0.1", int(words[3])), Models).serve_forever()
"""


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo", module)
    spec.loader.exec_module(module)
    fake = tmp_path / "adz.py"
    fake.write_text(FAKE)
    monkeypatch.setattr(module, "ADZ", (sys.executable, str(fake)))
    monkeypatch.setenv("ADZ_HOME", str(tmp_path))
    return module


def calls(home: Path, word: str) -> int:
    path = home / "calls"
    return path.read_text().count(f'["{word}"') if path.exists() else 0


def test_a_step_is_reused_while_its_inputs_are_the_same(demo, tmp_path, capsys):
    first = demo.Demo(tmp_path)
    first.make("train a", "a", ["recipe 1"], "train", "a")
    again = demo.Demo(tmp_path)
    again.read_record()
    again.make("train a", "a", ["recipe 1"], "train", "a")
    assert calls(tmp_path, "train") == 1
    assert "a is there already" in capsys.readouterr().out
    again.make("train a", "a", ["recipe 2"], "train", "a")
    assert calls(tmp_path, "train") == 2


def test_a_step_is_repeated_when_its_adapter_is_another_one(demo, tmp_path):
    run = demo.Demo(tmp_path)
    run.make("train a", "a", ["recipe"], "train", "a")
    (tmp_path / "store.json").unlink()
    run.make("train a", "a", ["recipe"], "train", "a")
    assert calls(tmp_path, "train") == 2


def test_a_failed_command_stops_the_demo_and_leaves_no_record(demo, tmp_path):
    run = demo.Demo(tmp_path)
    with pytest.raises(AdzError, match="adz fail ended with 3"):
        run.run("step", "fail")
    assert run.record == {}
    assert not run.record_path.exists()


def alive(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def fail_beside_the_server(demo: ModuleType, home: Path, error: type[BaseException]) -> None:
    with demo.server(demo.Demo(home)) as url:
        assert url.startswith("http://127.0.0.1:")
        assert alive(int((home / "child").read_text()))
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_server_and_its_children_stop_however_the_block_ends(demo, tmp_path, error):
    with pytest.raises(error):
        fail_beside_the_server(demo, tmp_path, error)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_a_server_that_ends_is_told_at_once(demo, tmp_path, capfd):
    (tmp_path / "broken").touch()
    with pytest.raises(AdzError, match="the server ended with 1"), demo.server(demo.Demo(tmp_path)):
        pytest.fail("it was said to be ready")
    assert "no such engine" in capfd.readouterr().err


def test_a_path_with_spaces_is_quoted_in_what_it_prints(demo, tmp_path, capsys):
    home = tmp_path / "with space"
    run = demo.Demo(home)
    run.commands.append(("adz ls", "1.0 s"))
    demo.finish(run, 60)
    assert f"export ADZ_HOME='{home}'" in capsys.readouterr().out


def test_a_command_is_one_line_that_a_shell_reads_back(demo):
    line = demo.typed(["run", "american", "British: colour\nAmerican:", "a b"])
    assert "\n" not in line
    words = subprocess.run(
        ["bash", "-c", f'adz() {{ printf "%s|" "$@"; }}; {line}'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert words == "run|american|British: colour\nAmerican:|a b|"
