"""The real program as a process of its own, talked to over sockets, and measured from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 250.0  # seconds; a machine that does other things too is slow


class Served:
    """interface.py on a free port, with small limits.

    Attributes:
        client: for requests.
        folder: its temporary folder.
    """

    def __init__(self, models: Path, data: Path, *arguments: object, temporary: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, str(ROOT / "interface.py"), "--port", str(self.port), "--threads", "1"]
        command += ["--models", str(models), "--data", str(data), *map(str, arguments)]
        temporary.mkdir(parents=True, exist_ok=True)
        self.temporary = temporary
        self.log = (temporary.parent / f"{temporary.name}.log").open("w+")
        environment = os.environ | {"TMPDIR": str(temporary), "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        self.address = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.address, timeout=PATIENCE, trust_env=False)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if self.client.get("/health", timeout=5).status_code:
                    break
            except httpx.TransportError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.process.kill()
                    raise AssertionError(f"it did not start: {self.said}") from None
                time.sleep(0.05)
        self.folder = next(temporary.glob("captcha-reader-*"))

    @property
    def said(self) -> str:
        """What it has printed."""
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    @property
    def memory(self) -> int:
        """Resident bytes of the process."""
        return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())[1]) * 1000  # type: ignore[index]

    @property
    def disk(self) -> int:
        """Bytes below its temporary folder, and those of files without a name that it holds open there."""
        named = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        unnamed = 0
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                target = str(link.readlink())
                if str(self.temporary) in target and "(deleted)" in target:
                    unnamed += link.stat().st_size
            except OSError:
                continue
        return named + unnamed

    def read(self, png: bytes) -> httpx.Response:
        """A request of somebody who means no harm."""
        return self.client.post("/predict", files={"file": ("a.png", png)})

    def connect(self, timeout: float = 30) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def call(self, api_name: str, data: Sequence[Any]) -> str:
        """Call an endpoint of the page to its end; gives what the stream of events said."""
        begun = self.client.post(f"/gradio_api/call/{api_name}", json={"data": list(data)})
        if begun.status_code != 200:
            return begun.text
        return self.client.get(f"/gradio_api/call/{api_name}/{begun.json()['event_id']}").text

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask it to end; gives its exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.log.close()


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped reader as .onnx alone: nothing here needs torch, which takes long to import."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(ROOT / "saved_models" / "reader.onnx", folder)
    return folder


@pytest.fixture(scope="session")
def served(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    limits = ["--max_disk_mb", 30, "--max_upload_mb", 5, "--max_connections", 60]
    server = Served(models_folder, folder / "data", *limits, temporary=folder / "tmp")
    yield server
    # Ctrl-C, at the end of all that was done to it: nothing is left.
    code = server.stop(signal.SIGINT)
    assert code == 130
    assert not list(server.temporary.iterdir())


@pytest.fixture(scope="session")
def png() -> bytes:
    """A captcha."""
    return (ROOT / "examples" / "7kPx2.png").read_bytes()


@contextmanager
def meanwhile(action: Callable[[], Any]) -> Iterator[list[float]]:
    """Repeat an action in a thread while the body runs; gives the seconds that each took."""
    seconds: list[float] = []
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            started = time.monotonic()
            action()
            seconds.append(time.monotonic() - started)
            done.wait(0.02)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield seconds
    finally:
        done.set()
        thread.join(PATIENCE)


def seconds_of(action: Callable[[], Any], times: int = 1) -> float:
    """The least seconds that an action takes of so many times."""
    found = []
    for _ in range(times):
        started = time.monotonic()
        action()
        found.append(time.monotonic() - started)
    return min(found)


def is_json_error(answer: httpx.Response) -> bool:
    """Whether a refusal says why, in JSON."""
    said = json.loads(answer.text)
    return answer.headers["content-type"].startswith("application/json") and bool(said.get("error") or said["detail"])
