"""Prediction: the same reading from every kind of picture, in order, and a command line that scripts can rely on."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from captcha_reader.config import EvaluateConfig, PredictConfig
from captcha_reader.ctc import log_likelihood
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, ROOT
from captcha_reader.reading.constraints import Constraints
from captcha_reader.transforms import build_transform
from model import load_model
from predict import CaptchaPredictor, find_checkpoint, find_images, predict_captcha


@pytest.fixture(scope="module", params=["torch", "onnx"])
def predictor(request: pytest.FixtureRequest, reader: Path, exported: Path) -> CaptchaPredictor:
    return CaptchaPredictor(reader if request.param == "torch" else exported, threads=1)


@pytest.fixture(scope="module")
def encoded(captchas: list[tuple[bytes, str]]) -> list[bytes]:
    return [png for png, _ in captchas]


@pytest.fixture
def folder(encoded: list[bytes], tmp_path: Path) -> Path:
    """Five pictures, one in a folder below, among files that are none."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for i in range(4):
        (folder / f"{i}.png").write_bytes(encoded[i])
    (folder / "below" / "4.PNG").write_bytes(encoded[4])
    (folder / "notes.txt").write_text("no picture")
    return folder


# --------------------------------------------------------------------------------------------------------------------
# In Python


def test_readings_come_in_the_order_of_the_pictures(predictor: CaptchaPredictor, encoded: list[bytes]) -> None:
    alone = [predict_captcha(image, predictor) for image in encoded]
    assert len({p.text for p in alone}) > 20
    for size in (1, 3, 16, 100):
        together = predictor.predict(encoded, batch_size=size)
        assert [p.text for p in together] == [p.text for p in alone]
        assert [p.confidence for p in together] == pytest.approx([p.confidence for p in alone], abs=1e-3)
    backwards = predictor.predict(encoded[::-1], batch_size=7)
    assert [p.text for p in backwards] == [p.text for p in alone][::-1]


def test_no_pictures_no_readings(predictor: CaptchaPredictor) -> None:
    assert predictor.predict([]) == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_a_picture_at_least(predictor: CaptchaPredictor, encoded: list[bytes], size: int) -> None:
    with pytest.raises(UserError, match="batch size"):
        predictor.predict(encoded, batch_size=size)


