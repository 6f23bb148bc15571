"""Read parquet shards of captchas into parquet shards of readings; `predict.py --out FOLDER SHARDS...` starts it.

For each shard one of the same name: the columns of the source without the pictures (its `text`, the label, as `label`),
and `file`, `reading`, `confidence`, `character_confidences`, and `error` where a picture could not be read. A shard
appears whole or not at all, and what an earlier run finished with the same weights is kept.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_reader.checkpoint import hash_checkpoint
from captcha_reader.config import PredictConfig
from captcha_reader.errors import UserError
from captcha_reader.files import clear_leftovers, visible_files, write_atomically
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.prediction import Predictor
from captcha_reader.transforms import View

METADATA_KEY = b"captcha_readings"
READINGS = pa.schema(
    [
        ("file", pa.string()),
        ("reading", pa.string()),
        ("confidence", pa.float32()),
        ("character_confidences", pa.list_(pa.float32())),
        ("error", pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is the same for all shards of one run.

    Attributes:
        out: folder of the readings.
        factory: builds the predictor.
        checkpoint: the file that it reads.
        weights: SHA-256 of that file, in hex digits, as the machine sees it that hands out the work.
        batch_size: pictures per forward pass.
        tta_views: of one picture, at most.
        constraints: what is known of the texts.
    """

    out: str
    factory: Callable[[], Predictor]
    checkpoint: str
    weights: str
    batch_size: int
    tta_views: int
    constraints: Constraints


class BadShard(UserError):
    """A shard that cannot be read; the others can."""


def shard_folders(paths: Iterable[str | Path]) -> list[Path]:
    """Those of the folders named, and of the folders below them, that hold parquet shards."""
    folders = (path for path in map(Path, paths) if path.is_dir())
    return sorted({shard.parent for folder in folders for shard in visible_files(folder, "*.parquet")})


def named(paths: Iterable[str | Path]) -> str:
    """Paths for a message."""
    return ", ".join(map(str, paths))


