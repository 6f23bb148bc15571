"""Hostile files of every format that is read: checkpoints, ONNX files, training states, settings.

Each is refused in one sentence or can be used; none gives a traceback, takes seconds, or runs anything.
"""

from __future__ import annotations

import copy
import json
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from captcha_reader.checkpoint import (
    check_onnx_session,
    label_hints,
    load_weights,
    parse_metadata,
    read_metadata,
    save_checkpoint,
)
from captcha_reader.cli import load_settings
from captcha_reader.config import TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.optimization import Phase
from captcha_reader.training_state import STATE_FILE, read_state
from data_loader import load_data
from model import build_model, load_model
from predict import CaptchaPredictor
from trainer import Trainer

MOST_SECONDS = 5
DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]
ODD = [None, True, -1, 0, 10**30, 1.5, 1e308, "x", "x" * 5000, "<script>", "", [], [1], ["a", {}], {}, {"a": 1}, DEEP]


@contextmanager
def refused_or_fine(what: object) -> Iterator[None]:
    """The body works, or raises a UserError of one line, within seconds."""
    started = time.monotonic()
    try:
        yield
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, what
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    assert time.monotonic() - started < MOST_SECONDS, what


def texts(path: Path) -> dict[str, str]:
    """The metadata of a checkpoint as the file has it."""
    return {k: v if k == "format" else json.dumps(v) for k, v in read_metadata(path).items()}


def rewritten(good: Path, path: Path, metadata: dict[str, str]) -> Path:
    save_file(load_file(good), path, metadata)
    return path