def test_every_kind_of_picture_reads_the_same(
    predictor: CaptchaPredictor, encoded: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    for data in encoded[:6]:
        path.write_bytes(data)
        image = Image.open(io.BytesIO(data))
        kinds = [data, image, path, str(path), np.asarray(image)]
        readings = predictor.predict(kinds)
        assert all(r == readings[0] for r in readings), readings


def test_a_reading_is_what_the_model_says(reader: Path, encoded: list[bytes]) -> None:
    """Without the predictor: transform, network and the path's collapse by hand."""
    model = load_model(reader)
    transform = build_transform(model.config)
    predictor = CaptchaPredictor(reader, threads=1)
    for data in encoded[:10]:
        pixels = torch.from_numpy(transform(Image.open(io.BytesIO(data)).convert("RGB"))[None])
        with torch.inference_mode():
            probabilities = model(pixels).softmax(-1)[0].numpy()
        text, peaks, previous = "", [], 0
        for row in probabilities:
            best = int(row.argmax())
            if best and best != previous:
                text += "abcd"[best - 1]
                peaks.append(row[best])
            elif best:
                peaks[-1] = max(peaks[-1], row[best])
            previous = best
        prediction = predict_captcha(data, predictor)
        assert prediction.text == text
        assert prediction.char_confidences == pytest.approx(peaks, rel=1e-4)
        ids = [model.alphabet.encode(text)]
        expected = np.exp(log_likelihood(np.log(probabilities)[None], ids))[0]
        assert prediction.confidence == pytest.approx(expected, rel=1e-4)


def says(text: str, p: float, first: int) -> np.ndarray:
    """Log-probabilities (1, 12, 5) of a network that is sure of `text` with p for each character, from step `first`."""
    rows = np.full((12, 5), 1e-6)
    rows[:, 0] = 1
    for i, character in enumerate(text):
        rows[first + 2 * i] = (1 - p) / 4
        rows[first + 2 * i, 1 + "abcd".index(character)] = p
    return np.log(rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)[None]


@pytest.fixture
def looking(reader: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[CaptchaPredictor, list[np.ndarray]]]:
    """A predictor that sees pictures cut to their contents, with what its network says at each look; then the last."""

    def build(*answers: np.ndarray, **changes: Any) -> tuple[CaptchaPredictor, list[np.ndarray]]:
        predictor = CaptchaPredictor(reader, threads=1)
        predictor.config = dataclasses.replace(predictor.config, **({"resize": "content"} | changes))
        predictor.transform = build_transform(predictor.config)
        seen: list[np.ndarray] = []
        monkeypatch.setattr(
            predictor, "log_probs", lambda pixels: (seen.append(pixels), answers[min(len(seen), len(answers)) - 1])[1]
        )
        return predictor, seen

    return build


def bars() -> Image.Image:
    """Six dark bars at columns 10 to 180 of 200."""
    pixels = np.full((50, 200, 3), 255, dtype=np.uint8)
    for x in range(10, 190, 30):
        pixels[10:40, x : x + 20] = 0
    return Image.fromarray(pixels)


def test_a_sure_reading_is_not_looked_at_again(looking: Callable) -> None:
    predictor, seen = looking(says("ab", 0.9, 4))  # 0.81 in all
    assert predictor.predict([bars()])[0].text == "ab" and len(seen) == 1


def test_an_unsure_reading_is_looked_at_in_other_forms_until_two_agree(looking: Callable) -> None:
    answers = says("ab", 0.6, 4), says("cd", 0.5, 4), says("ad", 0.9, 2), says("ad", 0.8, 4)
    predictor, seen = looking(*answers, resize="natural", other_height=32)
    prediction = predictor.predict([bars()])[0]
    assert prediction.text == "ad" and len(seen) == 4  # 0.81 + 0.64 of it, 0.36 of another
    assert prediction.confidence == pytest.approx(0.81, abs=0.01)  # of the surer of the two
    assert np.exp(prediction.log_probs) == pytest.approx(np.exp(says("ad", 0.9, 2)[0]))
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(seen, 2))


def test_the_first_reading_stays_where_the_others_are_less_sure(looking: Callable) -> None:
    others = [says(text, 0.3, 4) for text in ("cd", "dc", "bd", "da", "ba", "ca")]
    predictor, seen = looking(says("ab", 0.6, 4), *others)
    prediction = predictor.predict([bars()])[0]
    assert prediction.text == "ab" and len(seen) == 1 + len(others)  # the bars have no color
    assert prediction.box[0] < 11 and prediction.box[2] > 178


def test_looks_that_agree_outweigh_a_surer_one(looking: Callable) -> None:
    predictor, seen = looking(says("ab", 0.55, 4), says("cd", 0.65, 4), says("ab", 0.5, 4))
    predictor.tta_views = 4  # of which one would show colors
    prediction = predictor.predict([bars()])[0]
    assert 0.55**2 + 0.5**2 > 0.65**2 > 0.55**2
    assert prediction.text == "ab" and len(seen) == 3
    assert prediction.confidence == pytest.approx(0.55**2, abs=0.01)  # of the surer of the two


def test_what_a_look_thinks_of_the_other_readings_counts(looking: Callable) -> None:
    wavering = np.exp(says("cb", 0.9, 4))
    wavering[0, 4, [1, 3]] = 0.44, 0.5  # a nearly as likely as c
    predictor, _ = looking(says("ab", 0.62, 4), says("cd", 0.7, 4), np.log(wavering))
    predictor.tta_views = 4  # of which one would show colors
    prediction = predictor.predict([bars()])[0]
    assert prediction.text == "ab"  # of 0.38 and 0.4 probability; "cd" of 0.49 and next to none
    assert prediction.confidence == pytest.approx(0.62**2, abs=0.01)


