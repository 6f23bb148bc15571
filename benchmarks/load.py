"""Load on the route: many clients at once, beside a plain-torch server that reads one request at a time.

    python benchmarks/load.py                                      # 64 clients, 60 seconds each, then 5 minutes' memory
    python benchmarks/load.py --clients 8 --seconds 5 --soak 0     # a quick look
    python benchmarks/load.py --hostile --soak 300                 # attacks beside good requests (hostile.py)
    python benchmarks/run.py serving                               # as the first, and write benchmarks/serving.md

Both servers run on the same machine in the same run, one after the other, each as a process of its own with the same
number of threads; the clients are one more process. The baseline is what one would write first: FastAPI, the
.safetensors weights on torch, a lock, one picture per forward pass. Memory is the server's resident set, children
included. Nothing but 200 and 503 is a success.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hostile import attacks, carry_out
from results import cell
from tables import ROOT, machine, resident, table  # also finds the modules one folder up

from captcha_reader.cli import run
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, available_cores

BASELINE = """
import sys, threading
sys.path.insert(0, sys.argv[1])
import uvicorn
from fastapi import FastAPI, UploadFile
from predict import CaptchaPredictor
predictor = CaptchaPredictor(sys.argv[2], device="cpu", threads=int(sys.argv[4]))
lock, app = threading.Lock(), FastAPI()
@app.post("/predict")
def predict(file: UploadFile):
    with lock:
        return predictor.predict([file.file.read()])[0].as_dict()
@app.get("/health")
def health():
    return {"status": "ok"}
uvicorn.run(app, port=int(sys.argv[3]), log_level="warning", access_log=False)
"""


@dataclass
class Outcome:
    """What one server did.

    Attributes:
        name: of the server.
        start: seconds from the start of the process to its first answer.
        statuses: answers by status; "error" for a connection that failed.
        seconds: of each reading (status 200), from request to answer.
        elapsed: of the whole load.
        memory: (seconds since the start of the load, bytes).
    """

    name: str
    start: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Seconds within which that share of the readings came."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@contextmanager
def server(*command: str, **environment: str) -> Iterator[tuple[int, int]]:
    """Run Python with these arguments, among them `PORT` for a free port; gives (port, process id) once it answers.
    Keywords are environment variables.

    Raises:
        UserError: it does not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *(part.replace("PORT", str(port)) for part in command)], cwd=ROOT, env=os.environ | environment
    )
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > end:
                    raise UserError("the server did not start: run interface.py by hand to see why") from None
                time.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)


async def _client(port: int, bodies: Sequence[bytes], first: int, end: float, outcome: Outcome) -> None:
    """One client: a connection that is kept, a request as soon as the last one is answered."""
    reader = writer = None
    number = first
    while time.perf_counter() < end:
        body = bodies[number % len(bodies)]
        number += 1
        started = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(body)
            await writer.drain()
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
            await reader.readexactly(int(fields[b"content-length"]))
            status = head.split(b" ", 2)[1].decode()
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
            status = "error"
            if writer is not None:
                writer.close()
            reader = writer = None
        outcome.statuses[status] += 1
        if status == "200":
            outcome.seconds.append(time.perf_counter() - started)
        elif status == "503":
            await asyncio.sleep(0.05)
    if writer is not None:
        writer.close()


def _request(picture: Path) -> bytes:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    body += picture.read_bytes() + b"\r\n--b--\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body


async def _load(port: int, pid: int, clients: int, seconds: float, outcome: Outcome) -> None:
    bodies = [_request(path) for path in sorted((ROOT / "examples").glob("*.png"))]
    started = time.perf_counter()
    end = started + seconds

    async def watch() -> None:
        while time.perf_counter() < end:
            outcome.memory.append((time.perf_counter() - started, await asyncio.to_thread(resident, pid)))
            await asyncio.sleep(min(5.0, max(0.5, seconds / 10)))

    await asyncio.gather(watch(), *(_client(port, bodies, i, end, outcome) for i in range(clients)))
    outcome.elapsed = time.perf_counter() - started


