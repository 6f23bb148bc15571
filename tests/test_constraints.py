"""Known characters, lengths and case: what may be asked, and decoding against every text of a tiny alphabet."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import accuracy_calculator
import predict
from captcha_reader.ctc import PrefixSearch
from captcha_reader.errors import UserError
from captcha_reader.reading.collection import estimate_scheme
from captcha_reader.reading.constraints import Constraints, compact
from captcha_reader.text import Alphabet, Codec, CTCCodec, SlotCodec
from predict import CaptchaPredictor

ABC = Alphabet("abAB")


def random_log_probs(steps: int, seed: int, classes: int = 5, sharpness: float = 1.5) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(steps, classes)) * sharpness
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def every_text(log_probs: np.ndarray, codec: Codec, alphabet: Alphabet) -> dict[str, float]:
    """Text -> probability, by every path (CTC) or every text (slots) there is."""
    texts: dict[str, float] = defaultdict(float)
    for ids in itertools.product(range(alphabet.num_classes), repeat=len(log_probs)):
        if codec.along_width:
            written = [symbol for symbol, _ in itertools.groupby(ids) if symbol]
            p = math.exp(sum(log_probs[t, i] for t, i in enumerate(ids)))
        else:
            end = ids.index(0) if 0 in ids else len(ids)
            if any(ids[end:]):
                continue  # what stands after the end means nothing: count the text once
            written = list(ids[:end])
            p = math.exp(sum(log_probs[t, i] for t, i in enumerate(ids[: end + 1])))
        texts["".join(alphabet.characters[i - 1] for i in written)] += p
    return texts


def allowed(texts: dict[str, float], characters: str, lengths: range) -> dict[str, float]:
    """Those that are allowed, with their probabilities given that one of them is right."""
    kept = {t: p for t, p in texts.items() if set(t) <= set(characters) and len(t) in lengths}
    return {text: p / sum(kept.values()) for text, p in kept.items()}


@pytest.mark.parametrize("codec", [CTCCodec(ABC), SlotCodec(ABC)], ids=["ctc", "slots"])
@pytest.mark.parametrize(
    ("characters", "length", "lengths"),
    [
        ("aB", None, range(9)),
        (None, "2", range(2, 3)),
        (None, "2-3", range(2, 4)),
        ("abA", "1-2", range(1, 3)),
        ("b", "2", range(2, 3)),
        ("aAB", "4", range(4, 5)),
        ("bA", "3-9", range(3, 10)),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_the_best_allowed_text_is_found_with_its_probability(
    codec: Codec, characters: str | None, length: str | None, lengths: range, seed: int
) -> None:
    log_probs = random_log_probs(5, seed)
    limits = Constraints(characters, length).limits(ABC)
    assert limits is not None
    limited = codec.limited(limits)
    rows = limited.restrict(log_probs)
    assert np.exp(rows).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    truth = allowed(every_text(log_probs, codec, ABC), characters or "abAB", lengths)
    ranked = sorted(truth.items(), key=lambda item: -item[1])
    (reading,) = limited.decode(rows[None])
    assert reading.text == ranked[0][0]
    assert reading.confidence == pytest.approx(ranked[0][1], rel=1e-4)
    assert len(reading.char_confidences) == len(reading.spans) == len(reading.text)
    found = limited.alternatives(rows, 4)
    assert [text for text, _ in found] == [text for text, _ in ranked[:4]]
    assert [p for _, p in found] == pytest.approx([p for _, p in ranked[:4]], rel=1e-4)
    texts = [text for text, _ in ranked[:6]] + ["a" * 6]  # more than there is room for
    texts = [text for text in texts if set(text) <= set(limits.alphabet.characters)]
    expected = [truth.get(text, 0.0) for text in texts]
    assert limited.probabilities([rows], texts)[0] == pytest.approx(expected, rel=1e-4, abs=1e-9)
    for text, p in zip(texts, expected, strict=True):
        assert math.exp(limited.log_likelihood(rows[None], [text])[0]) == pytest.approx(p, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("codec", [CTCCodec(ABC), SlotCodec(ABC)], ids=["ctc", "slots"])
@pytest.mark.parametrize("seed", range(3))
def test_two_cases_are_one_class_whose_probabilities_add_up(codec: Codec, seed: int) -> None:
    log_probs = random_log_probs(4, seed)
    folded = np.stack([log_probs[:, 0], *(np.logaddexp(log_probs[:, i], log_probs[:, i + 2]) for i in (1, 2))], axis=1)
    lower = Alphabet("ab")
    truth = allowed(every_text(folded, codec, lower), "ab", range(2, 4))
    best = max(truth, key=truth.__getitem__)
    for changes, expected in (
        ({}, best),
        ({"upper_case": True}, best.upper()),
        ({"characters": "aB"}, best.replace("b", "B")),  # each known in one case: these decide
        ({"characters": "abB"}, best),
        ({"characters": "abB", "upper_case": True}, best.replace("b", "B")),
    ):
        limits = Constraints(length="2-3", ignore_case=True, **changes).limits(ABC)
        assert limits is not None
        limited = codec.limited(limits)
        (reading,) = limited.decode(limited.restrict(log_probs)[None])
        assert reading.text == expected
        assert reading.confidence == pytest.approx(truth[best], rel=1e-4)


def test_the_search_gives_all_texts_in_order() -> None:
    log_probs = random_log_probs(5, seed=9, classes=3)
    alphabet = Alphabet("ab")
    every = every_text(log_probs, CTCCodec(alphabet), alphabet)
    kept = {text: p for text, p in every.items() if 1 <= len(text) <= 3}
    search = PrefixSearch(np.exp(log_probs), 1, 3)
    assert search.mass == pytest.approx(sum(kept.values()))
    found = search.best(100)
    assert [p for _, p in found] == pytest.approx(sorted(kept.values(), reverse=True))
    assert {alphabet.decode(ids): p for ids, p in found} == pytest.approx(kept)


def test_a_search_that_is_cut_short_still_gives_allowed_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captcha_reader.ctc.MAX_EXPANSIONS", 3)
    log_probs = random_log_probs(30, seed=1, classes=12, sharpness=0.3)
    found = PrefixSearch(np.exp(log_probs), 6, 7).best(5)
    assert found and all(6 <= len(ids) <= 7 for ids, _ in found)
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)


def test_what_is_next_to_impossible_is_read_all_the_same() -> None:
    """The model is sure of twelve letters, and there are two: what remains is allowed and a number."""
    rows = np.full((60, 5), -80.0)
    rows[:, 0] = 0
    for i in range(12):
        rows[5 * i] = -80
        rows[5 * i, 1 + i % 4] = 0
    for codec in (CTCCodec(ABC), SlotCodec(ABC)):
        limits = Constraints("ab", "2").limits(ABC)
        assert limits is not None
        limited = codec.limited(limits)
        (reading,) = limited.decode(limited.restrict(rows)[None])
        assert len(reading.text) == 2 and set(reading.text) <= set("ab")
        assert 0 <= reading.confidence <= 1


# --------------------------------------------------------------------------------------------------------------------
# What may be asked


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"characters": " "}, "empty"),
        ({"characters": "z-a"}, "backwards"),
        ({"characters": "a b"}, "cannot be printed"),
        ({"characters": 5}, "characters cannot be 5"),
        ({"characters": "é"}, "cannot write 'é'"),
        ({"characters": "a", "ignore_case": "maybe"}, "ignore_case cannot be 'maybe'"),
        ({"length": 0}, "length 0"),
        ({"length": "0-4"}, "out of range"),
        ({"length": "6-4"}, "backwards"),
        ({"length": "six"}, "a number, 6, or a range, 4-6"),
        ({"length": "-3"}, "a number, 6, or a range, 4-6"),
        ({"length": 2.5}, "length cannot be 2.5"),
        ({"length": True}, "length cannot be True"),
        ({"length": "9" * 40}, "length cannot be"),
        ({"upper_case": True}, "goes with ignore_case"),
        ({"charset": "abc"}, "no constraint 'charset'"),
    ],
)
def test_bad_constraints_are_one_sentence(values: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        Constraints.parse(values).limits(ABC)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_forms_and_numbers_are_understood() -> None:
    form = {"characters": "0-9A-F", "length": " 4 - 6 ", "ignore_case": "true", "upper_case": ""}
    parsed = Constraints.parse(form)
    assert (parsed.allowed, parsed.lengths, parsed.ignore_case) == ("0123456789ABCDEF", (4, 6), True)
    assert Constraints.parse({"length": 6}).lengths == (6, 6)
    for nothing in (None, {}, {"characters": "", "length": None, "ignore_case": False}):
        assert not Constraints.parse(nothing) and Constraints.parse(nothing).limits(ABC) is None
    assert Constraints("aab").allowed == "ab"  # a set
    assert Constraints("e\u0301").allowed == "é"  # composed, as labels are
    assert str(Constraints("a-c", 5)) == "characters a-c, length 5" and str(Constraints()) == "nothing"


@pytest.mark.parametrize("characters", ["0123456789abcdef", "ac-", "-", "xyzAB", "0189", "аб"])
def test_compact_sets_are_read_as_they_were(characters: str) -> None:
    assert set(Alphabet.parse(compact(characters)).characters) == set(characters)


def test_what_labels_had_in_common_is_offered() -> None:
    offered = Constraints.from_labels({"provenance": {"label_characters": "0123456789", "label_length": [4, 6]}})
    assert offered is not None and str(offered) == "characters 0-9, length 4-6"
    offered = Constraints.from_labels({"provenance": {"label_characters": "", "label_length": [5, 5]}})
    assert offered is not None and (offered.allowed, offered.lengths) == (None, (5, 5))
    for useless in ({}, {"provenance": {}}, {"provenance": {"label_characters": "a b"}}):
        assert Constraints.from_labels(useless) is None


def test_an_estimate_starts_from_what_is_known() -> None:
    pictures = [{"abcdef": 0.5, "abcde": 0.4}] * 2
    assert estimate_scheme(pictures).weigh(pictures[0])[0] == "abcdef"
    scheme = estimate_scheme(pictures, Constraints(length="5"))
    assert scheme.weigh(pictures[0])[0] == "abcde"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"length": 4}, r"2 of 3 labels do not fit .* \(length 4\), the first is 'Ab3': correct the length, or"),
        ({"length": "3-4"}, r"1 of 3 labels .*, the first is 'abcd0': correct the length, or"),
        ({"characters": "a-d0-9"}, r"1 of 3 labels .*, the first is 'Ab3': correct the characters, or"),
        ({"characters": "A-C0-9", "ignore_case": True}, r"2 of 3 labels .*, the first is 'abcd'"),
        ({"characters": "a-c", "length": 3}, r"3 of 3 labels .*: correct the characters and the length, or the labels"),
    ],
)
def test_labels_that_show_that_what_is_known_is_wrong_are_counted_and_named(values: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Constraints(**values).check_labels(["Ab3", "abcd", "abcd0"])


def test_labels_that_fit_what_is_known_are_fine() -> None:
    for known in (Constraints(), Constraints("A-D0-9", "3-5", ignore_case=True), Constraints("Aa-d03", "3-5")):
        known.check_labels(["Ab3", "abcd", "abcd0"])
    Constraints("0-9", 4).check_labels([])


# --------------------------------------------------------------------------------------------------------------------
# The predictor and the command lines


@pytest.fixture(scope="module")
def predictor(reader: Path) -> CaptchaPredictor:
    return CaptchaPredictor(reader, threads=1)


@pytest.fixture(scope="module")
def encoded(captchas: list[tuple[bytes, str]]) -> list[bytes]:
    return [png for png, _ in captchas]


def test_readings_keep_to_the_constraints(predictor: CaptchaPredictor, encoded: list[bytes]) -> None:
    free = predictor.predict(encoded)
    known = Constraints("a-c", "2-3")
    for prediction in predictor.predict(encoded, constraints=known):
        assert set(prediction.text) <= set("abc") and len(prediction.text) in (2, 3)
        assert 0 < prediction.confidence <= 1
        assert prediction.alternatives[0] == (prediction.text, pytest.approx(prediction.confidence, rel=1e-4))
        assert all(len(text) in (2, 3) for text, _ in prediction.alternatives)
    assert predictor.predict(encoded, constraints=Constraints()) == free
    # Some of one batch may be constrained, and others not.
    views = [predictor.view(data) for data in encoded[:2]]
    mixed = predictor.read(views, constraints=[None, known])
    assert mixed[0].text == free[0].text and len(mixed[1].text) in (2, 3)


def test_constraints_that_the_model_cannot_meet(predictor: CaptchaPredictor, encoded: list[bytes]) -> None:
    with pytest.raises(UserError, match="cannot write '9'"):
        predictor.predict(encoded, constraints=Constraints("a9"))
    with pytest.raises(UserError, match="cannot write 40 characters"):
        predictor.predict(encoded, constraints=Constraints(length="40"))


def test_flags_of_the_scripts(call: Callable, reader: Path, shards: Path, encoded: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded[0])
    flags = ["--checkpoint", reader, "--threads", 1, "--characters", "a-c", "--length", 3]
    code, out, err = call(predict, tmp_path / "a.png", *flags)
    assert code == 0, err
    text = out.split("\t")[1]
    assert len(text) == 3 and set(text) <= set("abc")
    code, out, err = call(predict, tmp_path / "a.png", *flags, "--ignore_case", "--upper_case")
    assert code == 0 and out.split("\t")[1].isupper() is False  # given in one case, which decides
    code, out, err = call(predict, tmp_path / "a.png", "--checkpoint", reader, "--ignore_case", "--upper_case")
    assert code == 0 and out.split("\t")[1].isupper(), err
    data = ["--data", shards, "--limit", 10, "--checkpoint", reader, "--threads", 1, "--characters", "a-d"]
    code, out, err = call(accuracy_calculator, *data, "--length", "2-3")
    assert code == 0 and "characters a-d, length 2-3" in out, err
    code, out, err = call(accuracy_calculator, *data, "--length", 4)
    assert code == 1 and "10 of 10 labels do not fit" in err and "correct the length" in err and not out
    for wrong, said in ((["--length", 0], "length"), (["--characters", "x"], "cannot write 'x'")):
        code, _, err = call(predict, tmp_path / "a.png", "--checkpoint", reader, "--threads", 1, *wrong)
        assert code == 1 and said in err and "Traceback" not in err


def test_shards_are_read_under_constraints(call: Callable, reader: Path, shards: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    flags = ["--checkpoint", reader, "--threads", 1, "--out", tmp_path / "out", "--length", 2]
    code, _, err = call(predict, shards, *flags)
    assert code == 0, err
    (shard,) = (tmp_path / "out").glob("*.parquet")
    assert {len(text) for text in pq.read_table(shard)["reading"].to_pylist()} == {2}
    code, _, err = call(predict, shards, *flags[:-1], 3)
    assert code == 1 and "constraints" in err  # other readings than those that stand there
