"""Pictures of one kind, read together: what they have in common is found, and helps."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import accuracy_calculator
import predict
from accuracy_calculator import load_labeled
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT
from captcha_reader.reading.collection import Scheme, estimate_scheme, read_together
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.prediction import Prediction
from captcha_reader.reading.tta import MIN_CONFIDENCE
from captcha_reader.text import Alphabet, CTCCodec, SlotCodec
from predict import CaptchaPredictor

CAPTCHA_V2 = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "captcha_v2"


def words(length: int | tuple[int, ...], count: int, characters: str = "abcdefgh", seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    lengths = (length,) if isinstance(length, int) else length
    return ["".join(rng.choices(characters, k=rng.choice(lengths))) for _ in range(count)]


def sure(texts: list[str], p: float = 0.9) -> list[Mapping[str, float]]:
    return [{text: p} for text in texts]


# --------------------------------------------------------------------------------------------------------------------
# The kind


def test_a_kind_of_one_length_takes_away_the_letter_too_many() -> None:
    doubtful = {"habcde": 0.7, "abcde": 0.2}
    kind = estimate_scheme([*sure(words(5, 40)), doubtful])
    assert max(kind.lengths, key=kind.lengths.__getitem__) == 5
    text, confidence = kind.weigh(doubtful)
    assert text == "abcde"
    assert 0.5 < confidence <= 0.9  # not surer than the candidates together
    assert sum(kind.lengths.values()) == pytest.approx(1)


def test_a_kind_of_many_lengths_leaves_readings_alone() -> None:
    doubtful = {"habcde": 0.6, "abcde": 0.3}
    kind = estimate_scheme([*sure(words((3, 4, 5, 6, 7, 8), 300)), doubtful])
    assert kind.weigh(doubtful)[0] == "habcde"


def test_what_a_kind_does_not_use_is_told_from_many_readings_and_not_from_few() -> None:
    doubtful = {"12O4": 0.5, "1204": 0.4}
    few = estimate_scheme([*sure(words(4, 5, "0123456789")), doubtful])
    assert not few.charset_known and few.weigh(doubtful)[0] == "12O4"
    many = estimate_scheme([*sure(words(4, 100, "0123456789")), doubtful])
    assert many.charset_known and many.characters == "0123456789"
    assert many.weigh(doubtful)[0] == "1204"
    assert "10 characters, 0123456789" in str(many) and "4 (" in str(many)


def doubted(texts: list[str], favored: str, spurned: str, seed: int = 1) -> list[dict[str, float]]:
    """Candidates of a reader that takes every `spurned` for `favored`, a little less surely than it reads these."""
    rng = random.Random(seed)
    pictures = []
    for text in texts:
        found = {text: 1.0}
        for i, character in enumerate(text):
            if character in favored + spurned:
                says_favored = rng.uniform(0.7, 0.99) if character == favored else rng.uniform(0.51, 0.8)
                other = {t[:i] + favored + t[i + 1 :]: p * says_favored for t, p in found.items()}
                found = other | {t[:i] + spurned + t[i + 1 :]: p * (1 - says_favored) for t, p in found.items()}
        pictures.append(found)
    return pictures


def test_what_is_taken_for_another_is_told_by_uneven_use_of_given_characters() -> None:
    texts = words(5, 200, "abcdefgh")
    pictures = doubted(texts, "a", "b")

    def right(scheme: Scheme) -> float:
        return np.mean([scheme.weigh(found)[0] == text for found, text in zip(pictures, texts, strict=True)])

    knowing = estimate_scheme(pictures, Constraints("abcdefgh", 5))
    assert right(estimate_scheme(pictures)) < 0.6  # each `b` is wrong
    assert right(knowing) > 0.7
    assert knowing.corrections["a"] < 0 < knowing.corrections["b"]
    assert all(abs(knowing.corrections[c]) < 0.3 for c in "cdefgh")


def test_words_whose_letters_are_uneven_are_left_alone() -> None:
    usual = "etaoinshrdlcumwfgypbvk"  # 1/n, as letters of a language are used
    rng = random.Random(0)
    texts = ["".join(rng.choices(usual, [1 / n for n in range(1, 23)], k=6)) for _ in range(200)]
    assert not estimate_scheme(sure(texts), Constraints("a-z")).corrections


def test_a_rare_character_that_is_read_surely_stays() -> None:
    readings = sure(words(5, 100)) + sure(["abcdz"] * 10)
    kind = estimate_scheme(readings)
    assert kind.charset_known and "z" in kind.characters


def test_one_round_is_what_the_formula_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captcha_reader.reading.collection.ROUNDS", 1)
    pictures = [{"aaa": 0.5, "aaaa": 0.25}, {"bbbb": 0.8}]
    # Even lengths before: a text's weight is its probability to the power of 0.7.
    three = 0.5**0.7 / (0.5**0.7 + 0.25**0.7)
    expected = dict.fromkeys(range(3, 11), 1 / 8)
    expected[3] += three
    expected[4] += 1 - three + 1
    assert estimate_scheme(pictures).lengths == pytest.approx({n: p / 3 for n, p in expected.items()})


def test_nothing_read_is_no_kind() -> None:
    kind = estimate_scheme([{}, {}])
    assert kind.lengths == pytest.approx(dict.fromkeys(range(3, 11), 1 / 8)) and not kind.charset_known
    assert read_together([]) == ([], estimate_scheme([]))
    assert Scheme({5: 1.0}).prior("abcde") > 1e4 * Scheme({5: 1.0}).prior("abcdef") > 0


def test_very_long_words_do_no_harm() -> None:
    kind = estimate_scheme(sure(["ab" * 40, "ab" * 50]))
    assert kind.weigh({"ab" * 45: 0.5})[0] == "ab" * 45


# --------------------------------------------------------------------------------------------------------------------
# A given text in a picture


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_a_given_text_is_read_as_all_its_paths_say() -> None:
    codec = CTCCodec(Alphabet("ab"))
    log_probs = log_softmax(np.random.default_rng(3).normal(size=(5, 3)) * 2)
    for text in ("a", "ab", "ba", "aa", "aba"):
        paths = {}
        for path in itertools.product(range(3), repeat=5):
            kept = [c for c, _ in itertools.groupby(path) if c]
            if "".join(" ab"[c] for c in kept) == text:
                paths[path] = sum(log_probs[t, c] for t, c in enumerate(path))
        reading = codec.read_as(log_probs, text)
        assert reading.text == text
        assert reading.confidence == pytest.approx(sum(map(math.exp, paths.values())))
        best = max(paths, key=paths.__getitem__)
        for (start, stop), character, p in zip(reading.spans, text, reading.char_confidences, strict=True):
            assert set(best[start:stop]) == {" ab".index(character)}
            assert p == pytest.approx(max(math.exp(log_probs[t, " ab".index(character)]) for t in range(start, stop)))


@pytest.mark.parametrize("codec_class", [CTCCodec, SlotCodec])
def test_the_reading_itself_is_read_as_before(codec_class: type[CTCCodec] | type[SlotCodec]) -> None:
    codec = codec_class(Alphabet("abcd"))
    rng = np.random.default_rng(1)
    for _ in range(20):
        log_probs = log_softmax(rng.normal(size=(6, 5)) * 3).astype(np.float32)
        (decoded,) = codec.decode(log_probs[None])
        if decoded.text:
            again = codec.read_as(log_probs, decoded.text)
            assert (again.text, again.spans) == (decoded.text, decoded.spans)
            assert again.confidence == pytest.approx(decoded.confidence, rel=1e-4)
            assert again.char_confidences == pytest.approx(decoded.char_confidences, rel=1e-4)


# --------------------------------------------------------------------------------------------------------------------
# Pictures


def predicted(text: str, other: str, p: float, codec: CTCCodec) -> Prediction:
    """A picture that says `text`, each character of it with probability p, and `other` at another look."""

    def look(said: str, p: float) -> Prediction:
        probs = np.full((2 * len(said) + 1, codec.alphabet.num_classes), 1e-6)
        for i, symbol in enumerate(codec.encode(said)):
            probs[2 * i + 1, symbol], probs[2 * i + 1, 0] = p, 1 - p
        probs[::2, 0] = 1
        log_probs = np.log(probs / probs.sum(1, keepdims=True)).astype(np.float32)
        (r,) = codec.decode(log_probs[None])
        return Prediction(r.text, r.confidence, r.char_confidences, r.spans, log_probs, codec, (0, 0, 9, 9))

    first = look(text, p)
    return Prediction(
        first.text,
        first.confidence,
        first.char_confidences,
        first.spans,
        first.log_probs,
        codec,
        first.box,
        (look(other, p),) if other else (),
    )


def test_a_text_of_another_look_is_shown_where_that_look_saw_it() -> None:
    codec = CTCCodec(Alphabet("abcdefgh"))
    plain = [predicted(word, "", 0.95, codec) for word in words(5, 40)]
    hooked = predicted("habcde", "abcde", 0.9, codec)
    assert hooked.text == "habcde"
    together, kind = read_together([*plain, hooked])
    assert [p.text for p in together[:-1]] == [p.text for p in plain]
    assert together[-1].text == "abcde" and max(kind.lengths, key=kind.lengths.__getitem__) == 5
    assert len(together[-1].log_probs) == 11  # the other look's
    assert together[-1].spans == ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10))
    assert {look.text for look in together[-1].other_views} == {"habcde"}
    assert all(0 <= p.confidence <= 1 for p in together)


def test_every_look_is_kept_where_it_is_asked_for(captchas: list[tuple[bytes, str]]) -> None:
    predictor = CaptchaPredictor(DEFAULT_CHECKPOINT.with_suffix(".onnx"), threads=1)
    assert not any(reading.other_views for reading in predictor.predict([png for png, _ in captchas]))
    readings = predictor.predict([png for png, _ in captchas], keep_views=True)
    assert any(reading.other_views for reading in readings)
    for reading in readings:
        looks = (reading, *reading.other_views)
        assert len(looks) <= 8
        assert len(looks) > 1 or reading.confidence >= MIN_CONFIDENCE
        assert reading.text in reading.candidates
        assert 0 < sum(reading.candidates.values()) <= 1 + 1e-6


@pytest.mark.skipif(not CAPTCHA_V2.is_dir(), reason="needs the real captchas of shared/data/captcha_v2")
def test_real_captchas_of_one_kind_are_read_better_together() -> None:
    images, texts, _ = load_labeled(str(CAPTCHA_V2), limit=200)
    alone = CaptchaPredictor(DEFAULT_CHECKPOINT.with_suffix(".onnx"), threads=2).predict(images, keep_views=True)
    together, kind = read_together(alone)

    def right(readings: list[Prediction]) -> float:
        return sum(r.text == text for r, text in zip(readings, texts, strict=True)) / len(texts)

    assert right(together) >= right(alone) + 0.02
    assert kind.lengths[5] > 0.9
    assert set("".join(texts)) <= set(kind.characters)


# --------------------------------------------------------------------------------------------------------------------
# On the command line


@pytest.fixture
def folder(captchas: list[tuple[bytes, str]], tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, (png, _) in enumerate(captchas[:6]):
        (folder / f"{i}.png").write_bytes(png)
    return folder


def test_sure_readings_become_labels_to_train_on(call: Callable, exported: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    labels = tmp_path / "new" / "sure.parquet"
    flags = ["--checkpoint", exported, "--threads", 1, "--same_source", "--labels", labels]
    code, out, err = call(predict, folder, *flags, "--sure", 0)
    assert code == 1 and "broken.png" in err and "Of one source: lengths" in err and str(labels) in err
    lines = [line.split("\t") for line in out.splitlines()]
    assert [Path(line[0]).name for line in lines] == [f"{i}.png" for i in range(6)]
    read = [(Path(file), text) for file, text, _ in lines if text]
    table = pq.read_table(labels)
    assert read and table["text"].to_pylist() == [text for _, text in read]
    assert [row["bytes"] for row in table["image"].to_pylist()] == [file.read_bytes() for file, _ in read]
    with pytest.raises(UserError, match="no picture with a label that a person gave"):
        load_labeled(str(labels))  # to measure a reader on its own readings would find it without a fault
    assert pq.read_table(labels)["confidence"].to_pylist() == pytest.approx(
        [float(line[2]) for line in lines if line[1]], abs=1e-3
    )
    # Some are surer than others: a threshold between leaves those below it out.
    confidences = sorted(float(line[2]) for line in lines if line[1])
    middle = (confidences[0] + confidences[-1]) / 2
    call(predict, folder, *flags, "--sure", middle)
    assert pq.read_table(labels).num_rows == sum(c >= middle for c in confidences) < len(read)


def test_what_could_not_be_read_is_named_where_no_reading_is_sure(
    call: Callable, exported: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    flags = ["--checkpoint", exported, "--threads", 1, "--labels", tmp_path / "labels.parquet", "--sure", 1]
    code, out, err = call(predict, folder, *flags)
    assert code == 1 and "lower --sure" in err and "broken.png" in err and len(out.splitlines()) == 6


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--labels", "LABELS", "--sure", "1"], "lower --sure"),
        (["--labels", "LABELS", "--sure", "1.5"], "0 to 1"),
        (["--labels", "labels.csv"], "ends in .parquet"),
        (["--same_source", "--out", "OUT"], "--same_source"),
        (["--labels", "LABELS", "--out", "OUT"], "--labels"),
    ],
)
def test_mistakes_are_one_sentence(
    flags: list[str], said: str, call: Callable, exported: Path, folder: Path, tmp_path: Path
) -> None:
    places = {"LABELS": tmp_path / "labels.parquet", "OUT": tmp_path / "out"}
    code, _, err = call(predict, folder, "--checkpoint", exported, "--threads", 1, *[places.get(f, f) for f in flags])
    assert code == 1 and said in err and "Traceback" not in err
    assert not any(place.exists() for place in places.values())


def test_the_report_says_that_pictures_were_read_together(call: Callable, exported: Path, shards: Path) -> None:
    flags = ["--data", shards, "--checkpoint", exported, "--threads", 1, "--limit", 20]
    code, alone, err = call(accuracy_calculator, *flags)
    assert code == 0 and "of one source" not in alone, err
    code, together, err = call(accuracy_calculator, *flags, "--same_source")
    assert code == 0 and "of one source" in together and "lengths" in together, err