def test_a_network_that_learned_two_heights_looks_with_both(looking: Callable) -> None:
    predictor, seen = looking(says("ab", 0.3, 4), resize="natural", other_height=32)
    assert predictor.predict([bars()])[0].text == "ab"
    assert [pixels.shape[2] for pixels in seen] == [16, 32, 32, 16, 32, 32, 32]  # gray bars have no color to see
    assert seen[5].shape[3] > seen[1].shape[3] > 1.5 * seen[0].shape[3]  # wider; as it is
    predictor, seen = looking(says("", 0.9, 4), resize="natural", other_height=32)
    predictor.predict([bars()])
    assert len(seen) == 1  # nothing, for certain


def test_only_the_unsure_of_a_batch_are_looked_at_again(looking: Callable) -> None:
    first = np.concatenate([says("ab", 0.9, 4), says("b", 0.3, 4), says("cd", 0.9, 4), says("", 0.9, 4)])
    predictor, seen = looking(first, says("c", 0.8, 4), says("c", 0.6, 4))
    assert [p.text for p in predictor.predict([bars()] * 4)] == ["ab", "c", "cd", ""]
    assert [len(pixels) for pixels in seen] == [4, 1, 1]


def test_pictures_of_many_widths_are_read_together_as_alone(natural: Path) -> None:
    """The network gets pictures of one width at a time; the readings come in the order of the pictures."""
    predictor = CaptchaPredictor(natural, threads=1)
    rng = np.random.default_rng(0)
    noise = [rng.normal(128, 90, (40, width)).clip(0, 255) for width in (60, 400, 130, 400, 250, 60)]
    pictures = [Image.fromarray(pixels.astype(np.uint8)) for pixels in noise]
    assert len({predictor.view(picture).pixels.shape[2] for picture in pictures}) >= 3
    together = predictor.predict(pictures)
    alone = [predictor.predict([picture])[0] for picture in pictures]
    assert [p.text for p in together] == [p.text for p in alone]
    for a, b in zip(together, alone, strict=True):
        assert a.log_probs.shape == b.log_probs.shape and a.box == b.box
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-3)
    assert len({len(p.log_probs) for p in together}) >= 2


@pytest.mark.parametrize("looks", [1, 2])
def test_it_looks_no_more_often_than_told(looking: Callable, looks: int) -> None:
    predictor, seen = looking(says("ab", 0.6, 4), says("cd", 0.65, 4), says("ad", 0.7, 2))
    predictor.tta_views = looks
    assert predictor.predict([bars()])[0].text == ("ab", "cd")[looks - 1] and len(seen) == looks


def test_the_number_of_looks_is_checked(reader: Path, call: Callable, tmp_path: Path) -> None:
    for looks in (0, 9):
        with pytest.raises(UserError, match=f"views is {looks}: it must be 1 to 8"):
            CaptchaPredictor(reader, tta_views=looks)
    assert (
        CaptchaPredictor(reader, threads=1).tta_views == PredictConfig([]).tta_views == EvaluateConfig().tta_views == 8
    )
    bars().save(tmp_path / "bars.png")
    code, _, stderr = call(predict, tmp_path / "bars.png", "--checkpoint", reader, "--tta_views", 9)
    assert code == 1 and "views is 9" in stderr


def test_a_network_that_sees_whole_pictures_looks_once(looking: Callable) -> None:
    predictor, seen = looking(says("ab", 0.3, 4), resize="pad")
    assert predictor.predict([bars()])[0].text == "ab" and len(seen) == 1