def measure(name: str, command: Sequence[str], clients: int, seconds: float, soak: float = 0.0) -> tuple[Outcome, str]:
    """Load a server; gives the outcome, and what the memory did over `soak` seconds more of the same load."""
    outcome, longer = Outcome(name), Outcome(name)
    started = time.perf_counter()
    with server(*command) as (port, pid):
        outcome.start = time.perf_counter() - started
        asyncio.run(_load(port, pid, 4, min(3.0, seconds), Outcome("warm-up")))
        asyncio.run(_load(port, pid, clients, seconds, outcome))
        if soak:
            asyncio.run(_load(port, pid, clients, soak, longer))
    if not soak:
        return outcome, ""
    last = max(1, int(soak // 60))
    first, final = _mean(longer.memory, 0, 60), _mean(longer.memory, 60 * (last - 1), 60 * last)
    return outcome, (
        f"Memory under the same load: {first / 1e6:.0f} MB in minute 1, {final / 1e6:.0f} MB in minute {last} "
        f"({(final / first - 1) * 100:+.1f} %), {sum(longer.statuses.values()):,} answers: {_statuses(longer)}."
    )


def _mean(memory: Sequence[tuple[float, int]], start: float, stop: float) -> float:
    inside = [size for when, size in memory if start <= when < stop]
    return sum(inside) / len(inside) if inside else float("nan")


def _statuses(outcome: Outcome) -> str:
    return ", ".join(f"{n:,} x {status}" for status, n in sorted(outcome.statuses.items()))


def report(
    clients: int = 64, seconds: float = 60, soak: float = 300, threads: int | None = None
) -> tuple[str, dict[str, str], list[list], bool]:
    """Load both servers.

    Returns:
        What was measured, the columns and rows of `results.Table`, and whether the route answered 200 and 503 alone.

    Args:
        clients: at once.
        seconds: of load on each server.
        soak: seconds more on the route, to watch its memory.
        threads: CPU threads of a model; all available cores by default.
    """
    busy = os.getloadavg()[0]
    cores = str(threads or available_cores())
    plain = ["-c", BASELINE, str(ROOT), str(DEFAULT_CHECKPOINT), "PORT", cores]
    baseline, _ = measure("plain torch, one at a time", plain, clients, seconds)
    route = ["interface.py", "--port", "PORT", "--threads", cores]
    ours, memory = measure("this route", route, clients, seconds, soak)
    rows = [
        [
            o.name,
            len(o.seconds) / o.elapsed,
            o.quantile(0.5) * 1000,
            o.quantile(0.99) * 1000,
            _statuses(o),
            o.memory[-1][1] / 1e6,
            o.start,
        ]
        for o in (ours, baseline)
    ]
    columns = {
        "server": "",
        "readings per second": ".1f",
        "p50, ms": ".0f",
        "p99, ms": ".0f",
        "answers": "",
        "memory, MB": ".0f",
        "first answer after, s": ".1f",
    }
    about = (
        f"{clients} clients at once for {seconds:.0f} s, {cores} threads, the pictures of examples/; load of the "
        f"machine before: {busy:.1f}. {memory}"
    )
    return about.strip(), columns, rows, set(ours.statuses) <= {"200", "503"}


def hostile(clients: int = 64, soak: float = 300, threads: int | None = None) -> tuple[str, bool]:
    """Good requests alone, then the same beside attacks, all from this machine.

    Args:
        clients: in all; half of them mean harm.
        soak: seconds of attacks.
        threads: CPU threads of the model; all available cores by default.

    Returns:
        What was measured, and whether all is well: good requests take at most twice their time in the median, memory
        at the end is within 10 % of the first minute's, the temporary folder does not grow, no answer is a 5xx but 503
        and 507.
    """
    good, bad = clients - clients // 2, clients // 2
    alone, beside = Outcome("alone"), Outcome("beside attacks")
    harm: Counter[str] = Counter()
    disk: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        command = ["interface.py", "--port", "PORT", "--data", f"{folder}/data", "--max_disk_mb", "100"]
        command += ["--threads", str(threads or available_cores())]
        with server(*command, TMPDIR=folder) as (port, pid):
            asyncio.run(_load(port, pid, 4, 3, Outcome("warm-up")))
            asyncio.run(_load(port, pid, good, max(5.0, min(30.0, soak / 4)), alone))

            async def both() -> None:
                kinds = attacks((ROOT / "examples" / "7kPx2.png").read_bytes())
                end = time.perf_counter() + soak

                async def attack(first: int) -> None:
                    rng = random.Random(first)
                    while time.perf_counter() < end:
                        kind = rng.choice(kinds)
                        harm[await carry_out(port, kind)] += 1

                async def watch() -> None:
                    while time.perf_counter() < end:
                        disk.append(await asyncio.to_thread(_size, Path(folder)))
                        await asyncio.sleep(min(5.0, soak / 10))

                await asyncio.gather(watch(), _load(port, pid, good, soak, beside), *(attack(i) for i in range(bad)))

            asyncio.run(both())
            disk.append(_size(Path(folder)))
        left = [path.name for path in Path(folder).glob("captcha-reader-*")]
    part = min(60.0, soak / 3)
    first, last = _mean(beside.memory, 0, part), _mean(beside.memory, soak - part, soak + 1)
    slower = beside.quantile(0.5) / alone.quantile(0.5)
    wrong = [status for status in (*beside.statuses, *harm) if status.startswith("5") and status not in ("503", "507")]
    checks = {
        f"good requests take {slower:.2f} times as long in the median (at most 2)": slower <= 2,
        f"memory {first / 1e6:.0f} MB, at the end {last / 1e6:.0f} MB (within 10 %)": last <= 1.1 * first,
        f"temporary folder {max(disk) / 1e6:.0f} MB at most (100 allowed)": max(disk) <= 100e6,
        f"answers to attacks: {_count(harm)}": not wrong,
        f"left behind at the end: {left or 'nothing'}": not left,
    }
    said = [f"{'ok ' if well else 'BAD'} {what}" for what, well in checks.items()]
    said += [
        f"    {o.name}: {len(o.seconds):,} readings, p50 {o.quantile(0.5) * 1000:.0f} ms, {_statuses(o)}"
        for o in (alone, beside)
    ]
    return "\n".join(said), all(checks.values())


def _count(found: Counter[str]) -> str:
    return ", ".join(f"{n:,} x {status}" for status, n in sorted(found.items()))


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def main() -> int:
    """Command line. Exit code 1 where the route answered anything but 200 and 503."""
    parser = argparse.ArgumentParser(description="Load the REST route, and a plain-torch baseline.")
    parser.add_argument("--clients", type=int, default=64, help="at once")
    parser.add_argument("--seconds", type=float, default=60, help="of load on each server")
    parser.add_argument("--soak", type=float, default=300, help="seconds more on the route, to watch its memory")
    parser.add_argument("--threads", type=int, help="CPU threads of a model; all available cores by default")
    parser.add_argument("--hostile", action="store_true", help="good requests beside attacks, for --soak seconds")
    settings = vars(parser.parse_args())
    if settings.pop("hostile"):
        said, good = hostile(settings["clients"], settings["soak"], settings["threads"])
        print(f"{said}\n{machine()}.")
        return 0 if good else 1
    about, columns, rows, good = report(**settings)
    print(f"{about} {machine()}.\n")
    print(table(list(columns), [[cell(*pair) for pair in zip(row, columns.values(), strict=True)] for row in rows]))
    return 0 if good else 1


if __name__ == "__main__":
    run(main)
