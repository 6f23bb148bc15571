"""Parquet shards in, parquet shards out: nothing lost, nothing twice, the same from one process and from a cluster."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import captcha_generator
import predict
from captcha_reader import cluster as cluster_module
from captcha_reader.errors import UserError
from captcha_reader.reading import bulk
from captcha_reader.reading.constraints import Constraints
from predict import CaptchaPredictor


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, captchas: list[tuple[bytes, str]]) -> Path:
    """Four shards of ten captchas; one picture of the second is cut short, and one of the third is missing."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(4):
        part = captchas[number * 10 : number * 10 + 10]
        images = [{"bytes": png, "path": f"{number}-{i}.png"} for i, (png, _) in enumerate(part)]
        if number == 1:
            images[3]["bytes"] = images[3]["bytes"][:40]
        if number == 2:
            images[5]["bytes"] = None
        table = pa.table({"image": images, "text": [text for _, text in part], "reading": range(10)})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=4)
    return folder


@pytest.fixture
def read(call: Callable, exported: Path) -> Callable[..., SimpleNamespace]:
    def run(*arguments: object, checkpoint: Path = exported) -> SimpleNamespace:
        code, stdout, stderr = call(predict, "--checkpoint", checkpoint, "--threads", 1, *arguments)
        assert "Traceback" not in stderr
        return SimpleNamespace(code=code, stdout=stdout, stderr=stderr)

    return run


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_each_row_is_read_and_keeps_its_columns(read: Callable, source: Path, exported: Path, tmp_path: Path) -> None:
    done = read(source, "--out", tmp_path / "out")
    assert done.code == 1, "two pictures could not be read"
    assert "38 of 40 pictures read" in done.stdout
    assert sorted(bytes_of(tmp_path / "out")) == [f"{i}.parquet" for i in range(4)]
    predictor = CaptchaPredictor(exported, threads=1)
    for number in range(4):
        rows = pq.read_table(source / f"{number}.parquet").to_pylist()
        found = pq.read_table(tmp_path / "out" / f"{number}.parquet").to_pylist()
        assert [row["file"] for row in found] == [row["image"]["path"] for row in rows]
        assert [row["label"] for row in found] == [row["text"] for row in rows]
        assert [row["source_reading"] for row in found] == list(range(10))
        bad = {1: 3, 2: 5}.get(number)
        for i, (row, answer) in enumerate(zip(rows, found, strict=True)):
            if i == bad:
                assert answer["reading"] is None
                assert ("bytes" if number == 2 else "1-3.png") in answer["error"]
                continue
            expected = predictor.predict([row["image"]["bytes"]])[0]
            assert answer["error"] is None
            assert answer["reading"] == expected.text
            assert answer["confidence"] == pytest.approx(expected.confidence, abs=1e-3)
            assert np.allclose(answer["character_confidences"], expected.char_confidences, atol=1e-3)


def test_what_is_there_is_kept_and_what_is_not_is_made(read: Callable, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = read(source, "--out", out)
    whole = bytes_of(out)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "2.parquet").unlink()
    again = read(source, "--out", out)
    assert (again.code, again.stdout) == (first.code, first.stdout)
    assert bytes_of(out) == whole
    assert {path.name for path in out.iterdir() if path.stat().st_mtime_ns != times[path.name]} == {"2.parquet"}


def test_mistakes_are_told_in_one_sentence(
    read: Callable, source: Path, reader: Path, exported: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert read(source / "0.parquet", "--out", out).code == 0
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.parquet").write_bytes(b"no parquet")
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "texts.parquet")
    pq.write_table(
        pq.read_table(source / "0.parquet").append_column("source_reading", [range(10)]), tmp_path / "c.parquet"
    )
    damaged = bytearray((source / "0.parquet").read_bytes())
    damaged[4:40] = b"\xff" * 36  # the head of its first page
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    for expected, arguments, checkpoint in (
        ("other weights", [source / "0.parquet", "--out", out], reader),
        ("--tta_views", [source / "0.parquet", "--out", out, "--tta_views", 2], exported),
        ("other pictures", [_renamed(source / "1.parquet", tmp_path / "0.parquet"), "--out", out], exported),
        ("bad/0.parquet", [tmp_path / "bad", "--out", tmp_path / "a"], exported),
        ("same name", [source, tmp_path / "bad", "--out", tmp_path / "a"], exported),
        ("clash", [tmp_path / "c.parquet", "--out", tmp_path / "a"], exported),
        ("damaged.parquet is damaged", [tmp_path / "damaged.parquet", "--out", tmp_path / "a"], exported),
        ("--csv", [source, "--csv", tmp_path / "x.csv", "--out", tmp_path / "a"], exported),
        ("no column `image`", [tmp_path / "texts.parquet", "--out", tmp_path / "a"], exported),
        ("no parquet shard", [tmp_path / "empty", "--out", tmp_path / "a"], exported),
        ("does not exist", [tmp_path / "nowhere", "--out", tmp_path / "a"], exported),
        ("shards themselves", [source, "--out", source], exported),
        ("--out FOLDER", [source, "--engine", "ray"], exported),
    ):
        done = read(*arguments, checkpoint=checkpoint)
        assert done.code != 0
        assert expected in done.stderr, done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("error")]) == 1


