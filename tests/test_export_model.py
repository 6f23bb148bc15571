"""ONNX: the same figures as torch for every model and batch size, and no file where they differ."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import export_model
from captcha_reader.config import DatasetConfig
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, locked_output
from captcha_reader.images import open_image
from captcha_reader.transforms import build_transform
from export_model import check_parity, export_onnx
from make_dataset import make_dataset
from model import build_model, load_model, read_metadata, save_checkpoint
from predict import CaptchaPredictor


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    """The export itself takes seconds: where it is not the point, a file made before takes its place."""
    monkeypatch.setattr(export_model, "export_onnx", lambda checkpoint, out: out.write_bytes(exported.read_bytes()))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("efficientnet", marks=pytest.mark.nightly),
        pytest.param("lacc", marks=pytest.mark.nightly),
        pytest.param("crnn", marks=pytest.mark.nightly),
        pytest.param("resnet", marks=pytest.mark.nightly),
    ],
)
def test_every_model_gives_the_same_figures_for_any_batch(
    name: str, tiny: Callable, settle: Callable, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build_model(tiny(name))

    pixels = np.stack([build_transform(model.config)(open_image(png)) for png, _ in captchas])
    settle(model, torch.from_numpy(pixels))
    checkpoint = save_checkpoint(model, tmp_path / "m.safetensors")
    out = export_onnx(checkpoint, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    model = load_model(checkpoint)
    for n in (1, 2, 7):
        (theirs,) = session.run(None, {"images": pixels[:n]})
        with torch.inference_mode():
            ours = model.log_probs(torch.from_numpy(pixels[:n])).numpy()
        assert theirs.shape == (n, model.steps, 5)
        assert theirs.dtype == np.float32
        assert np.abs(ours - theirs).max() < 1e-3
    assert np.abs(theirs[0] - theirs[1]).max() > 1e-2, "different pictures, different figures"
    assert check_parity(checkpoint, out, [png for png, _ in captchas], 1e-3)[1] == 0


@pytest.mark.nightly
def test_an_input_of_any_width_gives_the_same_figures(natural: Path, tmp_path: Path) -> None:
    out = export_onnx(natural, tmp_path / "natural.onnx")
    model, session = load_model(natural), onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for n, width in ((1, 48), (3, 80), (2, 112)):
        pixels = np.random.default_rng(n).integers(0, 256, (n, model.config.channels, 16, width), dtype=np.uint8)
        (theirs,) = session.run(None, {"images": pixels})
        with torch.inference_mode():
            ours = model.log_probs(torch.from_numpy(pixels)).numpy()
        assert theirs.shape == (n, width // 4, 5)
        assert np.abs(ours - theirs).max() < 1e-3
    pictures = [Image.effect_noise((width, 40), 90) for width in (60, 400, 130, 400, 250, 60)]
    assert check_parity(natural, out, pictures, 1e-3)[1] == 0


def test_a_network_that_learned_two_heights_gives_the_same_figures_at_both(natural: Path, tmp_path: Path) -> None:
    model = load_model(natural)
    model.config = dataclasses.replace(model.config, other_height=32)
    checkpoint = save_checkpoint(model, tmp_path / "two.safetensors")
    out = export_onnx(checkpoint, tmp_path / "two.onnx")
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for height, width in ((16, 48), (32, 96), (32, 160), (48, 144)):
        pixels = np.random.default_rng(height).integers(0, 256, (2, model.config.channels, height, width), np.uint8)
        (theirs,) = session.run(None, {"images": pixels})
        with torch.inference_mode():
            ours = model.log_probs(torch.from_numpy(pixels)).numpy()
        assert np.abs(ours - theirs).max() < 1e-3
    pictures = [Image.effect_noise((width, 40), 90) for width in (60, 400, 130)]
    assert check_parity(checkpoint, out, pictures, 1e-3)[1] == 0
    ours_texts, theirs_texts = (
        [p.text for p in CaptchaPredictor(path, threads=1).predict(pictures)] for path in (checkpoint, out)
    )
    assert ours_texts == theirs_texts


def test_notes_of_other_tools_in_the_file_do_no_harm(exported: Path, tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(exported)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "onnx.infer", "onnxruntime.quant"  # what quantization leaves
    onnx.save(proto, tmp_path / "noted.onnx")
    predictor = CaptchaPredictor(tmp_path / "noted.onnx", threads=1)
    assert predictor.metadata["onnx.infer"] == "onnxruntime.quant"
    assert predictor.config == CaptchaPredictor(exported, threads=1).config


def test_the_description_is_inside(reader: Path, exported: Path) -> None:
    raw = onnxruntime.InferenceSession(str(exported)).get_modelmeta().custom_metadata_map
    metadata = read_metadata(reader)
    assert {k: v if k == "format" else json.loads(v) for k, v in raw.items()} == metadata
    assert not list(exported.parent.glob("*.data")), "one file holds it all"
    assert list(exported.parent.iterdir()) == [exported]


def test_one_process_writes_an_export(call: Callable, reader: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    with locked_output(out):
        code, _, err = call(export_model, "--checkpoint", reader, "--data", shards, "--out", out)
    assert code == 1 and "o.onnx is being written by another process" in err
    assert not list(tmp_path.iterdir())


def test_a_difference_is_an_error(
    reader: Path, exported: Path, tiny: Callable, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    images = [png for png, _ in captchas]
    worst, different = check_parity(reader, exported, images, 1e-2)
    assert different == 0
    assert 0 < worst < 1e-2
    with pytest.raises(UserError, match="disagrees"):
        check_parity(reader, exported, images, worst / 2)
    torch.manual_seed(1)
    other = save_checkpoint(build_model(tiny()), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="readings differ"):
        check_parity(other, exported, images, 1e9)


def test_the_command_line_writes_a_file_that_reads_the_same(
    call: Callable, reader: Path, exported: Path, shards: Path, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    """And that has the same bytes as another export of it."""
    out = tmp_path / "new" / "exported.onnx"
    code, stdout, err = call(
        export_model, "--checkpoint", reader, "--out", out, "--data", shards, "--tolerance", 0.01, "--format", "onnx"
    )
    assert code == 0, err
    assert str(out) in stdout and "90 pictures" in stdout
    assert [path.name for path in out.parent.iterdir()] == ["exported.onnx"]
    assert out.read_bytes() == exported.read_bytes()
    images = [png for png, _ in captchas]
    texts = [[p.text for p in CaptchaPredictor(path, threads=1).predict(images)] for path in (reader, out)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 20


@pytest.mark.usefixtures("no_export")
def test_without_names_the_file_lies_beside_the_checkpoint(
    call: Callable, reader: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, captchas: list[tuple[bytes, str]]
) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "a.png").write_bytes(captchas[0][0])
    monkeypatch.setattr(export_model, "ROOT", tmp_path)
    checkpoint = tmp_path / "mine.safetensors"
    checkpoint.write_bytes(reader.read_bytes())
    code, out, err = call(export_model, "--checkpoint", checkpoint, "--tolerance", 0.01)
    assert code == 0, err
    assert "on 1 pictures" in out
    assert (tmp_path / "mine.onnx").is_file()


@pytest.mark.usefixtures("no_export")
def test_a_file_that_fails_the_check_is_not_left_behind(
    call: Callable, reader: Path, shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "reader.onnx"
    out.parent.mkdir()
    out.write_bytes(b"the last good one")
    flags = ["--checkpoint", reader, "--out", out, "--data", shards, "--tolerance", 0]
    code, _, err = call(export_model, *flags)
    assert code == 1
    assert "disagrees" in err and "Traceback" not in err
    assert [(path.name, path.read_bytes()) for path in out.parent.iterdir()] == [("reader.onnx", b"the last good one")]


def test_a_dataset_without_a_test_split_is_one_sentence(
    call: Callable, reader: Path, shards: Path, tmp_path: Path
) -> None:
    make_dataset(DatasetConfig(sources=[str(shards)], out=str(tmp_path / "data"), split="80/20/0", workers=1))
    code, _, err = call(export_model, "--checkpoint", reader, "--data", tmp_path / "data", "--out", tmp_path / "o.onnx")
    assert code == 1
    assert "test split: name a dataset with a test split" in err and "--data" in err and "--split" not in err


@pytest.mark.parametrize("checkpoint", ["none.safetensors", "weights.pt"])
def test_a_checkpoint_that_cannot_be_used_is_one_sentence(
    checkpoint: str, call: Callable, shards: Path, tmp_path: Path
) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "weights.pt").write_bytes(b"nonsense")
    code, _, err = call(
        export_model, "--checkpoint", tmp_path / checkpoint, "--data", shards, "--out", tmp_path / "o.onnx"
    )
    assert code == 1
    assert checkpoint in err and "Traceback" not in err
    assert not list(tmp_path.glob("*.onnx")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "reader.pt"], "ends in .onnx"),
        (["--checkpoint", ROOT / "saved_models/reader.onnx"], "reader.onnx cannot"),
    ],
)
def test_names_of_other_kinds_are_refused_at_once(flags: list, said: str, call: Callable, reader: Path) -> None:
    code, _, err = call(export_model, "--checkpoint", reader, *flags)
    assert code == 1 and said in err and "unchecked" not in err


def test_a_place_that_cannot_be_written_is_one_sentence(reader: Path, shards: Path, tmp_path: Path) -> None:
    """A file where a folder should be: root may write everywhere else."""
    (tmp_path / "file").write_text("")
    flags = ["--checkpoint", reader, "--data", shards, "--out", tmp_path / "file" / "reader.onnx"]
    done = subprocess.run([sys.executable, export_model.__file__, *map(str, flags)], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr
