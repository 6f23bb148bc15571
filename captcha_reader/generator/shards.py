"""Many captchas: a pool of workers that draws them, and parquet shards in the Hugging Face image layout.

A shard appears whole or not at all, and says in its metadata what it was drawn with, so that a run that was cut off
goes on and other settings are not mixed in.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from glob import escape
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Any

from captcha_reader.config import GeneratorConfig
from captcha_reader.errors import UserError
from captcha_reader.files import available_cores, clear_leftovers, process_runs, write_atomically, write_text
from captcha_reader.generator.fonts import find_fonts
from captcha_reader.generator.render import (
    GENERATOR_VERSION,
    USUAL_ALPHABET,
    USUAL_LENGTH,
    CaptchaSettings,
    render_captcha,
)
from captcha_reader.generator.schemes import HELD_OUT_SCHEMES, MIXED, RARE_SCHEMES, SCHEMES, get_style
from captcha_reader.generator.styles import STYLES, style_to_dict

ROW_GROUP = 256  # pictures per parquet row group: about what the writing process holds in memory
CHUNK = 64  # pictures per task of a worker
PARTIAL = ".partial"  # ends the name of a folder of picture files that is being written
METADATA_KEY = b"captcha_generator"  # where a shard names its settings


def iter_captchas(
    settings: CaptchaSettings, indices: Iterable[int], workers: int = 1
) -> Generator[tuple[bytes, str], None, None]:
    """Captchas of the given indices, in their order, drawn by `workers` processes (1: by this one).

    Only a few chunks are under way at a time, so that memory does not grow with their number.

    Raises:
        UserError: as `render_captcha`, or a worker died.
    """
    if workers <= 1:
        for index in indices:
            yield render_captcha(index, settings)
        return
    source = iter(indices)
    # Spawned, not forked, processes behave the same on every system and inherit no threads or locks.
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    pending: deque[Future[list[tuple[bytes, str]]]] = deque()

    def submit_more() -> None:
        while len(pending) < 3 * workers and (chunk := list(islice(source, CHUNK))):
            pending.append(executor.submit(_render_chunk, chunk, settings))

    try:
        with _interrupts_ignored():  # starts the processes, which inherit it
            submit_more()
        while pending:
            yield from pending.popleft().result()
            submit_more()
    except BrokenProcessPool:
        raise UserError("a worker process died, maybe for lack of memory: run again with fewer --workers") from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C reaches the workers too; those still importing would each print a traceback."""
    if current_thread() is not main_thread():  # only the main thread may set signal handlers
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers in order; Windows inherits no handler
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """A killed parent cannot stop its workers, and they would wait for work for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _render_chunk(indices: Sequence[int], settings: CaptchaSettings) -> list[tuple[bytes, str]]:
    return [render_captcha(index, settings) for index in indices]


def check_pictures(folder: Path, others: Iterable[Path]) -> None:
    """Whether `write_pictures` may write there.

    Args:
        folder: for the picture files.
        others: what else is going to be written.

    Raises:
        UserError: it is a file, or a folder that is not empty or will not be.
    """
    for other in others:
        if other.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{other} would stand among the picture files: give --pictures a folder of its own")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder as --pictures")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files already: give --pictures an empty or a new folder")


def write_pictures(shards: Sequence[Path], folder: Path) -> None:
    """Write the captchas of shards as picture files into a folder, and their labels as its labels.csv.

    The folder appears whole or not at all; what a killed run left is cleared away.

    Raises:
        UserError: it cannot be written.
    """
    whole = folder.resolve()
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        for left in whole.parent.glob(f".{escape(whole.name)}.*{PARTIAL}"):
            pid = left.name.removesuffix(PARTIAL).rpartition(".")[2]
            if pid.isdecimal() and (int(pid) == os.getpid() or not process_runs(int(pid))):
                shutil.rmtree(left)
        temporary = whole.with_name(f".{whole.name}.{os.getpid()}{PARTIAL}")
        try:
            temporary.mkdir()
            _write_files(shards, temporary)
            if whole.exists():
                whole.rmdir()  # it is empty
            temporary.rename(whole)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error}): make room or choose another --pictures") from None


def _write_files(shards: Sequence[Path], folder: Path) -> None:
    import pyarrow.parquet as pq
    from tqdm import tqdm

    table = io.StringIO(newline="")
    labels = csv.writer(table)
    labels.writerow(["filename", "label"])
    for shard in tqdm(shards, desc="writing files", unit="shard", leave=False):
        with pq.ParquetFile(shard) as file:
            for group in file.iter_batches(ROW_GROUP):
                for row in group.to_pylist():
                    (folder / row["image"]["path"]).write_bytes(row["image"]["bytes"])
                    labels.writerow([row["image"]["path"], row["text"]])
    write_text(folder / "labels.csv", table.getvalue())


def shard_stamp(config: GeneratorConfig, settings: CaptchaSettings) -> str:
    """Everything that decides the bytes of the shards, as JSON; it stands in each shard's schema metadata."""
    texts = [settings.texts_of(style) for style in settings.styles]
    usual = (settings.alphabet or USUAL_ALPHABET, settings.length if any(settings.length) else USUAL_LENGTH)
    alphabets = dict.fromkeys(alphabet for alphabet, _ in texts)
    fonts = dict.fromkeys(path for alphabet in alphabets for path in find_fonts(alphabet, settings.fonts).paths)
    digest = hashlib.sha256()
    for path in fonts:
        digest.update(Path(path).read_bytes())
    drawn = {SCHEMES, HELD_OUT_SCHEMES, RARE_SCHEMES, MIXED}  # by the generator's version alone, and by these styles:
    mixed = [*STYLES] if MIXED in settings.styles else []
    named = [*mixed, *(style for style in settings.styles if style not in drawn and style not in mixed)]
    stamp = {
        "generator_version": GENERATOR_VERSION,
        "style": config.style,
        "styles": [style_to_dict(get_style(style)) for style in named],
        "alphabet": usual[0],
        "length": "{}-{}".format(*usual[1]),
        "seed": settings.seed,
        "count": config.count,
        "shard_size": config.shard_size,
        "fonts": digest.hexdigest(),
    }
    if {*texts} != {usual}:  # some style has its own
        stamp["texts"] = texts
    return json.dumps(stamp, ensure_ascii=False)