def test_a_bad_shard_does_not_stop_the_others(read: Callable, source: Path, tmp_path: Path) -> None:
    (tmp_path / "00.parquet").write_bytes(b"no parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "texts.parquet")
    done = read(tmp_path / "00.parquet", tmp_path / "texts.parquet", source, "--out", tmp_path / "out")
    assert done.code == 1
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 2 and "00.parquet is not a parquet file" in skipped[0] and "no column `image`" in skipped[1]
    assert f"2 of {2 + len(list(source.iterdir()))} shards could not be read" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in source.iterdir()}


def test_a_link_and_two_labels_keep_their_names(read: Callable, source: Path, tmp_path: Path) -> None:
    table = pq.read_table(source / "0.parquet").append_column("label", [["x"] * 10])
    (tmp_path / "blob").mkdir()
    pq.write_table(table, tmp_path / "blob" / "0a1b2c")
    (tmp_path / "train.parquet").symlink_to(tmp_path / "blob" / "0a1b2c")
    assert read(tmp_path / "train.parquet", "--out", tmp_path / "out").code == 0
    found = pq.read_table(tmp_path / "out" / "train.parquet")
    assert found.column("text").equals(table.column("text"))
    assert found.column("label").equals(table.column("label"))


def _renamed(path: Path, new: Path) -> Path:
    new.write_bytes(path.read_bytes())
    return new


# --------------------------------------------------------------------------------------------------------------------
# On a cluster


