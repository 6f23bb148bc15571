"""From measurements to the report: the verdict in plain words, what gives a captcha away, what to do.

`report.json` is what `build_report` returns; docs/strength.schema.json describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from captcha_reader.dataset.samples import CONTRADICTION, COPY
from captcha_reader.reading.constraints import compact
from captcha_reader.reading.metrics import detailed_metrics, wilson_interval
from captcha_reader.strength.figures import (
    BROKEN_AT,
    character_table,
    guesses_needed,
    near_duplicates,
    repeated_texts,
    secret_bits,
)
from captcha_reader.strength.page import MIN_SEEN, duration, percent

FORMAT = "captcha-strength-2"
WEAK_AT = 0.3  # accuracy from which on a bot needs no patience
FEW_BITS = 16.0  # a scheme with less is guessed in some ten thousand attempts


def build_report(
    data: dict[str, Any],
    settings: dict[str, Any],
    attack: Sequence[dict[str, Any]],
    last: dict[str, Any] | None,
    sample: dict[str, Any],
    changes: Sequence[dict[str, Any]] = (),
    partial: str = "",
    **about: Any,
) -> dict[str, Any]:
    """All figures and sentences of a report, ready for JSON.

    Args:
        data: `name`, `pictures`, `labeled`, `left_out` (`total`, `reasons`, `listed`).
        settings: `seed`, `ignore_case`, `seconds_per_label`, `characters`, `length`, as they were given.
        attack: one row a number of labels: `accuracy_figures` and `labels`, `training_seconds`, `typing_seconds`.
        last: `truths`, `readings`, `confidences`, `guesses` of the last model on the pictures kept aside; None where
            nothing is labeled.
        sample: `texts` (labels, or readings where there are none) and `pictures` of the whole sample.
        changes: rows of `plot_changes`, with `n`.
        partial: why the report is not whole; empty where it is.
        about: `created`, `machine`, `reader`, `reading_ms` and, without labels, `mean_confidence`.
    """
    details = detailed_metrics(last["truths"], last["readings"], last["confidences"]) if last else None
    report: dict[str, Any] = {"format": FORMAT, "partial": partial, "data": data, "settings": settings}
    report |= {"attack": list(attack), **about}
    report["guesses"] = guesses_needed(last["truths"], last["guesses"]) if last else None
    report["characters"] = character_table(last["truths"], last["readings"], details) if last and details else []
    report["confusions"] = details["confusions"][:10] if details else []
    report["by_length"] = details["by_length"] if details else {}
    report["secret"] = secret_bits(sample["texts"], settings.get("characters"))
    report["repeats"] = repeated_texts(sample["texts"])
    pairs = near_duplicates(sample["pictures"])
    report["near_duplicates"] = len(pairs)
    report["changes"], report["changes_n"] = list(changes), changes[0]["n"] if changes else 0
    report["change_advice"] = _change_advice(changes)
    report["weaknesses"] = _weaknesses(report)
    report["verdict"] = _verdict(report)
    return report


def _verdict(report: dict[str, Any]) -> dict[str, str]:
    attack = report["attack"]
    if not attack:
        confidence = report["mean_confidence"]
        return {
            "level": "fair" if confidence < WEAK_AT else "bad",
            "text": f"Without labels nothing is certain: a free reader expects to read {percent(confidence)} of it.",
            "advice": "Label a hundred pictures and run this again: then the figures are measured, not expected.",
        }
    first, last = attack[0], attack[-1]
    says = []
    if first["labels"] == 0:
        who = (
            "A free reader, trained on this generator," if report["changes"] else "A free reader that has never seen it"
        )
        says.append(f"{who} reads {_with_interval(first)}.")
    if last["labels"] > 0:
        taught = [step for step in attack if step["labels"] > 0]
        best = max(step["accuracy"] for step in taught)
        # The first step that is within chance of the best one says what the attack costs.
        enough = next(step for step in taught if step["interval"][1] > best - 1e-9)
        cost = f"{duration(enough['typing_seconds'])} of a person's typing and {duration(enough['training_seconds'])}"
        gain = "" if first["labels"] or enough["accuracy"] > first["interval"][1] else ": no gain beyond chance"
        says.append(f"After {enough['labels']} labels, {cost} of training, {_with_interval(enough)}{gain}.")
    best = max(step["accuracy"] for step in attack)
    low = max(step["interval"][0] for step in attack)
    if low >= WEAK_AT:
        level, advice = "bad", "It keeps no bot out. Replace it, or limit the attempts and do not rely on it."
    elif low > BROKEN_AT:
        level = "fair"
        advice = (
            f"By the published yardstick it is broken: a bot needs about {1 / best:.0f} attempts. Limit the attempts, "
            "and do not rely on it alone."
        )
    else:
        level = "good"
        advice = "This reader does not break it with so few labels. That does not prove strength."
    return {"level": level, "text": " ".join(says), "advice": advice}


def _with_interval(step: dict[str, Any]) -> str:
    low, high = step["interval"]
    return f"{percent(step['accuracy'])} ({percent(low)} to {percent(high)})"


def _weaknesses(report: dict[str, Any]) -> list[str]:
    secret, repeats = report["secret"], report["repeats"]
    says = []
    lengths = list(secret["lengths"])
    length = " or ".join(lengths) if len(lengths) < 3 else f"{lengths[0]} to {lengths[-1]}"
    used = secret["characters"]
    says.append(
        f"It uses {len(used)} characters ({compact(used)[:80]}) and texts of {length} of them: "
        f"{secret['nominal_bits']:.0f} bits if all were equally likely, about {secret['estimated_bits']:.0f} as it is."
    )
    if secret["estimated_bits"] < FEW_BITS:
        says.append("That is little: some ten thousand guesses cover it without reading anything.")
    if repeats["pairs"]:
        repeated = ", ".join(f"{text} ({count} times)" for text, count in list(repeats["repeated"].items())[:5])
        says.append(f"Texts repeat: {repeated}. They may come from a pool of about {repeats['pool']:,}.")
    if report["near_duplicates"]:
        says.append(
            f"{report['near_duplicates']} pairs of pictures are nearly the same: whoever collects them needs no reader."
        )
    copies = sum(n for why, n in report["data"]["left_out"]["reasons"].items() if why in (COPY, CONTRADICTION))
    if copies:
        said = (
            f"{copies} pictures are exact copies of others" if copies > 1 else "One picture is an exact copy of another"
        )
        says.append(f"{said} (left out): whoever collects them needs no reader.")
    if report["guesses"]:
        one, three = report["guesses"]["1"], report["guesses"]["3"]
        further = f", one of the first three for {percent(three)}" if three > one else ""
        further += ": a second attempt on the same picture helps a bot" if three - one >= 0.03 else ""
        says.append(f"The first guess is right for {percent(one)}{further}.")
    known = [row for row in report["characters"] if row["n"] >= MIN_SEEN]
    if known and known[0]["accuracy"] < 0.95:
        worst = [row for row in known if row["accuracy"] < 0.95][:5]
        said = ", ".join(f"{row['character']} ({percent(row['accuracy'])})" for row in worst)
        says.append(f"Characters that hold, of those seen at least {MIN_SEEN} times: {said}.")
    elif known:
        says.append(f"Of the characters seen at least {MIN_SEEN} times each is read in 95 % or more of its places.")
    by_length = {k: v for k, v in report["by_length"].items() if v["n"] >= MIN_SEEN}
    if len(by_length) > 1:
        said = ", ".join(f"{k}: {percent(v['accuracy'])} of {v['n']}" for k, v in by_length.items())
        says.append(f"By length: {said}.")
    return says


def _change_advice(changes: Sequence[dict[str, Any]]) -> list[str]:
    """What costs people more than machines, and what costs machines more than people."""
    if not changes:
        return []
    rows = sorted(map(_effect, changes), key=lambda row: -row.machine)
    says = [
        f"{row.op}: stronger costs this reader {100 * row.machine:.0f} points; what people, the proxy cannot see."
        for row in rows
        if row.people is None and row.certain and row.machine >= 0.1
    ]
    seen = [(row, row.people) for row in rows if row.people is not None]
    for row, people in seen:
        if row.certain and row.machine >= 0.1 and row.machine - people > 0.05:
            says.append(
                f"{row.op}: stronger costs this reader {100 * row.machine:.0f} points, and people "
                f"{max(100 * people, 0):.0f} by the proxy."
            )
    for row, people in sorted(seen, key=lambda pair: -pair[1]):
        if people > 0.05 and row.machine < people:
            says.append(
                f"{row.op}: stronger costs people {100 * people:.0f} points by the proxy, and this reader "
                f"{max(100 * row.machine, 0):.0f}. Make it weaker."
            )
    if not says:
        says.append("No step alone makes a difference beyond chance.")
    return says[:6]


class _Effect(NamedTuple):
    """What an op costs from weak to strong: shares of accuracy and of legibility (None: the proxy is blind for it)."""

    op: str
    machine: float
    people: float | None
    certain: bool


def _effect(change: dict[str, Any]) -> _Effect:
    weak, strong, n = change["levels"][0], change["levels"][-1], change["n"]
    people = None
    if weak["legibility"] is not None:
        people = weak["legibility"] - strong["legibility"]
    # Beyond chance: the 95 % intervals of weak and strong part.
    low = wilson_interval(round(weak["accuracy"] * n), n)[0]
    certain = low > wilson_interval(round(strong["accuracy"] * n), n)[1]
    return _Effect(change["op"].replace("_", " "), weak["accuracy"] - strong["accuracy"], people, certain)