def test_the_checkpoint_is_found(reader: Path, tmp_path: Path) -> None:
    assert find_checkpoint(None, None).name == "reader.onnx"  # it starts sooner
    assert find_checkpoint(None, "cpu").name == "reader.safetensors"
    (tmp_path / "best.safetensors").write_bytes(reader.read_bytes())
    assert CaptchaPredictor(tmp_path, threads=1).path == tmp_path / "best.safetensors"


def test_shards_are_told_from_nothing(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="parquet shards: name --out FOLDER"):
        find_images([shards])
    with pytest.raises(UserError, match="is a parquet shard: name --out FOLDER"):
        find_images([next(shards.iterdir())])
    with pytest.raises(UserError, match="WebP and TIFF are read"):
        find_images([tmp_path])


def test_shards_in_a_folder_below_are_named_where_they_are(
    shards: Path, tmp_path: Path, call: Callable, exported: Path
) -> None:
    shutil.copytree(shards, below := tmp_path / "all" / "below")
    shutil.copytree(shards, tmp_path / "all" / ".cache")
    with pytest.raises(UserError, match=f"parquet shards in {below}: name {below} and --out FOLDER to read these"):
        find_images([tmp_path / "all"])
    flags = ["--out", tmp_path / "out", "--checkpoint", exported, "--threads", 1]
    code, _, err = call(predict, tmp_path / "all", *flags)
    assert code == 1 and f"there are parquet shards in {below}: name that instead of {tmp_path / 'all'}" in err
    code, out, _ = call(predict, below, *flags)
    assert code == 0 and "90 of 90 pictures read" in out


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_no_line_or_font_can_hold(exported: Path, tmp_path: Path) -> None:
    for name in (os.fsdecode(b"b\xe9.png"), "two\nlines.png", "\ua9c4.png"):  # no UTF-8, a line break, Javanese
        bars().save(tmp_path / "bars.png")
        (tmp_path / "bars.png").rename(tmp_path / name)
    (tmp_path / "._bars.png").write_bytes(b"no picture")  # such as macOS leaves
    flags = ["--checkpoint", exported, "--threads", "1", "--csv", tmp_path / "out.csv", "--grid", tmp_path / "a.pdf"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, predict.__file__, *flags, tmp_path]
    done = subprocess.run(command, capture_output=True, env=environment, text=True)
    assert done.returncode == 0, done.stderr
    assert "Glyph" not in done.stderr
    assert [line.count("\t") for line in done.stdout.splitlines()[:3]] == [2, 2, 2]
    assert "two\\nlines.png\t" in done.stdout
    assert "b\\udce9.png\t" in done.stdout and "b\\udce9.png," in (tmp_path / "out.csv").read_text()


def test_alternatives_share_what_a_calibrated_confidence_leaves() -> None:
    """The shipped weights say how their confidences are to be read: an alternative beside one is of the same scale."""
    predictor = CaptchaPredictor(DEFAULT_CHECKPOINT.with_suffix(".onnx"), threads=1)
    for p in predictor.predict(sorted((ROOT / "examples").glob("*.png"))):
        raw = dict(p.codec.alternatives(p.log_probs, count=3))
        found = dict(p.alternatives)
        assert found[p.text] == p.confidence
        for text in found.keys() - {p.text}:
            assert found[text] / (1 - p.confidence) == pytest.approx(raw[text] / (1 - raw[p.text]), rel=1e-3)


def test_a_prediction_is_complete(predictor: CaptchaPredictor, encoded: list[bytes]) -> None:
    for p in predictor.predict(encoded):
        assert len(p.char_confidences) == len(p.spans) == len(p.text)
        assert 0 <= p.confidence <= 1
        assert all(0 <= c <= 1 for c in p.char_confidences)
        assert np.exp(p.log_probs).sum(-1) == pytest.approx(np.ones(12), abs=1e-4)
        assert all(0 <= a < b <= 12 for a, b in p.spans)
        assert 1 <= len(p.alternatives) <= 3
        probabilities = [q for _, q in p.alternatives]
        assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1 + 1e-6
        assert dict(p.alternatives).get(p.text, p.confidence) == pytest.approx(p.confidence, rel=1e-3)
        as_dict = p.as_dict()
        assert list(as_dict) == ["text", "confidence", "characters"]
        assert "".join(c["char"] for c in as_dict["characters"]) == p.text


