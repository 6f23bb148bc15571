"""What the files of benchmarks share: data, running our scripts and watching them, other readers."""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predict import Prediction

from results import ROOT, markdown, processor  # also finds the scripts one folder up

from captcha_reader.errors import UserError
from captcha_reader.files import write_text

table = markdown

WORK = Path("data/generated/benchmarks")
REAL = Path(os.environ.get("CAPTCHA_DATA", "data/real"))  # benchmarks/README.md says what lies there
SEEDS = (0, 1, 2)
ROUNDS = 5  # of timings
LEPTURE = "captcha==0.7.1"
CAPTCHA_V2_ALPHABET = "2345678bcdefgmnpwxy"
DDDDOCR = "ddddocr==1.6.1"
FONTS, TEXT_FACES = "data/generated/fonts", "data/generated/text-fonts"  # made by benchmarks/select_fonts.py
HELD_OUT = {  # of schemes that no training meets: what, the folder below WORK, fonts
    "held-out schemes, text faces": ("heldout", TEXT_FACES),
    "held-out schemes, display fonts too": ("heldout-novelties", FONTS),
}


def real(name: str) -> Path:
    """The folder of a set of real captchas.

    Raises:
        UserError: it is not there.
    """
    folder = REAL / name
    if not (ROOT / folder).is_dir():
        raise UserError(
            f"the set {name} is not in {REAL}: benchmarks/README.md says where to get it; CAPTCHA_DATA names the folder"
        )
    return folder


def command(*arguments: object) -> tuple[float, float, str]:
    """Run a script of ours from the repository root.

    Returns:
        Seconds, the peak memory in MiB of the process and its children together, and what they printed.
    """
    words = [sys.executable, *map(str, arguments)]
    print("$ python " + shlex.join(words[1:]), flush=True)
    started = time.perf_counter()
    with (ROOT / WORK / "output.log").open("w+b") as log:
        process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        peak = _watch(process)
        seconds = time.perf_counter() - started
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"failed with exit code {process.returncode}:\n{output[-2000:]}")
    return seconds, peak, output


def _watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; the largest sum of resident memory, in MiB, of it and its descendants."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.05)
    return peak / 2**20


