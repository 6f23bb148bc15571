"""The simulated typist of benchmarks/typist.py: keys are counted as the page takes them, and curves as they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from typist import keystrokes, typed_text
from typist_tables import Session, draw_curves, labels_needed, needed_table, saved


@pytest.mark.parametrize(
    ("offered", "confidences", "wanted", "keys"),
    [
        ("abc", (0.9, 0.9, 0.9), "abc", 1),  # Enter
        ("abc", (0.9, 0.5, 0.9), "axc", 2),  # the doubtful character is selected: x, Enter
        ("abc", (0.95, 0.95, 0.95), "abx", 3),  # from the end: delete, x, Enter
        ("abc", (0.95, 0.95, 0.95), "xbc", 5),  # all of it: select, x, b, c, Enter
        ("abc", (0.95, 0.95, 0.95), "abcd", 2),  # d, Enter
        ("abcd", (0.95,) * 4, "abc", 2),  # delete, Enter
        ("abc", (0.5, 0.9, 0.9), "xyc", 5),  # another one is wrong, too: all of it
        ("", (), "abc", 4),
    ],
)
def test_keystrokes(offered: str, confidences: tuple[float, ...], wanted: str, keys: int) -> None:
    assert keystrokes(offered, confidences, wanted) == keys


def test_one_label_in_fifty_is_typed_wrong_by_one_character() -> None:
    typed = [typed_text(f"{i}", "abcd", "abcde") for i in range(3000)]
    wrong = [text for text in typed if text != "abcd"]
    assert 35 <= len(wrong) <= 85
    assert all(sum(a != b for a, b in zip(text, "abcd", strict=True)) == 1 for text in wrong)
    assert typed == [typed_text(f"{i}", "abcd", "abcde") for i in range(3000)]


def sessions(random: dict[str, str], unsure: dict[str, str], seed: int = 0) -> list[Session]:
    return [Session("a", seed, "random", {"right": random}), Session("a", seed, "unsure", {"right": unsure})]


def test_labels_needed_lie_on_the_lines_between_the_steps() -> None:
    curve = [(0, 0.5), (20, 0.7), (50, 0.9), (100, 0.94)]
    assert labels_needed(curve, 0.4) == 0
    assert labels_needed(curve, 0.8) == pytest.approx(35)
    assert labels_needed(curve, 0.9) == pytest.approx(50)
    assert labels_needed(curve, 0.95) is None


def test_what_is_saved_counts_sets_that_both_orders_bring_there() -> None:
    one = sessions({"0": "1100", "20": "1110", "50": "1111"}, {"0": "1100", "20": "1111"})
    curves = {"a": draw_curves(one, None)}
    assert curves["a"]["random"] == [(0, 0.5), (20, 0.75), (50, 1.0)]
    assert saved(curves, 0.75) == (20, 10, 1)
    assert saved(curves, 1.0) == (50, 20, 1)
    assert saved(curves, 0.5) is None, "it is there without labels"
    table = needed_table([*one, *sessions({"0": "1100"}, {"0": "1100", "20": "1101"}, seed=1)], (0.75, 0.95))
    row, total = table.rows
    assert row[:3] == ["`a`", 2, 4] and row[5:] == [">50", ">20"] and str(total[3]).endswith("in 1 sets")


def test_a_session_that_ended_early_keeps_its_last_accuracy() -> None:
    both = [
        *sessions({"0": "1100", "20": "1111"}, {"0": "1100"}),
        *sessions({"0": "1100", "50": "1110"}, {"0": "1100"}, 1),
    ]
    assert draw_curves(both, None)["random"] == [(0, 0.5), (20, 0.75), (50, 0.875)]
