"""The codec against hand-made paths, torch's loss, and the sum over every path there is."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from captcha_reader.ctc import log_likelihood
from captcha_reader.errors import UserError
from captcha_reader.text import Alphabet, CTCCodec, SlotCodec, build_codec, infeasible_labels

ABC = Alphabet("abc")


def random_log_probs(*shape: int, seed: int = 0, sharpness: float = 1.0) -> np.ndarray:
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (logits * sharpness).log_softmax(-1).numpy()


def path(symbols: str, alphabet: Alphabet = ABC, peak: float = 0.9) -> np.ndarray:
    """Log-probabilities (1, T, C) whose likeliest path is written with `-` for the blank."""
    rest = (1 - peak) / len(alphabet)
    probabilities = np.full((1, len(symbols), alphabet.num_classes), rest)
    for t, symbol in enumerate(symbols):
        probabilities[0, t, 0 if symbol == "-" else alphabet.characters.index(symbol) + 1] = peak
    return np.log(probabilities)


def every_ctc_text(log_probs: np.ndarray, alphabet: Alphabet) -> dict[str, float]:
    """Text -> probability, by adding up all C^T paths."""
    texts: dict[str, float] = defaultdict(float)
    for ids in itertools.product(range(alphabet.num_classes), repeat=len(log_probs)):
        merged = [symbol for symbol, _ in itertools.groupby(ids)]
        text = "".join(alphabet.characters[i - 1] for i in merged if i)
        texts[text] += math.exp(sum(log_probs[t, i] for t, i in enumerate(ids)))
    return texts


def every_slot_text(log_probs: np.ndarray, alphabet: Alphabet) -> dict[str, float]:
    """Text -> probability: the characters, then the padding that ends them, if there is room for it."""
    texts = {}
    for length in range(len(log_probs) + 1):
        for ids in itertools.product(range(1, alphabet.num_classes), repeat=length):
            steps = ids if length == len(log_probs) else (*ids, 0)
            text = "".join(alphabet.characters[i - 1] for i in ids)
            texts[text] = math.exp(sum(log_probs[t, i] for t, i in enumerate(steps)))
    return texts


# --------------------------------------------------------------------------------------------------------------------
# Alphabet


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("0-9a-f", "0123456789abcdef"),
        ("abc", "abc"),
        ("cab", "cab"),  # the order is the user's
        ("a-a", "a"),
        ("-a", "-a"),
        ("a-", "a-"),
        ("-", "-"),
        ("0-2-", "012-"),
        ("а-в", "абв"),
        ("+a-c*", "+abc*"),
    ],
)
def test_an_alphabet_is_written_with_ranges(text: str, characters: str) -> None:
    assert Alphabet.parse(text).characters == characters


@pytest.mark.parametrize(
    ("text", "named"),
    [("", "empty"), ("abca", "'a'"), ("a-cb", "'b'"), ("a b", "' '"), ("a\n", r"'\n'"), ("a\x07", r"'\x07'")],
)
def test_a_bad_alphabet_is_refused_by_what_is_wrong_with_it(text: str, named: str) -> None:
    with pytest.raises(UserError) as error:
        Alphabet.parse(text)
    assert named in str(error.value)


@pytest.mark.parametrize("text", ["z-a", "9-0abcdefgh", "z-a0-9"])
def test_a_range_that_runs_backwards_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="backwards"):
        Alphabet.parse(text)


@pytest.mark.parametrize("text", ["\u0100-\U00030000", "a-z0-9一-龥豈-\U0001f000", "一-龥" * 5])
def test_ranges_that_stand_for_more_characters_than_any_script_has_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="more than 100,000 characters: name fewer"):
        Alphabet.parse(text)
    assert len(Alphabet.parse("一-龥")) == 20_902


def test_an_alphabet_from_texts_is_sorted_and_whole() -> None:
    assert Alphabet.from_texts(["zb", "aB", "b"]).characters == "Babz"


def test_alphabets_count_compare_and_hash() -> None:
    assert (len(ABC), ABC.num_classes) == (3, 4)
    assert Alphabet("abc") == ABC != Alphabet("acb")
    assert len({Alphabet("abc"), ABC, Alphabet("acb")}) == 2
    assert "a" in ABC and "d" not in ABC
    assert "abc" in repr(ABC)


def test_encode_and_decode_are_each_other_s_inverse() -> None:
    alphabet = Alphabet.parse("0-9A-Za-z")
    assert ABC.encode("cab") == [3, 1, 2]  # class 0 is the blank
    for i, character in enumerate(alphabet.characters):
        assert alphabet.encode(character) == [i + 1]
        assert alphabet.decode([i + 1]) == character
    assert alphabet.decode(alphabet.encode("HhJ4")) == "HhJ4"
    assert ABC.decode([0, 1, 0, 1, 2, 0]) == "aab"


@pytest.mark.parametrize("head", ["ctc", "mixer", "slots", "positions", "combination"])
def test_a_character_outside_is_named_with_its_sample(head: str) -> None:
    with pytest.raises(UserError) as error:
        build_codec(head, ABC).encode("abX", "train sample 7 of data/mine")
    assert all(part in str(error.value) for part in ("'X'", "'abX'", "train sample 7 of data/mine", "'abc'"))


# --------------------------------------------------------------------------------------------------------------------
# CTC


@pytest.mark.parametrize(
    ("symbols", "text", "spans"),
    [
        ("-a-b-", "ab", [(1, 2), (3, 4)]),
        ("aabb", "ab", [(0, 2), (2, 4)]),
        ("a-a", "aa", [(0, 1), (2, 3)]),
        ("aa-aab", "aab", [(0, 2), (3, 5), (5, 6)]),
        ("---", "", []),
        ("ccc", "c", [(0, 3)]),
        ("abcba", "abcba", [(i, i + 1) for i in range(5)]),
        ("c", "c", [(0, 1)]),
        ("-", "", []),
    ],
)
def test_greedy_decoding_merges_repeats_then_drops_blanks(symbols: str, text: str, spans: list) -> None:
    (reading,) = CTCCodec(ABC).decode(path(symbols))
    assert reading.text == text
    assert list(reading.spans) == spans
    assert len(reading.char_confidences) == len(text)


def test_no_pictures_give_no_readings() -> None:
    for codec in (CTCCodec(ABC), SlotCodec(ABC)):
        assert codec.decode(np.zeros((0, 5, 4), dtype=np.float32)) == []


def test_readings_of_a_batch_are_those_of_its_pictures_alone() -> None:
    log_probs = random_log_probs(9, 6, 4, sharpness=2)
    for codec in (CTCCodec(ABC), SlotCodec(ABC)):
        together = codec.decode(log_probs)
        assert len({r.text for r in together}) > 4
        for row, reading in zip(log_probs, together, strict=True):
            (alone,) = codec.decode(row[None])
            assert (alone.text, alone.spans) == (reading.text, reading.spans)
            assert alone.confidence == pytest.approx(reading.confidence, rel=1e-6)


def test_a_character_s_confidence_is_the_peak_of_its_run() -> None:
    log_probs = np.log(
        np.array([[[0.1, 0.7, 0.1, 0.1], [0.05, 0.8, 0.1, 0.05], [0.6, 0.2, 0.1, 0.1], [0.3, 0.1, 0.2, 0.4]]])
    )
    (reading,) = CTCCodec(ABC).decode(log_probs)
    assert reading.text == "ac"
    assert reading.char_confidences == pytest.approx((0.8, 0.4))


@pytest.mark.parametrize("seed", range(4))
def test_ctc_likelihood_is_the_sum_over_all_paths(seed: int) -> None:
    log_probs = random_log_probs(5, 4, seed=seed)
    texts = every_ctc_text(log_probs, ABC)
    assert sum(texts.values()) == pytest.approx(1)
    ids = [ABC.encode(text) for text in texts]  # of many lengths at once, the empty text among them
    got = log_likelihood(np.repeat(log_probs[None], len(ids), axis=0), ids)
    assert np.exp(got) == pytest.approx(np.array(list(texts.values())), rel=1e-9)


def test_ctc_likelihood_is_torch_s_loss() -> None:
    rng = np.random.default_rng(0)
    log_probs = random_log_probs(20, 12, 8, sharpness=2)
    ids = [rng.integers(1, 8, size=rng.integers(1, 7)).tolist() for _ in range(20)]
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs).transpose(0, 1),
        torch.tensor([i for sequence in ids for i in sequence]),
        torch.full((20,), 12),
        torch.tensor([len(sequence) for sequence in ids]),
        reduction="none",
    )
    assert log_likelihood(log_probs, ids) == pytest.approx(-loss.numpy(), rel=1e-9)


def test_ctc_likelihood_of_what_cannot_be_written_is_nothing() -> None:
    log_probs = random_log_probs(2, 3, 4)
    impossible, possible = log_likelihood(log_probs, [[1, 1, 1], [1, 2, 3]])
    assert np.exp(impossible) == 0
    assert np.exp(possible) == pytest.approx(math.exp(log_probs[1, [0, 1, 2], [1, 2, 3]].sum()))


@pytest.mark.parametrize("seed", range(5))
def test_ctc_confidence_is_the_probability_of_the_text(seed: int) -> None:
    log_probs = random_log_probs(5, 4, seed=seed, sharpness=1.5)
    (reading,) = CTCCodec(ABC).decode(log_probs[None])
    assert reading.confidence == pytest.approx(every_ctc_text(log_probs, ABC)[reading.text], rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_ctc_probabilities_are_those_of_all_paths(seed: int) -> None:
    log_probs = random_log_probs(5, 4, seed=seed, sharpness=1.5)
    texts = ["", "a", "ab", "aa", "cab", "abcab", "aaa", "aaaa"]
    every = every_ctc_text(log_probs, ABC)
    assert "aaaa" not in every  # five steps have no room for the blanks between
    shorter = random_log_probs(3, 4, seed=seed + 10, sharpness=1.5)
    got = CTCCodec(ABC).probabilities([log_probs, shorter, log_probs], texts)
    few = every_ctc_text(shorter, ABC)
    wanted = [[written.get(text, 0) for text in texts] for written in (every, few, every)]
    assert got == pytest.approx(np.array(wanted), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ctc_alternatives_are_the_likeliest_texts(seed: int) -> None:
    log_probs = random_log_probs(5, 4, seed=seed, sharpness=1.5)
    best = sorted(every_ctc_text(log_probs, ABC).items(), key=lambda item: -item[1])[:3]
    got = CTCCodec(ABC).alternatives(log_probs, count=3)
    assert [text for text, _ in got] == [text for text, _ in best]
    assert [p for _, p in got] == pytest.approx([p for _, p in best], rel=1e-6)


def test_the_default_beam_finds_the_likeliest_texts_of_a_sure_reading() -> None:
    log_probs = path("-a-bb-", peak=0.8)[0]
    best = sorted(every_ctc_text(log_probs, ABC).items(), key=lambda item: -item[1])[:2]
    got = CTCCodec(ABC).alternatives(log_probs, count=2)
    assert got[0][0] == best[0][0] == "ab"
    assert [p for _, p in got] == pytest.approx([p for _, p in best], rel=1e-6)


def test_the_likeliest_text_need_not_be_the_likeliest_path() -> None:
    """Graves' example: the path `--` beats each path that writes `a`, but not all three together."""
    log_probs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    codec = CTCCodec(Alphabet("a"))
    assert codec.decode(log_probs[None])[0].text == ""
    assert codec.alternatives(log_probs) == [("a", pytest.approx(0.64)), ("", pytest.approx(0.36))]


