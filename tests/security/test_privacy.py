"""Nothing leaves this machine: each script runs under a guard that sees every address it looks up or connects to.

They write into a pipe that holds ASCII alone, as on Windows: no script may die of a character that it prints.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from served import ROOT, Served

pytest_plugins = ["served"]

SWITCHED_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# Runs scripts one after the other in one process, for torch takes long to import, and writes down what sockets do.
GUARD = """
import json, os, runpy, signal, sys, threading, time, urllib.request
asked = []
def guard(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        asked.append(arguments[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        asked.append(arguments[0])
sys.addaudithook(guard)
def visit(port):
    # Loads the page, then ends the server.
    for _ in range(600):
        try:
            for path in ("health", "", "config", "docs"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60).read()
            break
        except OSError:
            time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
root, commands = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, root)
for script, *words in commands:
    sys.argv = [script, *words]
    if script == "interface.py":
        threading.Thread(target=visit, args=(words[1],), daemon=True).start()
    try:
        runpy.run_path(os.path.join(root, script), run_name="__main__")
    except SystemExit as end:
        assert end.code in (128 + signal.SIGTERM if script == "interface.py" else 0, None), (script, end.code)
print("ASKED " + json.dumps([str(a) for a in asked]))
"""


def is_loopback(address: str) -> bool:
    return bool(re.search(r"127\.0\.0\.1|localhost|::1|^/|^b'|None", address)) or address in ("", "('', 0)")


def run(commands: list[list[str]], folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in SWITCHED_OFF}
    environment = clean | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONIOENCODING"] = "ascii"
    command = [*before, sys.executable, "-c", GUARD, str(ROOT), json.dumps(commands)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=280)


def test_importing_the_package_switches_reports_off(tmp_path: Path):
    program = f"import sys, os, json; sys.path.insert(0, {str(ROOT)!r}); import captcha_reader\n"
    program += "print(json.dumps(dict(os.environ)))"
    clean = {k: v for k, v in os.environ.items() if k not in SWITCHED_OFF}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=clean, check=True)
    found = json.loads(done.stdout)
    assert {name: found.get(name) for name in SWITCHED_OFF} == SWITCHED_OFF
    kept = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=clean | {"DO_NOT_TRACK": "yes"}
    )
    assert json.loads(kept.stdout)["DO_NOT_TRACK"] == "yes"  # what somebody has set stays


def test_scripts_speak_to_nobody(tmp_path: Path):
    """From drawing to training, measuring and serving; the loopback address is allowed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    small = ["--model", "crnn", "--image_size", "[16,48]", "--hidden", "8", "--cpu", "--threads", "1"]
    scratch = ["--init", "scratch", "--frozen_epochs", "0", "--epochs", "1", "--evaluate", "false"]
    pictures = ["--count", "60", "--style", "classic", "--length", "4", "--alphabet", "0123456789", "--workers", "1"]
    commands = [
        ["captcha_generator.py", "--out", "raw", *pictures],
        ["make_dataset.py", "raw", "--out", "set", "--workers", "1"],
        ["predict.py", "→.png", "--threads", "1"],
        ["accuracy_calculator.py", "--data", "set", "--checkpoint", str(ROOT / "saved_models/reader.onnx")],
        ["main.py", "--data", "set", "--out", "rün→", *small, *scratch],
        ["export_model.py", "--checkpoint", "rün→/best.safetensors", "--out", "reader.onnx", "--tolerance", "0.1"],
        ["interface.py", "--port", port, "--threads", "1", "--data", "kept"],
    ]
    shutil.copy(ROOT / "examples" / "7kPx2.png", tmp_path / "→.png")
    done = run(commands, tmp_path)
    assert done.returncode == 0 and done.stdout.isascii(), done.stderr[-2000:]
    asked = json.loads(re.search(r"^ASKED (.*)$", done.stdout, re.MULTILINE)[1])  # type: ignore[index]
    assert [address for address in asked if not is_loopback(address)] == []
    assert not (tmp_path / "cache" / "Microsoft").exists() and not (tmp_path / ".cache" / "Microsoft").exists()


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_onnx_runtime_speaks_to_nobody(tmp_path: Path):
    """Its own code opens sockets that Python does not see."""
    log = tmp_path / "calls"
    trace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(log)]
    done = run([["predict.py", str(ROOT / "examples" / "7kPx2.png"), "--threads", "1"]], tmp_path, *trace)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr[-2000:]
    calls = [line for line in log.read_text().splitlines() if "AF_INET" in line]
    assert [line for line in calls if "127.0.0.1" not in line and "::1" not in line] == []


@pytest.mark.nightly
def test_a_socks_proxy_in_the_environment_is_no_matter(
    models_folder: Path, png: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("ALL_PROXY", "all_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    server = Served(models_folder, tmp_path / "data", temporary=tmp_path / "tmp")
    try:
        assert server.read(png).json()["text"] == "7kPx2"
        assert server.client.get("/").status_code == 200
    finally:
        server.stop()


def test_another_user_s_folder_is_not_ours(served: Served):
    """/tmp/gradio may belong to anybody: uploads go to a folder of this process."""
    answer = served.client.post("/gradio_api/upload", files={"files": b"x"})
    assert Path(answer.json()[0]).is_relative_to(served.folder)
    assert served.folder.name.startswith(f"captcha-reader-{served.process.pid}-")