def mutated_json(value: Any, rng: np.random.Generator) -> Any:
    """A copy with one entry, somewhere in it, taken away or made something odd."""
    value = copy.deepcopy(value)
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.6:
            place = place[key]
            continue
        if rng.random() < 0.2 and isinstance(place, dict):
            del place[key]
        else:
            place[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
        return value


def flipped(data: bytes, rng: np.random.Generator, until: int) -> bytes:
    """Some bytes of the beginning changed, and sometimes the end cut off."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        changed[int(rng.integers(min(until, len(changed))))] = int(rng.integers(256))
    return bytes(changed[: int(rng.integers(len(changed)))] if rng.random() < 0.3 else changed)


# --------------------------------------------------------------------------------------------------------------------
# Checkpoints


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("model", {"name": "<script>alert(1)</script>"}),
        ("model", {"max_length": "<img src=x onerror=alert(1)>"}),
        ("model", {"max_length": True}),
        ("model", {"max_length": 10**9}),
        ("model", {"image_size": ["<b>", 48]}),
        ("model", {"image_size": [16, 10**7]}),
        ("model", {"image_size": [4096, 4096]}),
        ("model", {"image_size": 16}),
        ("model", {"hidden": 10**6}),
        ("model", {"hidden": -8}),
        ("model", {"alphabet": ["a"]}),
        ("model", {"alphabet": "aa"}),
        ("model", {"alphabet": "a\u0007"}),
        ("model", {"alphabet": ""}),
        ("model", {"alphabet": "".join(map(chr, range(0x4E00, 0x4E00 + 20000))), "head": "positions", "hidden": 2048}),
        ("model", {"backbone": {"a": 1}}),
        ("model", {"backbone": "vgg"}),
        ("model", {"channels": 2}),
        ("model", {"dropout": "nan"}),
        ("model", {"head": []}),
        ("model", {"normalize": "yes"}),
        ("model", {"soften": 1e9}),
        ("model", {"soften": "a little"}),
        ("model", {"other_height": 1e9}),
        ("metrics", {"test": {"n": "<b>many</b>"}}),
        ("metrics", {"test": [[1]]}),
        ("metrics", {"test": {"cer": {"a": 1}}}),
        ("provenance", {"config": "x"}),
        ("provenance", {"data": {"sources": "x"}}),
        ("provenance", {"data": {"n": "x"}}),
        ("provenance", {"time": 7}),
        ("provenance", {"label_characters": 5}),
        ("provenance", {"label_length": [6, 4]}),
        ("provenance", {"label_length": ["a", "b"]}),
        ("provenance", {"config": DEEP}),
    ],
)
def test_metadata_of_a_wrong_type_or_range_is_refused(key: str, change: dict, reader: Path, tmp_path: Path) -> None:
    metadata = texts(reader)
    metadata[key] = json.dumps(json.loads(metadata[key]) | change)
    path = rewritten(reader, tmp_path / "hostile.safetensors", metadata)
    with pytest.raises(UserError) as error:
        load_model(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    with pytest.raises(UserError):
        CaptchaPredictor(path, threads=1)


@pytest.mark.parametrize("text", ["{", "[]", "7", "[" * 100_000, '{"a": 1e999}', "1" * 10_000, "null"])
def test_metadata_that_is_no_json_object_is_refused(text: str, reader: Path, tmp_path: Path) -> None:
    for key in ("model", "metrics", "provenance"):
        path = rewritten(reader, tmp_path / "hostile.safetensors", texts(reader) | {key: text})
        with refused_or_fine(text[:20]), pytest.raises(UserError):
            raise_if_read(path)


def raise_if_read(path: Path) -> None:
    read_metadata(path)


class Session:
    """An ONNX session that is not what export_model.py writes."""

    def __init__(self, metadata: dict[str, str], output: Any = None, **changes: Any) -> None:
        self.metadata, self.output = metadata, output
        self.given = {"inputs": [("images", "tensor(uint8)", [1, 1, 16, 48])], "outputs": ["log_probs"]} | changes

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map=self.metadata)

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=n, type=t, shape=s) for n, t, s in self.given["inputs"]]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self.given["outputs"]]

    def run(self, *_: object) -> list[np.ndarray]:
        if self.output is None:
            raise RuntimeError("out of order")
        return [self.output]


def test_an_onnx_file_with_other_ends_is_refused(reader: Path) -> None:
    metadata = texts(reader)
    good = np.zeros((1, 12, 5), np.float32)
    assert check_onnx_session(Session(metadata, good), "a.onnx")[0].alphabet == "abcd"
    for session, words in (
        (Session({}, good), "it lacks the model's description"),
        (Session(metadata, good, outputs=["logits"]), "its inputs or outputs are others"),
        (Session(metadata, good, inputs=[("images", "tensor(float)", [1] * 4)]), "its inputs or outputs are others"),
        (Session(metadata), "cannot read a picture of its own size: export it again"),
        (Session(metadata, good[..., :4]), r"gives \(1, 12, 4\) for one picture, which does not fit its alphabet"),
        (Session(metadata, good[0]), r"gives \(12, 5\) for one picture"),
    ):
        with pytest.raises(UserError, match=f"^a.onnx .*{words}"):
            check_onnx_session(session, "a.onnx")


def test_metadata_without_a_model_or_with_endless_lists_is_refused(reader: Path, tmp_path: Path) -> None:
    raw = texts(reader)
    with pytest.raises(UserError, match=r"it lacks the model's description"):
        parse_metadata({key: value for key, value in raw.items() if key != "model"}, "a.onnx")
    with pytest.raises(UserError, match=r"has a list of 2,001 entries, more than 2,000"):
        parse_metadata(raw | {"metrics": json.dumps({"test": [0] * 2001})}, "a.onnx")
    huge = {
        "alphabet": "".join(map(chr, range(0x4E00, 0x4E00 + 20_000))),
        "head": "combination",
        "image_size": [512, 1024],
    }
    metadata = raw | {"model": json.dumps(json.loads(raw["model"]) | huge)}
    with pytest.raises(UserError, match=r"the head that it describes has more than .* weights"):
        load_model(rewritten(reader, tmp_path / "wide.safetensors", metadata))


def test_weights_that_are_cut_short_are_damaged(reader: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(reader.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.safetensors is damaged or no safetensors file .*: copy it again"):
        load_weights(path, "cpu")


def test_metadata_beyond_all_measure_is_refused(reader: Path, tmp_path: Path) -> None:
    huge = texts(reader) | {"note": "x" * 2**21}
    with pytest.raises(UserError, match="KB of metadata"):
        read_metadata(rewritten(reader, tmp_path / "huge.safetensors", huge))


def test_figures_that_are_not_finite_are_none_at_all(reader: Path, tmp_path: Path) -> None:
    """An older version wrote NaN where there was nothing to measure."""
    metadata = texts(reader) | {"metrics": '{"validation": {"loss": NaN, "cer": -Infinity, "n": 3}}'}
    path = rewritten(reader, tmp_path / "old.safetensors", metadata)
    assert read_metadata(path)["metrics"] == {"validation": {"loss": None, "cer": None, "n": 3}}
    assert json.dumps(CaptchaPredictor(path, threads=1).metadata, allow_nan=False)


def test_weights_that_are_not_finite_are_never_read_or_written(reader: Path, tmp_path: Path) -> None:
    weights = load_file(reader)
    weights["head.classifier.bias"][1] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors", texts(reader))
    for use in (load_model, CaptchaPredictor):
        with pytest.raises(UserError, match=r"head\.classifier\.bias are not finite"):
            use(tmp_path / "nan.safetensors")
    model = load_model(reader)
    with torch.no_grad():
        model.head.classifier.bias[0] = float("inf")
    with pytest.raises(UserError, match="not finite"):
        save_checkpoint(model, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_provenance_is_kept_small(tiny: Callable, tmp_path: Path) -> None:
    sources = [f"data/{'x' * 50}/{i}" for i in range(1000)]
    config = {f"s{i}": "y" * 20 for i in range(500)}
    provenance = {"time": "now", "data": {"sources": sources, "n": 3}, "config": config, "seen": "z" * 9000}
    path = save_checkpoint(build_model(tiny()), tmp_path / "m.safetensors", provenance=provenance)
    found = read_metadata(path)["provenance"]
    assert len(json.dumps(found)) <= 8192
    assert found["time"] == "now" and found["data"]["n"] == 3


def test_the_labels_of_a_fine_tuned_model_are_offered(tiny: Callable, tmp_path: Path) -> None:
    model = build_model(tiny())
    path = save_checkpoint(
        model, tmp_path / "a.safetensors", provenance={"label_characters": "abd", "label_length": [2, 3]}
    )
    assert label_hints(read_metadata(path)) == ("abd", (2, 3))
    assert label_hints(read_metadata(save_checkpoint(model, tmp_path / "b.safetensors"))) == (None, None)


def test_mutated_checkpoints(reader: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    good, metadata = reader.read_bytes(), texts(reader)
    header = 8 + int.from_bytes(good[:8], "little")
    path = tmp_path / "m.safetensors"
    for number in range(120):
        if number % 2:
            key = ("model", "metrics", "provenance")[int(rng.integers(3))]
            changed = json.dumps(mutated_json(json.loads(metadata[key]), rng))
            rewritten(reader, path, metadata | {key: changed})
        else:
            path.write_bytes(flipped(good, rng, header))
        with refused_or_fine(number):
            model = load_model(path)
            with torch.no_grad():
                model.log_probs(torch.zeros(1, model.config.channels, *model.config.image_size))


# --------------------------------------------------------------------------------------------------------------------
# ONNX files


def test_mutated_onnx_files(exported: Path, tmp_path: Path) -> None:
    import onnx

    rng = np.random.default_rng(2)
    proto = onnx.load(exported)
    values = {entry.key: entry.value for entry in proto.metadata_props}
    path = tmp_path / "m.onnx"
    for number in range(40):
        key = ("model", "metrics", "provenance")[int(rng.integers(3))]
        del proto.metadata_props[:]
        for name, value in (values | {key: json.dumps(mutated_json(json.loads(values[key]), rng))}).items():
            entry = proto.metadata_props.add()
            entry.key, entry.value = name, value
        path.write_bytes(proto.SerializeToString())
        with refused_or_fine(number):
            CaptchaPredictor(path, threads=1).predict([np.zeros((16, 48), np.uint8)])
    data = exported.read_bytes()
    for number in range(10):
        path.write_bytes(data[: int(rng.integers(len(data)))])
        with refused_or_fine(number), pytest.raises(UserError):
            CaptchaPredictor(path, threads=1)


def test_an_onnx_file_that_gives_nan_is_refused(exported: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(exported)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    onnx.save(proto, tmp_path / "nan.onnx")
    with pytest.raises(UserError, match="not finite"):
        CaptchaPredictor(tmp_path / "nan.onnx", threads=1)


# --------------------------------------------------------------------------------------------------------------------
# Training states


@pytest.fixture(scope="module")
def started(dataset: Path, tiny: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Trainer]:
    """A trainer of two epochs of two steps in its own folder, which holds a state after the first epoch."""
    out = tmp_path_factory.mktemp("state") / "run"
    config = TrainConfig(out=str(out), batch_size=32, cpu=True, augment=0)
    data = load_data(dataset, tiny(), augment=0)
    data = {split: rows.subset(range(min(len(rows), 64))) for split, rows in data.items()}

    def make() -> Trainer:
        torch.manual_seed(0)
        model = build_model(tiny())
        return Trainer(config, model, [Phase("whole", 2, 0.001, False)], data, Accelerator(cpu=True), {})

    first = make()
    step = first._run_epoch

    def stop_after_one(*arguments: Any) -> None:
        if first.place["epoch"] == 1:
            raise KeyboardInterrupt
        step(*arguments)

    first._run_epoch = stop_after_one  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    return make


def test_mutated_states(started: Callable[[], Trainer]) -> None:
    rng = np.random.default_rng(3)
    path = started().out / STATE_FILE
    good = path.read_bytes()
    state = torch.load(path, weights_only=True)
    assert state["place"] == {"phase": 0, "epoch": 1, "step": 0}
    outcomes = set()
    for number in range(60):
        changed = dict(state)
        if number % 3 == 0:
            path.write_bytes(flipped(good, rng, len(good)))
        else:
            key = list(state)[int(rng.integers(len(state)))]
            value = state[key]
            odd = ODD[int(rng.integers(len(ODD) - 1))]
            if isinstance(value, dict) and rng.random() < 0.7:
                inner = list(value)[int(rng.integers(len(value)))]
                changed[key] = value | {inner: odd}
            else:
                changed[key] = odd
            torch.save(changed, path)
        with refused_or_fine(number):
            outcomes.add("refused")
            trainer = started()
            trainer.load_state()
            trainer.fit()
            outcomes.add("fine")
    assert outcomes == {"refused", "fine"}
    path.write_bytes(good)
    trainer = started()
    trainer.load_state()
    trainer.fit()
    assert trainer.finished


def test_a_state_never_runs_what_it_holds(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    for write in (lambda p: p.write_bytes(pickle.dumps(Trap())), lambda p: torch.save({"model": Trap()}, p)):
        write(tmp_path / STATE_FILE)
        with pytest.raises(UserError, match="damaged"):
            read_state(tmp_path / STATE_FILE)
    assert not (tmp_path / "sprung").exists()


# --------------------------------------------------------------------------------------------------------------------
# Settings


def test_mutated_settings(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    good = b"epochs: 3\nimage_size: [32, 128]\nalphabet: '0-9'\ndata: [a, b]\nlearning_rate: 1e-3\nresume: false\n"
    pieces = [
        b"&a ",
        b"*a",
        b"!!python/object:os.system ",
        b"{",
        b"[",
        b"'",
        b"\x00",
        b"\xff",
        b"? ",
        b"- ",
        b"\t",
        b"<<: ",
    ]
    path = tmp_path / "config.yaml"
    for _ in range(300):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 5))):
            place = int(rng.integers(len(data)))
            data[place:place] = pieces[int(rng.integers(len(pieces)))] * int(rng.integers(1, 4))
        path.write_bytes(bytes(data))
        with refused_or_fine(bytes(data)):
            load_settings(TrainConfig, path)