def find_shards(paths: Sequence[str | Path]) -> list[Path]:
    """The parquet files named, and those in the folders named, sorted.

    Raises:
        UserError: a path does not exist, there is no shard, or two have the same name.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} does not exist: check the name")
        found += sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    found = [path for path in found if not path.name.startswith(".")]
    if not found:
        if below := shard_folders(paths):
            raise UserError(f"there are parquet shards in {named(below)}: name that instead of {named(paths)}")
        raise UserError(f"there is no parquet shard in {named(paths)}: with --out, shards are read")
    names: dict[str, Path] = {}
    for path in found:
        if path.name in names:
            raise UserError(f"{path} and {names[path.name]} have the same name: read them into two folders")
        names[path.name] = path
    return found


def read_shards(
    config: PredictConfig, factory: Callable[[], Predictor], checkpoint: Path, constraints: Constraints
) -> tuple[int, int]:
    """Read all shards of `config.images` into the folder `config.out`, whether or not one of them cannot be read.

    Args:
        config: says the shards, the folder, the batch size, the engine and the number of views.
        factory: builds the predictor, in each process that reads; picklable, and equal to its copies.
        checkpoint: the file that it reads.
        constraints: what is known of the texts.

    Returns:
        How many pictures were read, and how many could not be.

    Raises:
        UserError: no shards, or some that cannot be read, which are named on stderr.
    """
    from tqdm import tqdm

    shards = find_shards(config.images)
    folder = Path(str(config.out))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder as --out")
    if any(folder.resolve() == shard.resolve().parent for shard in shards):
        raise UserError(f"{folder} holds the shards themselves: give another folder as --out")
    clear_leftovers(folder)
    job = Job(
        out=str(folder.resolve()),
        factory=factory,
        checkpoint=str(checkpoint),
        weights=_weights(str(checkpoint)),
        batch_size=config.batch_size,
        tta_views=config.tta_views,
        constraints=constraints,
    )
    if config.engine == "local":
        _predictor(factory)  # complain of what it cannot do before anything is written
    work = partial(_read_or_report, job=job)
    names = [str(shard.absolute()) for shard in shards]  # not resolved: a link may have another name
    if config.engine == "ray":
        from captcha_reader.cluster import run_on_ray

        results: Iterator[dict[str, Any]] = run_on_ray(work, names)
    else:
        results = map(work, names)
    total = failed = 0
    bad: dict[str, str] = {}
    with tqdm(total=len(shards), unit="shard", desc="reading") as bar:
        for result in results:
            total, failed = total + result["pictures"], failed + result["failed"]
            bad |= {result["shard"]: result["bad"]} if result["bad"] else {}
            bar.update()
            bar.set_postfix(pictures=f"{total:,}", refresh=False)
    missing = sum(name not in bad and not (folder / Path(name).name).exists() for name in names)
    if missing:
        raise UserError(f"{missing} of {len(shards)} shards were read elsewhere: give an --out that all machines share")
    for _, message in sorted(bad.items()):
        print(f"skipped: {message}", file=sys.stderr)
    if bad:
        raise UserError(
            f"{len(bad)} of {len(shards)} shards could not be read; {total:,} pictures of others are in {folder}"
        )
    return total, failed


def _read_or_report(source: str, job: Job) -> dict[str, Any]:
    """As `read_shard`, with the `shard`, and what is wrong with it, if anything is, as `bad`."""
    try:
        return read_shard(source, job) | {"shard": source, "bad": ""}
    except BadShard as error:
        return {"pictures": 0, "failed": 0, "shard": source, "bad": str(error)}


def read_shard(source: str, job: Job) -> dict[str, Any]:
    """Read one shard into the folder `job.out`, unless it is there already.

    Returns:
        `pictures` of it, and how many `failed`.

    Raises:
        BadShard: it is damaged, or has no pictures, or columns that clash with the readings'.
        UserError: this machine has other weights, or `out` cannot be written to.
    """
    target = Path(job.out) / Path(source).name
    try:
        file = pq.ParquetFile(source)
        columns = file.schema_arrow.names
    except (OSError, pa.ArrowException) as error:
        raise BadShard(f"{source} is not a parquet file that can be read ({error}): replace or remove it") from None
    if "image" not in columns:
        raise BadShard(f"{source} has no column `image` (it has {', '.join(columns)}): rename the pictures' column")
    if _weights(job.checkpoint) != job.weights:
        raise UserError(f"a worker has other weights in {job.checkpoint}: give all machines the same")
    about = {"pictures": file.metadata.num_rows, "size": Path(source).stat().st_size, "weights": job.weights}
    about |= {"tta_views": job.tta_views, "constraints": str(job.constraints)}
    stamp = json.dumps(about)
    if (kept := _finished(target, stamp)) is not None:
        return kept
    predictor = _predictor(job.factory)
    others = [name for name in columns if name != "image"]
    names = [_renamed(name, columns) for name in others]
    if len({*names, *READINGS.names}) < len(names) + len(READINGS.names):
        raise BadShard(f"{source} has columns whose names clash with the readings' ({', '.join(names)}): rename them")
    failed = 0

    def write(temporary: Path) -> None:
        nonlocal failed
        fields = [file.schema_arrow.field(old).with_name(new) for old, new in zip(others, names, strict=True)]
        # The count of failures is known at the end: it goes into the footer, not into the schema.
        schema = pa.schema([*fields, *READINGS], metadata={METADATA_KEY: stamp.encode()})
        with pq.ParquetWriter(temporary, schema) as writer:
            for batch in _batches(file, source, job.batch_size):
                readings = _read_batch(batch.column("image").to_pylist(), predictor, job.constraints)
                failed += sum(row["error"] is not None for row in readings)
                kept_columns = [batch.column(name) for name in others]
                table = pa.Table.from_pylist(readings, schema=READINGS)
                writer.write_table(pa.Table.from_arrays([*kept_columns, *table.columns], schema=schema))
            writer.add_key_value_metadata({"failed": str(failed)})

    try:
        write_atomically(target, write)
    except OSError as error:
        raise UserError(f"cannot write to {job.out} ({error}): make room or choose another --out") from None
    return {"pictures": file.metadata.num_rows, "failed": failed}


def _batches(file: pq.ParquetFile, source: str, size: int) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(batch_size=size)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise BadShard(f"{source} is damaged ({error}): replace or remove it") from None
        if batch is None:
            return
        yield batch


def _renamed(column: str, columns: list[str]) -> str:
    if column == "text" and "label" not in columns:
        return "label"
    return f"source_{column}" if column in READINGS.names else column


def _read_batch(images: list[Any], predictor: Predictor, constraints: Constraints) -> list[dict[str, Any]]:
    """A row for each picture (`bytes` and `path`, or bytes alone), read in one forward pass."""
    rows: list[dict[str, Any]] = []
    views: list[View] = []
    for image in images:
        data, name = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
        row = dict.fromkeys(READINGS.names) | {"file": name}
        rows.append(row)
        try:
            if not data:
                raise UserError("there are no bytes of a picture in this row")
            views.append(predictor.view(data, name or "the picture"))
        except UserError as error:
            row["error"] = str(error)
    readings = iter(predictor.read(views, constraints=constraints))
    for row in rows:
        if row["error"] is None:
            reading = next(readings)
            row |= {"reading": reading.text, "confidence": reading.confidence}
            row["character_confidences"] = list(reading.char_confidences)
    return rows


@lru_cache(maxsize=1)
def _predictor(factory: Callable[[], Predictor]) -> Predictor:
    """One for all the shards that this process reads."""
    return factory()


_weights = lru_cache(maxsize=1)(hash_checkpoint)  # asked for each shard


def _finished(target: Path, stamp: str) -> dict[str, Any] | None:
    """What `read_shard` returned for a shard that an earlier run finished; None where there is none.

    Raises:
        UserError: something else stands there.
    """
    if not target.exists():
        return None
    try:
        file = pq.ParquetFile(target)
        metadata = file.metadata.metadata or {}
    except (OSError, pa.ArrowException):
        metadata = {}
    if metadata.get(METADATA_KEY, b"").decode() != stamp:
        raise UserError(
            f"{target} was read from other pictures, with other weights, --tta_views or constraints: choose another "
            "--out, or delete that folder"
        )
    return {"pictures": file.metadata.num_rows, "failed": int(metadata[b"failed"])}