def resident(pid: int) -> int:
    """Resident bytes of a process and its descendants, as Linux's /proc has it; 0 elsewhere."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = [c for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)


def machine() -> str:
    """Processor, cores and the date, for a line above a table."""
    return f"{processor()}, {datetime.date.today().isoformat()}"


def weights(name: str = "reader") -> str:
    """Which shipped weights a table was measured with: the beginning of their SHA-256."""
    return hashlib.sha256(shipped_weights(name)).hexdigest()[:8]


def shipped_weights(name: str = "reader") -> bytes:
    """The shipped weights of that name, without what the file says of itself: figures are added there later."""
    file = (ROOT / "saved_models" / f"{name}.safetensors").read_bytes()
    return file[8 + int.from_bytes(file[:8], "little") :]


def train(out: Path, arguments: str) -> tuple[str, float, float]:
    """Train, unless the very same run is complete: same settings, presets, starting weights and data.

    Returns:
        The command, the seconds its epochs took (validation and start-up not counted), and those it took in all.
    """
    line = f"main.py {arguments} --cpu --out {out}"
    presets = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
    start = b"" if "--init scratch" in arguments else shipped_weights()
    words = shlex.split(line)
    named = [words[i + 1] for i, word in enumerate(words) if word in ("--init", "--data", "--teacher")]
    files = [_identity(ROOT / place) for word in named for place in re.split(r"[][\", ]+", word) if place]
    key = hashlib.sha256(b"".join([line.encode(), *presets, start, *files])).hexdigest()
    done = ROOT / out / "done"
    kept = done.read_text().split() if done.exists() else []
    if len(kept) != 2 or kept[0] != key:
        shutil.rmtree(ROOT / out, ignore_errors=True)
        seconds, _, _ = command(*shlex.split(line))
        kept = [key, f"{seconds:.1f}"]
        write_text(done, " ".join(kept))
    history = json.loads((ROOT / out / "history.json").read_text())
    return "python " + line, sum(row["seconds"] for row in history), float(kept[1])


def _identity(path: Path) -> bytes:
    """What tells a dataset, a file or a folder of shards from another one of that name; nothing of other words."""
    if (path / "dataset.json").is_file():
        path /= "dataset.json"  # it holds a fingerprint of pictures and labels
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).digest()
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else []
    return "".join(f"{file.name}{file.stat().st_size}" for file in files).encode()


def split_set(source: Path | str, out: Path, split: str, seed: int) -> str:
    """Make a split dataset, unless it is there.

    Returns:
        The command.
    """
    return _make(out, f"make_dataset.py {source} --out {out} --split {split} --seed {seed}")


def lepture(out: Path, count: int) -> str:
    """Draw captchas with lepture's library into a parquet file. It cannot be seeded: every call draws others.

    Returns:
        The command.
    """
    return _make(out, f"benchmarks/draw_lepture.py {count} {out}")


def held_out() -> tuple[dict[str, Path], list[str]]:
    """Draw the sets of `HELD_OUT`.

    Returns:
        What each is and where, and the commands.
    """
    sets, commands = {}, []
    for what, (name, fonts) in HELD_OUT.items():
        sets[what] = WORK / name
        line = (
            f"captcha_generator.py --count 2000 --style heldout --length 3-10 --seed 99 --fonts {fonts} "
            f"--out {sets[what]}"
        )
        command(*shlex.split(line))  # finished shards stay, those that an interrupted run left out are drawn
        commands.append(f"python {line}")
    return sets, commands


def _make(out: Path, line: str) -> str:
    """Run what makes `out`, unless it is there; gives the command."""
    if not (ROOT / out).exists():
        command(*shlex.split(line))
    return f"python {line}"


def measure(
    data: Path | str, checkpoint: str = "saved_models/reader.onnx", split: str = "all", flags: str = ""
) -> tuple[str, dict]:
    """The report of `accuracy_calculator.py` on some pictures, and the command."""
    report = WORK / "report.json"
    line = f"accuracy_calculator.py --checkpoint {checkpoint} --data {data} --split {split} --threads 1{flags}"
    command(*shlex.split(line), "--json", report)
    return f"python {line}", json.loads((ROOT / report).read_text())


def right_ignoring_case(readings: Sequence[Prediction], texts: Sequence[str]) -> float:
    """The part of the readings that are their text but for the case of letters, 0 to 1."""
    return statistics.mean(r.text.lower() == t.lower() for r, t in zip(readings, texts, strict=True))


def peer_python(name: str, package: str) -> Path:
    """The interpreter of an environment that has another reader; made if need be."""
    python = ROOT / WORK / "peers" / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return python


def as_files(data: Path | str, limit: int | None = None, split: str = "all") -> Path:
    """Labeled pictures as files, for readers that know no parquet: a table of file and text."""
    from accuracy_calculator import load_labeled

    folder = ROOT / WORK / "peers" / "pictures" / Path(data).stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images, texts, _ = load_labeled(str(data), split=split, limit=limit)
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "text"])
        for i, (image, text) in enumerate(zip(images, texts, strict=True)):
            (folder / f"{i}.png").write_bytes(image)
            writer.writerow([folder / f"{i}.png", text])
    return folder / "data.csv"


def read_with(python: Path | str, reader: str, pictures: Path, one_core: bool = False) -> dict:
    """What `read_with.py` reports, on all cores or on one. `reader` may be followed by a number of views."""
    words = [str(python), str(ROOT / "benchmarks" / "read_with.py"), reader.split()[0], str(pictures)]
    words += reader.split()[1:]
    if one_core:
        words = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *words]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