# --------------------------------------------------------------------------------------------------------------------
# Slots


@pytest.mark.parametrize(
    ("symbols", "text"),
    [("abc", "abc"), ("ab-", "ab"), ("a-b", "a"), ("-ab", ""), ("aab", "aab"), ("---", "")],
)
def test_the_first_padding_ends_the_text(symbols: str, text: str) -> None:
    (reading,) = SlotCodec(ABC).decode(path(symbols, peak=0.9))
    assert reading.text == text
    assert reading.char_confidences == pytest.approx([0.9] * len(text))
    assert list(reading.spans) == [(i, i + 1) for i in range(len(text))]
    assert reading.confidence == pytest.approx(0.9 ** min(len(text) + 1, 3))


@pytest.mark.parametrize("seed", range(5))
def test_slot_confidence_and_alternatives_by_every_text(seed: int) -> None:
    log_probs = random_log_probs(3, 4, seed=seed, sharpness=1.5)
    texts = every_slot_text(log_probs, ABC)
    assert sum(texts.values()) == pytest.approx(1)
    (reading,) = SlotCodec(ABC).decode(log_probs[None])
    assert reading.confidence == pytest.approx(texts[reading.text], rel=1e-5)
    best = sorted(texts.items(), key=lambda item: -item[1])[:4]
    got = SlotCodec(ABC).alternatives(log_probs, count=4)
    assert [text for text, _ in got] == [text for text, _ in best]
    assert [p for _, p in got] == pytest.approx([p for _, p in best], rel=1e-9)