def finished_shards(out: Path, stamp: str) -> set[str]:
    """Names of the shards in `out`, all of them of this stamp. Clears away what a killed run left half written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder as --out")
    clear_leftovers(out)
    names = set()
    for path in sorted(out.glob("*.parquet")):
        if path.name.startswith("."):
            continue
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowException):
            metadata = {}
        found = metadata.get(METADATA_KEY, b"").decode()
        if found != stamp:
            raise UserError(
                f"{path} was made {_difference(found, stamp)}: "
                "choose another --out, delete that folder, or repeat the earlier settings"
            )
        names.add(path.name)
    return names


def _difference(found: str, wanted: str) -> str:
    if not found:
        return "by something else"
    old, new = json.loads(found), json.loads(wanted)
    changed = next((key for key in (*new, "texts") if old.get(key) != new.get(key)), None)
    if changed is None:  # it says something that is unknown here
        return "by another version of the generator"
    if changed == "generator_version":
        return f"by version {old.get(changed, old.get('format'))} of the generator, which is {new[changed]} now"
    if changed in {"styles", "fonts", "texts"}:
        return f"with other settings (the {changed} have changed since)"
    return f"with other settings (--{changed} {old.get(changed)}, now {new[changed]})"


def write_shards(
    config: GeneratorConfig, settings: CaptchaSettings, stamp: str, paths: Sequence[Path], todo: Sequence[int]
) -> None:
    from tqdm import tqdm

    shards = {i: _indices(config, i) for i in todo}
    size = sum(map(len, shards.values()))
    with tqdm(total=size, unit=" captchas", desc="drawing", disable=not size) as bar:
        if config.engine == "ray" and todo:
            from captcha_reader.cluster import run_on_ray  # Ray is a requirement of its own

            # Workers run in folders of their own.
            fonts = str(Path(settings.fonts).resolve()) if settings.fonts else None
            values = asdict(config) | {"out": str(Path(config.out).resolve())}
            work = partial(draw_shard, values=values, settings=replace(settings, fonts=fonts), stamp=stamp)
            for result in run_on_ray(work, [str(i) for i in todo]):
                bar.update(result["captchas"])
            return
        workers = min(config.workers or available_cores(), math.ceil(size / CHUNK) or 1)
        with closing(iter_captchas(settings, chain.from_iterable(shards.values()), workers)) as captchas:
            for i, indices in shards.items():
                write_atomically(paths[i], partial(_write_shard, indices, captchas, stamp, bar.update))


def _indices(config: GeneratorConfig, shard: int) -> range:
    return range(shard * config.shard_size, min((shard + 1) * config.shard_size, config.count))


def shard_path(config: GeneratorConfig, shard: int) -> Path:
    return Path(config.out) / f"train-{shard:05d}-of-{math.ceil(config.count / config.shard_size):05d}.parquet"


def _write_shard(
    indices: range, captchas: Iterator[tuple[bytes, str]], stamp: str, advance: Callable[[int], Any], path: Path
) -> None:
    from captcha_reader.dataset.writer import write_shard

    def rows() -> Iterator[tuple[bytes, str | None, str]]:
        for index, (png, text) in zip(indices, captchas, strict=False):
            yield png, f"{index:08d}.png", text
            advance(1)

    write_shard(path, rows(), {METADATA_KEY: stamp.encode()}, compression="snappy", group_rows=ROW_GROUP)


def draw_shard(shard: str, values: dict[str, Any], settings: CaptchaSettings, stamp: str) -> dict[str, Any]:
    """Draw one shard, as a worker on whatever machine does it.

    Args:
        shard: its number.
        values: the fields of the `GeneratorConfig`.
        settings: what to draw.
        stamp: what decides the shards' bytes, as the machine sees it that hands out the work.

    Returns:
        `captchas`, how many were drawn.

    Raises:
        UserError: this machine would draw other pictures, for it has other fonts.
    """
    config = GeneratorConfig(**values)
    if (mine := shard_stamp(config, settings)) != stamp:
        raise UserError(
            f"a worker would draw {_difference(mine, stamp)}: give all machines the same packages and the same --fonts"
        )
    indices = _indices(config, int(shard))
    captchas = iter_captchas(settings, indices)
    write_atomically(
        shard_path(config, int(shard)), partial(_write_shard, indices, captchas, stamp, lambda count: None)
    )
    return {"captchas": len(indices)}