def test_both_runtimes_read_alike_and_tell_of_themselves(reader: Path, exported: Path, encoded: list[bytes]) -> None:
    ours, theirs = CaptchaPredictor(reader, threads=1), CaptchaPredictor(exported, threads=1)
    for a, b in zip(ours.predict(encoded), theirs.predict(encoded), strict=True):
        assert a.text == b.text
        assert a.confidence == pytest.approx(b.confidence, abs=1e-3)
    assert ours.config == theirs.config
    assert ours.metadata == theirs.metadata
    assert theirs.metadata["metrics"] == {"validation": {"n": 15, "cer": 0.5}}
    assert np.array_equal(ours.preprocess_image(encoded[0]), theirs.preprocess_image(encoded[0]))


def test_an_unreadable_picture_is_named_by_its_place_or_path(
    predictor: CaptchaPredictor, encoded: list[bytes], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="image 2"):
        predictor.predict([encoded[0], encoded[1], b"nonsense"], batch_size=2)
    broken = tmp_path / "broken.png"
    broken.write_bytes(encoded[0][:50])
    with pytest.raises(UserError, match=r"broken\.png"):
        predictor.predict([encoded[0], broken])


def test_one_bad_picture_does_not_lose_a_list(
    predictor: CaptchaPredictor, encoded: list[bytes], tmp_path: Path
) -> None:
    gone = tmp_path / "gone.png"
    found = predictor.predict([encoded[0], b"nonsense", gone, encoded[1]], batch_size=2, errors="return")
    alone = predictor.predict(encoded[:2])
    assert [found[0].text, found[3].text] == [p.text for p in alone]
    assert isinstance(found[1], UserError) and "image 1" in str(found[1])
    assert isinstance(found[2], UserError) and str(gone) in str(found[2])
    assert predictor.predict([b"nonsense"], errors="return")[0].args
    with pytest.raises(UserError, match="choose 'raise' or 'return'"):
        predictor.predict(encoded, errors="ignore")


def test_a_single_picture_is_a_list_of_one(predictor: CaptchaPredictor, encoded: list[bytes], tmp_path: Path) -> None:
    (path := tmp_path / "a.png").write_bytes(encoded[0])
    image = Image.open(io.BytesIO(encoded[0]))
    expected = predictor.predict([encoded[0]])
    pixels = np.asarray(image.convert("RGB"))
    for single in (str(path), path, encoded[0], image, pixels, pixels[None], (path,), iter([path])):
        assert predictor.predict(single) == expected
    with pytest.raises(UserError, match="cannot be read from int"):
        predictor.predict(7)