# --------------------------------------------------------------------------------------------------------------------
# Room


@pytest.mark.parametrize(
    ("text", "ctc", "slots"), [("", 0, 0), ("a", 1, 1), ("ab", 2, 2), ("aa", 3, 2), ("aaa", 5, 3), ("abba", 5, 4)]
)
def test_steps_that_a_text_takes(text: str, ctc: int, slots: int) -> None:
    assert CTCCodec.steps_needed(text) == ctc
    assert SlotCodec.steps_needed(text) == slots


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_infeasible_labels_are_those_of_infinite_loss(steps: int) -> None:
    texts = ["".join(t) for n in (1, 2, 3) for t in itertools.product("abc", repeat=n)]
    codec = CTCCodec(ABC)
    ids = [codec.encode(text) for text in texts]
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(random_log_probs(steps, len(texts), 4)),
        torch.tensor([i for sequence in ids for i in sequence]),
        torch.full((len(ids),), steps),
        torch.tensor([len(sequence) for sequence in ids]),
        reduction="none",
    )
    assert infeasible_labels(texts, codec, steps) == torch.isinf(loss).nonzero().flatten().tolist()
    assert infeasible_labels(texts, SlotCodec(ABC), steps) == [i for i, t in enumerate(texts) if len(t) > steps]