@pytest.fixture(scope="module")
def cluster() -> None:
    """Ray with two workers on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-scale.txt")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    environment = {"env_vars": {"PYTHONPATH": str(Path(predict.__file__).parent), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error", runtime_env=environment)
    yield
    ray.shutdown()


@pytest.mark.nightly
def test_a_cluster_reads_as_one_process_does(cluster: None, read: Callable, source: Path, tmp_path: Path) -> None:
    here, there = (read(source, "--engine", engine, "--out", tmp_path / engine) for engine in ("local", "ray"))
    assert there.code == here.code == 1
    assert "38 of 40 pictures read" in there.stdout
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "local")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.parquet").write_bytes(b"no parquet")
    assert "bad/0.parquet" in read(tmp_path / "bad", "--engine", "ray", "--out", tmp_path / "c").stderr


@pytest.mark.nightly
def test_a_worker_killed_midway_costs_nothing(cluster: None, call: Callable, tmp_path: Path) -> None:
    settings = ["--count", 3000, "--shard_size", 250, "--style", "classic", "--seed", 5, "--workers", 1]
    assert call(captcha_generator, *settings, "--out", tmp_path / "local")[0] == 0
    killed = []

    def kill_one(path: Path) -> None:
        """Kill a worker that is just writing a shard, as soon as one is there."""
        import threading
        import time

        def wait() -> None:
            while not killed:
                for file in path.glob(".train-*.tmp.parquet"):
                    pid = int(file.name.split(".")[2])
                    if pid != os.getpid():
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        return
                time.sleep(0.005)

        threading.Thread(target=wait, daemon=True).start()

    kill_one(tmp_path / "ray")
    code, stdout, stderr = call(captcha_generator, *settings, "--engine", "ray", "--out", tmp_path / "ray")
    assert code == 0, stderr
    assert killed
    assert "3000 captchas in 12 shard(s)" in stdout
    left = bytes_of(tmp_path / "ray")
    assert {name: data for name, data in left.items() if not name.startswith(".")} == bytes_of(tmp_path / "local")


# --------------------------------------------------------------------------------------------------------------------
# A worker, in this process


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """What a process remembers of its checkpoint."""
    bulk._weights.cache_clear()
    bulk._predictor.cache_clear()


def job_of(exported: Path, out: Path, **changes: Any) -> bulk.Job:
    out.mkdir()
    weights = hashlib.sha256(exported.read_bytes()).hexdigest()
    given = {"factory": partial(CaptchaPredictor, exported, threads=1), "checkpoint": str(exported), "batch_size": 8}
    given |= {"weights": weights, "tta_views": 1, "constraints": Constraints()}
    return bulk.Job(out=str(out), **(given | changes))


def test_a_worker_with_other_weights_or_none_says_so(source: Path, exported: Path, tmp_path: Path) -> None:
    shard = str(source / "0.parquet")
    with pytest.raises(UserError, match=r"a worker has other weights in .*reader\.onnx: give all machines the same"):
        bulk.read_shard(shard, job_of(exported, tmp_path / "a", weights="0" * 64))
    gone = str(tmp_path / "gone.onnx")
    with pytest.raises(UserError, match=r"the checkpoint .*gone\.onnx cannot be read \(No such file or directory\)"):
        bulk.read_shard(shard, job_of(exported, tmp_path / "b", checkpoint=gone))


def test_a_worker_without_room_leaves_nothing_half_written(
    source: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    job = job_of(exported, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(UserError, match=r"cannot write to .*No space left.*make room or choose another --out"):
            bulk.read_shard(str(source / "0.parquet"), job)
    assert not list((tmp_path / "out").iterdir())
    assert bulk.read_shard(str(source / "0.parquet"), job) == {"pictures": 10, "failed": 0}
    (tmp_path / "out" / "0.parquet").write_bytes(b"cut short")
    with pytest.raises(UserError, match="was read from other pictures"):
        bulk.read_shard(str(source / "0.parquet"), job)


def test_an_out_that_is_a_file_or_that_other_machines_do_not_share_is_said(
    read: Callable, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    done = read(source, "--out", tmp_path / "file")
    assert done.code == 1 and "file is a file: give a folder as --out" in done.stderr
    assert (tmp_path / "file").read_bytes() == b"mine"

    def elsewhere(work: Callable[[str], dict], names: Sequence[str]) -> Iterator[dict]:
        return iter([{"pictures": 10, "failed": 0, "shard": name, "bad": ""} for name in names])

    monkeypatch.setattr(cluster_module, "run_on_ray", elsewhere)
    done = read(source, "--out", tmp_path / "out", "--engine", "ray")
    assert done.code == 1 and "4 of 4 shards were read elsewhere: give an --out that all machines share" in done.stderr


def test_what_a_worker_complains_of_comes_back_as_words() -> None:
    def work(item: str) -> dict[str, Any]:
        if item == "user":
            raise UserError("a worker has other fonts: give all the same")
        if item == "disk":
            raise OSError(28, "No space left on device")
        return {"pictures": len(item)}

    guarded = cluster_module._Guarded(work)
    assert guarded({"item": "abc"}) == {"pictures": 3, "error": ""}
    assert guarded({"item": "user"}) == {"error": "a worker has other fonts: give all the same"}
    assert guarded({"item": "disk"})["error"].startswith("a worker failed at disk ([Errno 28] No space left on device)")


class Cluster:
    """Stands in for Ray: what `ray.init` raises, and rows that are worked on here."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.settings = error, {}
        self.data = SimpleNamespace(
            DataContext=SimpleNamespace(get_current=SimpleNamespace), from_items=lambda rows, **_: Rows(rows)
        )

    def is_initialized(self) -> bool:
        return False

    def init(self, **settings: Any) -> None:
        self.settings = settings
        if self.error:
            raise self.error


class Rows(list):
    def map(self, work: Callable[[dict], dict], **_: object) -> SimpleNamespace:
        return SimpleNamespace(iter_rows=lambda: map(work, self))


def test_a_cluster_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def use(ray: Cluster | None) -> None:
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setitem(sys.modules, "ray.data", ray and ray.data)

    use(None)
    with pytest.raises(UserError, match=r"needs Ray: pip install -r requirements-scale\.txt"):
        list(cluster_module.run_on_ray(lambda item: {}, ["a"]))
    use(Cluster(ConnectionError("no route\nto host")))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.9:6379")
    with pytest.raises(UserError, match=r"^there is no Ray cluster at 10\.0\.0\.9:6379 \(no route\): start one"):
        list(cluster_module.run_on_ray(lambda item: {}, ["a"]))
    here = Cluster()
    use(here)
    assert list(cluster_module.run_on_ray(lambda item: {"n": len(item)}, ["a", "bc"])) == [{"n": 1}, {"n": 2}]
    assert here.settings["include_dashboard"] is False
    with pytest.raises(UserError, match=r"a worker failed at a \(gone\): make room or mend its disk"):
        list(cluster_module.run_on_ray(failing, ["a"]))


def failing(item: str) -> dict[str, Any]:
    raise OSError("gone")
