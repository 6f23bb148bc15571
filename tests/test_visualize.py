"""The pictures: they are written, they can be read, and they change where the thing they show changes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops
from PIL.ImageColor import getrgb

import visualize
from accuracy_calculator import detailed_metrics
from captcha_reader.errors import UserError
from captcha_reader.plots import canvas, grid
from captcha_reader.plots.boxes import character_boxes, draw_boxes
from captcha_reader.plots.canvas import figure_image
from captcha_reader.plots.colors import CONFIDENCE_COLORS, RIGHT, WRONG, confidence_class
from captcha_reader.plots.confidence import confidence_grid, confidence_matrix
from captcha_reader.plots.evaluation import draw_report, plot_breakdown, plot_calibration, plot_confusion
from captcha_reader.plots.grid import draw_grid, worst_first
from captcha_reader.plots.training import plot_history
from captcha_reader.text import Alphabet, build_codec
from predict import CaptchaPredictor, Prediction
from visualize import CaptchaVisualizer, show_all_images_with_predictions

ALPHABET = Alphabet("abcdefghijJ$0")
REPORT_PLOTS = (plot_confusion, plot_calibration, plot_breakdown)


@pytest.fixture(scope="module")
def predictor(reader: Path) -> CaptchaPredictor:
    return CaptchaPredictor(reader, device="cpu", threads=1)


@pytest.fixture(scope="module")
def visualizer(predictor: CaptchaPredictor) -> CaptchaVisualizer:
    return CaptchaVisualizer(predictor)


def says(text: str, confidence: float | list[float] = 0.99, head: str = "slots") -> Prediction:
    """A reading of `text` whose characters have these confidences, decoded from probabilities as any other is."""
    confidences = confidence if isinstance(confidence, list) else [confidence] * len(text)
    codec = build_codec(head, ALPHABET)
    rows = []
    for k, p in zip(codec.encode(text), confidences, strict=True):
        row = np.full(ALPHABET.num_classes, (1 - p) / (ALPHABET.num_classes - 1))
        row[k] = p
        blank = np.full(ALPHABET.num_classes, 1e-3)
        blank[0] = 1 - blank[1:].sum()
        rows += [row, blank] if head == "ctc" else [row]
    end = np.full(ALPHABET.num_classes, 1e-3)
    end[0] = 1 - end[1:].sum()
    log_probs = np.log(np.array([*rows, end], dtype=np.float32))
    r = codec.decode(log_probs[None])[0]
    assert r.text == text
    return Prediction(r.text, r.confidence, r.char_confidences, r.spans, log_probs, codec, SEEN)


def count(picture: Image.Image, color: str) -> int:
    """Pixels of about this color."""
    difference = np.abs(np.asarray(picture.convert("RGB"), dtype=int) - getrgb(color)).max(axis=2)
    return int((difference <= 3).sum())


def drawn(picture: Image.Image) -> tuple[int, int, int, int]:
    """Bounding box of what is not white."""
    box = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    assert box, "the picture is empty"
    return box


def opened(path: Path, widest: int = 2600, highest: int = 9000) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
    assert 300 <= picture.width <= widest and 100 <= picture.height <= highest, picture.size
    return picture.convert("RGB")


GRAY = Image.new("RGB", (160, 60), "#888888")
SEEN = (40, -5, 140, 55)  # of that picture, by the network


# --------------------------------------------------------------------------------------------------------------------
# Grids


def test_right_and_wrong_differ_in_color_and_in_mark():
    right = figure_image(draw_grid([GRAY], [says("abc")], ["abc"]))
    wrong = figure_image(draw_grid([GRAY], [says("abc")], ["abd"]))
    unknown = figure_image(draw_grid([GRAY], [says("abc")]))
    # All characters are sure, so crimson stands in the frame and the mark, and a little in the legend.
    legend = count(right, WRONG)
    assert count(wrong, WRONG) > legend + 300
    assert count(right, RIGHT) > count(wrong, RIGHT) + 300
    assert count(unknown, WRONG) == legend and count(unknown, RIGHT) < count(right, RIGHT) - 300
    # Without color the marks still differ, in the strip under the picture and left of the reading.
    left, top, *_ = _middle_gray(right)
    strip = (left, top, left + 26, top + 50)
    marks = [np.asarray(p.crop(strip).convert("L"), dtype=int) < 200 for p in (right, wrong)]
    assert marks[0].any() and (marks[0] != marks[1]).sum() > 20


def _middle_gray(picture: Image.Image) -> tuple[int, int, int, int]:
    """(left, below) of the captcha in a cell, and its size."""
    rows, columns = np.nonzero((np.asarray(picture) == 0x88).all(axis=2))
    return int(columns.min()), int(rows.max()) + 1, int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def test_the_picture_itself_is_in_its_cell_and_keeps_its_shape():
    *_, width, height = _middle_gray(figure_image(draw_grid([GRAY], [says("abc")], ["abc"])))
    assert width > 200 and width / height == pytest.approx(160 / 60, rel=0.05)


def test_each_character_has_the_color_of_its_confidence():
    assert [confidence_class(p) for p in (1.0, 0.9, 0.8999, 0.6, 0.5999, 0.0)] == [
        *("high", "high", "medium", "medium", "low", "low")
    ]
    for name, confidence in (("high", 0.95), ("medium", 0.7), ("low", 0.4)):
        picture = figure_image(draw_grid([GRAY], [says("abc", [0.95, confidence, 0.95])]))
        _, below, *_ = _middle_gray(picture)
        caption = picture.crop((0, below, picture.width, picture.height))
        for other, color in CONFIDENCE_COLORS.items():
            assert (count(caption, color) > 15) == (other in (name, "high")), (name, other)


@pytest.mark.parametrize(
    "image, text, truth",
    [
        (GRAY, "", "abc"),
        (GRAY, "", ""),
        (GRAY, "abcdefghij", "abcdefghiJ"),
        (GRAY, "a$a$b", "a$a$b"),
        (GRAY, "a" * 32, "a" * 32),
        (Image.new("RGB", (60, 400), "#888888"), "abc", "abc"),
        (Image.new("RGB", (1800, 40), "#888888"), "abc", "abc"),
        (Image.new("RGBA", (3, 3), (0, 0, 0, 0)), "abc", "abc"),
    ],
)
def test_odd_readings_and_shapes_stay_inside_the_page(image, text, truth):
    picture = figure_image(draw_grid([image], [says(text)], [truth]))
    left, top, right, bottom = drawn(picture)
    assert left >= 8 and top >= 8 and right <= picture.width - 8 and bottom <= picture.height - 8


def test_the_caption_stays_inside_its_frame():
    picture = np.asarray(figure_image(draw_grid([GRAY], [says("a" * 32)], ["J" * 32], ["n" * 90 + ".png"])))
    rows, columns = np.nonzero(np.abs(picture.astype(int) - getrgb(WRONG)).max(axis=2) <= 3)
    below = rows > 90  # under the title and the legend
    left, right = columns[below].min(), columns[below].max()
    assert (picture[90:, right + 3 :] == 255).all() and (picture[90:, : left - 2] == 255).all()


def test_more_pictures_than_fit_are_cut_at_200_and_that_is_said(tmp_path: Path, monkeypatch):
    notes = []
    real = grid.draw_grid
    monkeypatch.setattr(grid, "MAX_PICTURES", 6)  # the same path, in a fraction of the time
    monkeypatch.setattr(grid, "draw_grid", lambda *a, **k: notes.append((len(a[0]), a[5])) or real(*a, **k))
    show_all_images_with_predictions([GRAY] * 6, [says("abc")] * 6, tmp_path / "six.png")
    show_all_images_with_predictions([GRAY] * 7, [says("abc")] * 7, tmp_path / "seven.png", ["abc"] * 7)
    assert notes == [(6, ""), (6, "The first 6 of 7 pictures.")]


def test_a_folder_of_files_is_shown_with_their_names(tmp_path: Path):
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    for file in files:
        GRAY.save(file)
    named = opened(show_all_images_with_predictions(files, [says("abc")] * 2, tmp_path / "named.png"))
    nameless = opened(show_all_images_with_predictions([GRAY] * 2, [says("abc")] * 2, tmp_path / "nameless.png"))
    assert named.height > nameless.height
    opened(show_all_images_with_predictions([], [], tmp_path / "none.png"))


def test_worst_errors_come_first(visualizer: CaptchaVisualizer, tmp_path: Path, monkeypatch):
    readings = [says("abc", p) for p in (0.9, 0.7, 0.95, 0.8)]
    truths = ["abc", "abd", "abd", "abc"]
    assert worst_first(readings, truths) == [2, 1, 3, 0]
    shown = []
    real = grid.draw_grid
    monkeypatch.setattr(grid, "draw_grid", lambda *a, **k: shown.append(a[1]) or real(*a, **k))
    visualizer.visualize_predictions([GRAY] * 4, truths, tmp_path / "worst.png", readings, worst=True)
    visualizer.visualize_predictions([GRAY] * 4, truths, tmp_path / "all.png", readings)
    assert shown == [[readings[i] for i in (2, 1, 3, 0)], readings]
    with pytest.raises(UserError, match="truths"):
        visualizer.visualize_predictions([GRAY] * 4, None, tmp_path / "x.png", readings, worst=True)


def test_lists_of_different_length_are_refused(tmp_path: Path):
    for images, readings, truths in ((1, 2, 1), (2, 2, 1)):
        with pytest.raises(UserError, match="one for each"):
            show_all_images_with_predictions(
                [GRAY] * images, [says("abc")] * readings, tmp_path / "x.png", ["abc"] * truths
            )
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "picture.docx", tmp_path / "picture", tmp_path / "file" / "picture.png"):
        with pytest.raises(UserError):
            plot_history([], path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_threads_draw_the_same_pictures_as_one_alone():
    readings = [says("abc", p) for p in (0.95, 0.7, 0.5, 0.8)]
    alone = [figure_image(confidence_grid(r)).tobytes() for r in readings]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda r: figure_image(confidence_grid(r)).tobytes(), readings * 2))
    assert together == alone * 2 and len(set(alone)) == 4


def test_nothing_heavy_or_global_is_imported():
    code = "import sys, visualize; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    root = str(Path(visualize.__file__).parent)
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------------------------------------------------
# CaptchaVisualizer


def test_methods_agree_with_the_predictor(visualizer, predictor, captchas, tmp_path: Path):
    images = [png for png, _ in captchas[:6]]
    readings = predictor.predict(images)
    log_probs = np.stack([r.log_probs for r in readings])
    assert visualizer.decode_predictions(log_probs) == [r.text for r in readings]
    characters, confidences = zip(*visualizer.get_confidence_per_char(images[0]), strict=True)
    assert characters == tuple(readings[0].text)
    assert confidences == pytest.approx(readings[0].char_confidences, abs=1e-4)
    assert visualizer.get_confidence_per_char(readings[0]) == list(
        zip(readings[0].text, readings[0].char_confidences, strict=True)
    )
    assert visualizer.create_index_to_char_mapping() == {0: "", 1: "a", 2: "b", 3: "c", 4: "d"}
    assert visualizer.decode_labels(np.array([[1, 2, 0], [4, 4, 4]])) == ["ab", "ddd"]
    assert visualizer.decode_labels([[], [3]]) == ["", "c"]
    for wrong in (5, -1):
        with pytest.raises(UserError, match=str(wrong)):
            visualizer.decode_labels([[1, wrong]])
    own = visualizer.visualize_predictions(images, ["a"] * 6, tmp_path / "own.png")
    given = visualizer.visualize_predictions(images, ["a"] * 6, tmp_path / "given.png", readings)
    assert own.read_bytes() == given.read_bytes()
    opened(own)


def test_one_image_large(visualizer, captchas, tmp_path: Path):
    png, _ = captchas[0]
    reading = visualizer.predictor.predict([png])[0]
    right = opened(visualizer.visualize_image(png, tmp_path / "right.png", reading.text))
    wrong = opened(visualizer.visualize_image(png, tmp_path / "wrong.png", reading.text + "a"))
    assert count(right, RIGHT) > count(wrong, RIGHT) + 500


def test_the_latest_model_is_the_newest_file(reader: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"main\.py"):
        CaptchaVisualizer.load_latest_model(tmp_path)
    places = ["reader.safetensors", "run-a/best.safetensors", "run-b/best.safetensors", "run-b/last.safetensors"]
    for age, place in enumerate(places):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(reader.read_bytes())
        os.utime(tmp_path / place, (1_000_000, 1_000_000 - age))
    os.utime(tmp_path / "run-b" / "last.safetensors", (2_000_000, 2_000_000))  # not a run's best
    assert CaptchaVisualizer.load_latest_model(tmp_path).path == tmp_path / "reader.safetensors"
    os.utime(tmp_path / "run-a" / "best.safetensors", (1_500_000, 1_500_000))
    assert CaptchaVisualizer.load_latest_model(tmp_path).path == tmp_path / "run-a" / "best.safetensors"


def test_a_checkpoint_may_be_named_by_its_path(reader: Path):
    assert CaptchaVisualizer(str(reader)).predictor.path == reader


# --------------------------------------------------------------------------------------------------------------------
# Confidence grid


@pytest.mark.parametrize("head", ["ctc", "slots"])
def test_confidence_matrix_holds_the_confidences(head: str):
    reading = says("abba", [0.9, 0.5, 0.7, 0.8], head)
    matrix, labels = confidence_matrix(reading)
    ids = reading.codec.encode("abba")
    assert matrix.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert [matrix[i, k] for i, k in enumerate(ids)] == pytest.approx(list(reading.char_confidences), abs=1e-5)
    assert [label.split()[-1] for label in labels] == ["a", "b", "b", "a", *(["end"] if head == "slots" else [])]


@pytest.mark.parametrize("head", ["ctc", "slots"])
@pytest.mark.parametrize("text", ["", "a", "abcdefghij"])
def test_confidence_grid_fits_its_page(head: str, text: str):
    picture = figure_image(confidence_grid(says(text, head=head)))
    left, top, right, bottom = drawn(picture)
    assert left > 2 and top > 2 and right < picture.width - 2 and bottom < picture.height - 2
    assert 500 < picture.width < 1200


def test_confidence_grid_shows_the_likeliest_of_a_large_alphabet():
    alphabet = Alphabet("".join(map(chr, range(0x4E00, 0x4E00 + 500))))
    codec = build_codec("slots", alphabet)
    log_probs = np.log(np.random.default_rng(0).dirichlet([0.05] * 501, size=4) + 1e-9).astype(np.float32)
    r = codec.decode(log_probs[None])[0]
    figure = confidence_grid(Prediction(r.text, r.confidence, r.char_confidences, r.spans, log_probs, codec, SEEN))
    columns = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(columns) == canvas.MAX_CLASSES and set(r.text) <= set(columns)


# --------------------------------------------------------------------------------------------------------------------
# Where characters were seen


class Seer:
    """What `character_boxes` asks a predictor for: where slots look."""

    def __init__(self, attention: np.ndarray | None = None) -> None:
        self.looks = attention

    def preprocess_image(self, image: Image.Image) -> np.ndarray:
        return np.zeros((1, 4, 4), dtype=np.uint8)

    def attention(self, pixels: np.ndarray) -> np.ndarray | None:
        return None if self.looks is None else self.looks[None]


def test_boxes_of_ctc_stand_around_the_steps_in_order():
    prediction = says("abc", head="ctc")  # 7 steps; the characters are at 0, 2 and 4
    boxes = character_boxes(GRAY, prediction, Seer())
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left <= 40 + (2 * i + 0.5) / 7 * 100 <= right and (top, bottom) == (0, 55)
    assert [b[0] for b in boxes[1:]] == pytest.approx([b[2] for b in boxes[:-1]])
    assert len(character_boxes(GRAY, says("a", head="ctc"), Seer())) == 1
    assert character_boxes(GRAY, says("", head="ctc"), Seer()) == []
    assert draw_boxes(GRAY, says("", head="ctc"), Seer()) is None


def test_boxes_of_slots_stand_where_they_look():
    attention = np.full((3, 20), 0.001)
    for slot, column in enumerate((2, 9, 17)):
        attention[slot, column] = 1
    boxes = character_boxes(GRAY, says("ab"), Seer(attention))
    for (left, _, right, _), column in zip(boxes, (2, 9), strict=True):
        assert 40 + 5 * column <= left < right <= 40 + 5 * (column + 1)
    assert character_boxes(GRAY, says("ab"), Seer()) is None and draw_boxes(GRAY, says("ab"), Seer()) is None


def test_boxes_are_drawn_in_the_color_of_the_confidence():
    picture = draw_boxes(GRAY, says("abc", [0.99, 0.7, 0.3], head="ctc"), Seer())
    assert picture.mode == "RGBA" and picture.width > 300
    assert all(count(picture, color) > 50 for color in CONFIDENCE_COLORS.values())


# --------------------------------------------------------------------------------------------------------------------
# Curves and reports


def epoch(number: int, phase: str = "whole", **validation) -> dict:
    row = {"epoch": number, "phase": phase, "train_loss": 9.0 / number, "learning_rate": 1e-3, "seconds": 1.0}
    if validation:
        row["validation"] = {"loss": 8.0 / number, "n": 20, **validation}
    return row


def test_curves_for_any_history(tmp_path: Path):
    one = [epoch(1, sequence_accuracy=0.25, cer=0.5)]
    two = [epoch(1, "frozen", sequence_accuracy=0.25, cer=0.5), epoch(2, sequence_accuracy=0.75, cer=0.1)]
    histories = {
        "none": [],
        "one": one,
        "two": two,
        "better": [two[0], epoch(2, sequence_accuracy=1.0, cer=0.0)],
        "unvalidated": [epoch(1), epoch(2)],
        "mixed": [epoch(1), two[1]],
        "long": [epoch(i, sequence_accuracy=0.5, cer=0.5) for i in range(1, 200)],
        "bad": [epoch(1, sequence_accuracy=0.0, cer=3.0)],
    }
    pictures = {name: opened(plot_history(rows, tmp_path / f"{name}.png")) for name, rows in histories.items()}
    assert len({p.tobytes() for p in pictures.values()}) == len(histories)
    assert pictures["unvalidated"].height < pictures["two"].height  # no empty panel
    for picture in pictures.values():
        left, top, right, bottom = drawn(picture)
        assert left > 2 and top > 2 and right < picture.width - 2 and bottom < picture.height - 2


def test_report_pictures_follow_the_report(tmp_path: Path):
    alike = detailed_metrics(["abc", "abd"], ["abc", "abd"], [0.9, 0.8])
    mistaken = detailed_metrics(["abc", "abd"], ["abcd", "aad"], [0.9, 0.3])
    for plot in REPORT_PLOTS:
        good = opened(plot(alike, tmp_path / "good.png"))
        bad = opened(plot(mistaken, tmp_path / "bad.png"))
        assert good.tobytes() != bad.tobytes(), plot.__name__
    confused = opened(plot_confusion(mistaken, tmp_path / "confusion.png"))
    assert count(confused, WRONG) > 500  # the bars of the commonest mistakes
    assert count(opened(plot_confusion(alike, tmp_path / "clean.png")), WRONG) == 0


@pytest.mark.parametrize("size", [1, 2, 62, 100])
def test_confusion_of_alphabets_of_any_size(size: int, tmp_path: Path):
    characters = [chr(0xC0 + i) for i in range(size)]
    counts = [{"truth": c, "reading": c, "count": 50} for c in characters]
    counts += [
        {"truth": "", "reading": characters[0], "count": 2},
        {"truth": characters[-1], "reading": "", "count": 1},
    ]
    picture = opened(plot_confusion({"character_counts": counts}, tmp_path / "confusion.png"))
    left, top, right, bottom = drawn(picture)
    assert left > 2 and top > 2 and right < picture.width - 2 and bottom < picture.height - 2


def test_empty_reports_say_so(tmp_path: Path):
    for plot in REPORT_PLOTS:
        for report in ({}, {"character_counts": [], "calibration": [], "by_length": {}, "by_position": {}}):
            drawn(opened(plot(report, tmp_path / "empty.png")))


def test_draw_report_writes_everything(predictor, captchas, tmp_path: Path):
    images, texts = [png for png, _ in captchas[:8]], [text for _, text in captchas[:8]]
    readings = predictor.predict(images)
    report = detailed_metrics(texts, [r.text for r in readings], [r.confidence for r in readings])
    written = draw_report(images, texts, readings, report, tmp_path / "new" / "pictures")
    names = {"confusion.png", "calibration.png", "breakdown.png", "worst.png", "samples.png"}
    assert {p.name for p in written} == names == {p.name for p in (tmp_path / "new" / "pictures").iterdir()}
    for path in written:
        drawn(opened(path))
    assert all(p.exists() for p in draw_report([], [], [], {}, tmp_path / "empty"))