# --------------------------------------------------------------------------------------------------------------------
# Where the characters of a known text are


def best_path(log_probs: np.ndarray, text: str, alphabet: Alphabet) -> tuple[int, ...]:
    """The likeliest of all C^T paths that write the text."""
    paths = itertools.product(range(alphabet.num_classes), repeat=len(log_probs))
    writing = [p for p in paths if [k for k, _ in itertools.groupby(p) if k] == alphabet.encode(text)]
    return max(writing, key=lambda ids: sum(log_probs[t, i] for t, i in enumerate(ids)))


@pytest.mark.parametrize("text", ["a", "ab", "aa", "cab", "bba"])
@pytest.mark.parametrize("seed", range(4))
def test_alignment_is_the_best_of_all_paths(text: str, seed: int) -> None:
    log_probs = random_log_probs(6, 4, seed=seed, sharpness=2)
    best = best_path(log_probs, text, ABC)
    runs, start = [], 0
    for symbol, steps in itertools.groupby(best):
        stop = start + len(list(steps))
        if symbol:
            runs.append((start, stop))
        start = stop
    assert CTCCodec(ABC).align(log_probs, text) == runs


def test_alignment_follows_the_text_and_not_the_reading() -> None:
    log_probs = path("--a--bb-c-")[0]
    assert CTCCodec(ABC).align(log_probs, "abc") == [(2, 3), (5, 7), (8, 9)]
    assert CTCCodec(ABC).align(log_probs, "acc")[::2] == [(2, 3), (8, 9)]


def test_a_text_that_cannot_be_aligned_is_refused() -> None:
    with pytest.raises(UserError, match="2 steps cannot write 'aa'"):
        CTCCodec(ABC).align(random_log_probs(2, 4), "aa")
    with pytest.raises(UserError, match="'d'"):
        CTCCodec(ABC).align(random_log_probs(9, 4), "d")
    slots = build_codec("slots", ABC)
    with pytest.raises(UserError, match="2 positions cannot write 'abc'"):
        slots.align(random_log_probs(2, 4), "abc")
    for codec in (slots, CTCCodec(ABC)):
        with pytest.raises(UserError, match="cannot write 'abc'"):
            codec.read_as(random_log_probs(2, 4), "abc")