def test_a_model_that_gives_no_numbers_is_an_error(
    predictor: CaptchaPredictor, encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = predictor.backend.log_probs
    bad = {
        "no numbers": lambda pixels: np.full_like(good(pixels), np.nan),
        "for 2 pictures": lambda pixels: good(pixels)[:1],
        "gives": lambda pixels: good(pixels)[..., :2],
    }
    for said, answer in bad.items():
        monkeypatch.setattr(predictor.backend, "log_probs", answer)
        with pytest.raises(UserError, match=said):
            predictor.predict(encoded[:2])


def test_a_predictor_leaves_the_threads_of_torch_alone(reader: Path, encoded: list[bytes]) -> None:
    before = torch.get_num_threads()
    predictor = CaptchaPredictor(reader, threads=before + 1)
    seen = []
    predictor.backend.model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    predictor.predict(encoded[:2])
    assert seen == [before + 1] and torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_forked_process_reads(kind: str, reader: Path, folder: Path) -> None:
    """The threads of torch and of ONNX Runtime stay behind in the parent."""
    program = """
import os, sys
from predict import CaptchaPredictor
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # else the threads may look as if they had ended
predictor = CaptchaPredictor(sys.argv[1], threads=2)
texts = [p.text for p in predictor.predict(sys.argv[2:])]
child = os.fork()
if child == 0:
    sys.exit(0 if [p.text for p in predictor.predict(sys.argv[2:])] == texts else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    files = [str(path) for path in find_images([folder])]
    weights = reader if kind == "torch" else DEFAULT_CHECKPOINT.with_suffix(".onnx")
    command = [sys.executable, "-c", program, str(weights), *files]
    assert subprocess.run(command, cwd=ROOT, timeout=100).returncode == 0


@pytest.mark.parametrize("name", ["none.safetensors", "none.onnx", "broken.safetensors", "broken.onnx", "model.pt"])
def test_a_checkpoint_that_cannot_be_used_is_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if not name.startswith("none"):
        path.write_bytes(b"nonsense")
    with pytest.raises(UserError) as error:
        CaptchaPredictor(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_onnx_file_of_others_is_refused(exported: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="not written by export_model"):
        CaptchaPredictor(tmp_path / "foreign.onnx")


def test_a_device_that_is_not_there_is_one_sentence(reader: Path) -> None:
    for device in ("cuda:7", "warp"):
        with pytest.raises(UserError, match=device):
            CaptchaPredictor(reader, device=device)


def test_pictures_are_found_by_their_endings(folder: Path) -> None:
    names = [path.name for path in find_images([folder])]
    assert sorted(names) == ["0.png", "1.png", "2.png", "3.png", "4.PNG"]
    assert find_images([folder / "2.png", folder / "0.png"]) == [folder / "2.png", folder / "0.png"]
    with pytest.raises(UserError, match="nowhere"):
        find_images([folder, folder / "nowhere"])
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="no image"):
        find_images([folder / "empty"])
    for hidden in (".ipynb_checkpoints", "empty/.cache/deep"):
        (folder / hidden).mkdir(parents=True)
        (folder / hidden / "x.png").touch()
    assert len(find_images([folder])) == 5, "hidden folders are none of it"
    (folder / "empty" / "a.tiff").touch()
    assert find_images([folder / "empty"]) == [folder / "empty" / "a.tiff"]


# --------------------------------------------------------------------------------------------------------------------
# On the command line


def test_json_lines_hold_exactly_what_is_promised(call: Callable, reader: Path, folder: Path) -> None:
    code, out, _ = call(predict, folder, "--json", "--checkpoint", reader, "--threads", 1)
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    predictor = CaptchaPredictor(reader, threads=1)
    assert len(lines) == 5
    for line, path in zip(lines, find_images([folder]), strict=True):
        assert list(line) == ["file", "text", "confidence", "characters"]
        assert line["file"] == str(path)
        expected = predict_captcha(path, predictor)
        assert line["text"] == expected.text
        assert line["confidence"] == pytest.approx(expected.confidence, abs=1e-4)
        assert [list(c) for c in line["characters"]] == [["char", "confidence"]] * len(expected.text)
        assert [c["char"] for c in line["characters"]] == list(expected.text)
        confidences = [c["confidence"] for c in line["characters"]]
        assert confidences == pytest.approx(expected.char_confidences, abs=1e-4)


@pytest.mark.parametrize("size", [1, 2, 64])
def test_plain_lines_and_csv(size: int, call: Callable, reader: Path, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "new" / "readings.csv"
    flags = ["--checkpoint", reader, "--threads", 1, "--csv", table, "--batch_size", size]
    code, out, err = call(predict, folder / "3.png", folder / "1.png", *flags)
    assert code == 0
    assert f"2 readings in {table}" in err
    texts = [p.text for p in CaptchaPredictor(reader, threads=1).predict([folder / "3.png", folder / "1.png"])]
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[:2] for line in lines] == [[str(folder / "3.png"), texts[0]], [str(folder / "1.png"), texts[1]]]
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["text"]) for row in rows] == [tuple(line[:2]) for line in lines]
    for row, line in zip(rows, lines, strict=True):
        assert float(row["confidence"]) == pytest.approx(float(line[2]), abs=1e-3)
        assert len(row["character_confidences"].split()) == len(row["text"])


def test_what_is_no_picture_stands_in_the_csv_too(call: Callable, reader: Path, folder: Path, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.png").write_bytes((folder / "1.png").read_bytes()[:50])
    table = tmp_path / "readings.csv"
    code, _, err = call(predict, broken, folder / "1.png", "--checkpoint", reader, "--threads", 1, "--csv", table)
    assert code == 1 and "1 of 2 files" in err
    with table.open(newline="", encoding="utf-8") as file:
        read, skipped = csv.DictReader(file)
    assert (read["file"], read["error"]) == (str(folder / "1.png"), "") and read["text"]
    assert (skipped["file"], skipped["text"]) == (str(broken), "")
    assert f"skipped: {skipped['error']}" in err and "broken.png" in skipped["error"]
    _, out, _ = call(predict, broken, folder / "1.png", "--checkpoint", reader, "--threads", 1, "--json")
    good, bad = map(json.loads, out.splitlines())
    assert good["text"] == read["text"] and bad == {"file": str(broken), "error": skipped["error"]}


def test_no_cell_of_the_csv_is_a_formula(call: Callable, reader: Path, folder: Path, tmp_path: Path) -> None:
    for name, data in (("=1+1.png", (folder / "1.png").read_bytes()), ("\t@a.png", b"no picture")):
        (folder / name).write_bytes(data)
    with contextlib.chdir(folder):
        call(predict, "=1+1.png", "\t@a.png", "--checkpoint", reader, "--threads", 1, "--csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row if cell]
    assert "'=1+1.png" in cells and "'\t@a.png" in cells
    assert not [cell for cell in cells if cell.lstrip()[0] in "=+-@"]


def test_what_else_stands_in_the_folder_is_counted(call: Callable, reader: Path, folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    for name in ("a.txt", "b.TXT", "c.svg", "notes", ".hidden"):
        (folder / name).touch()
    code, out, err = call(predict, folder, "--checkpoint", reader, "--threads", 1)
    assert code == 1 and len(out.splitlines()) == 5
    assert "gone.png cannot be read" in err and "3 .txt" in err and "1 .svg" in err and "1 notes" in err


def test_a_grid_is_drawn(call: Callable, reader: Path, folder: Path, tmp_path: Path) -> None:
    code, _, err = call(predict, folder, "--checkpoint", reader, "--threads", 1, "--grid", tmp_path / "grid.png")
    assert code == 0, err
    assert str(tmp_path / "grid.png") in err
    assert min(Image.open(tmp_path / "grid.png").size) > 100


def test_a_grid_that_cannot_be_written_hides_no_failure(
    call: Callable, reader: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "0.png").write_bytes(b"nonsense")
    flags = [folder, "--checkpoint", reader, "--threads", 1, "--grid"]
    code, out, err = call(predict, *flags, tmp_path / "grid.txt")
    assert code == 1 and not out, "nothing is read for a picture that cannot be written"
    assert "grid.txt is no picture that can be written: end the name in .png" in err
    (tmp_path / "file").touch()
    code, out, err = call(predict, *flags, tmp_path / "file" / "grid.png")
    assert code == 1 and len(out.splitlines()) == 4 and "cannot be written" in err
    assert f"skipped: {folder / '0.png'}" in err and "1 of 5 files could not be read" in err


@pytest.mark.parametrize("size", [1, 64])
def test_unreadable_files_do_not_stop_the_others(size: int, call: Callable, reader: Path, folder: Path) -> None:
    (folder / "0.png").write_bytes(b"nonsense")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    flags = ["--json", "--checkpoint", reader, "--threads", 1, "--batch_size", size]
    code, out, err = call(predict, folder, *flags)
    assert code == 1
    lines = [json.loads(line) for line in out.splitlines()]
    assert sorted(Path(line["file"]).name for line in lines if "text" in line) == ["1.png", "3.png", "4.PNG"]
    assert sorted(Path(line["file"]).name for line in lines if "error" in line) == ["0.png", "2.png"]
    assert str(folder / "0.png") in err and str(folder / "2.png") in err
    assert "2 of 5 files" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said", "expected"),
    [
        (["nowhere.png"], "nowhere.png", 1),
        (["PICTURE", "--checkpoint", "none.safetensors"], "none.safetensors", 1),
        (["PICTURE", "--checkpoint", "none.onnx"], "none.onnx", 1),
        (["PICTURE", "--batch_size", "0"], "batch", 1),
        (["PICTURE", "--threads", "0"], "threads", 1),
        (["PICTURE", "--jsno"], "jsno", 2),
        ([], "images", 2),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], said: str, expected: int, call: Callable, folder: Path, reader: Path
) -> None:
    arguments = [str(folder / "1.png") if a == "PICTURE" else a for a in arguments]
    if "--checkpoint" not in arguments:
        arguments += ["--checkpoint", str(reader)]
    code, out, err = call(predict, *arguments)
    assert (code, out) == (expected, "")
    assert said in err
    assert "Traceback" not in err


def test_onnx_needs_no_torch_and_a_real_process_reads(exported: Path, reader: Path, folder: Path) -> None:
    program = (
        "import runpy, sys; sys.argv = ['predict.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('predict.py', run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'torchvision', 'accelerate', 'datasets', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)"
    )
    command = [sys.executable, "-c", program, str(folder), "--json", "--checkpoint", str(exported)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    texts = [json.loads(line)["text"] for line in result.stdout.splitlines()]
    assert texts == [p.text for p in CaptchaPredictor(reader, threads=1).predict(find_images([folder]))]


def test_what_the_model_looks_at_is_told_where_it_has_slots(tiny: Callable, exported: Path, tmp_path: Path) -> None:
    from model import build_model, save_checkpoint

    path = save_checkpoint(build_model(tiny(head="slots")), tmp_path / "slots.safetensors")
    slots = CaptchaPredictor(path, threads=1)
    pixels = np.zeros((2, slots.config.channels, *slots.config.image_size), np.uint8)
    attention = slots.attention(pixels)
    assert attention is not None and attention.shape[:2] == (2, 3) and attention.sum(axis=2) == pytest.approx(1.0)
    assert CaptchaPredictor(exported, threads=1).attention(pixels) is None


def test_a_pass_that_is_stopped_is_followed_by_others(exported: Path, encoded: list[bytes]) -> None:
    predictor = CaptchaPredictor(exported, threads=1)
    before, running = predictor.predict(encoded[:1])[0].text, predictor.backend.running
    predictor.backend.stop()
    assert running.terminate and not predictor.backend.running.terminate
    assert predictor.predict(encoded[:1])[0].text == before


def test_what_the_labels_had_in_common_is_offered_unless_something_is_known(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = CaptchaPredictor(exported, threads=1)
    predict.say_suggested(predictor, Constraints())
    assert capsys.readouterr().err == "", "nothing is known of this model's labels"
    monkeypatch.setattr(CaptchaPredictor, "suggested_constraints", Constraints("0-9", "4-6"))
    predict.say_suggested(predictor, Constraints("a-d"))
    assert capsys.readouterr().err == ""
    predict.say_suggested(predictor, Constraints())
    said = capsys.readouterr().err
    assert "fit --characters '0-9' --length '4-6': give that to read no others" in said
