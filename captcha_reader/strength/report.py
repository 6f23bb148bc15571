"""From measurements to the report: the verdict in plain words, what gives a captcha away, what to do.

`report.json` is what `build_report` returns; docs/strength.schema.json describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captcha_reader.dataset.samples import CONTRADICTION, COPY
from captcha_reader.reading.constraints import compact
from captcha_reader.reading.metrics import detailed_metrics
from captcha_reader.strength.changes import change_advice
from captcha_reader.strength.figures import (
    BROKEN_AT,
    MIN_SEEN,
    character_table,
    guesses_needed,
    mean_accuracy,
    near_duplicates,
    read_worst,
    repeated_texts,
    secret_bits,
)
from captcha_reader.strength.page import duration, percent

FORMAT = "captcha-strength-4"
WEAK_AT = 0.5  # accuracy above which a bot needs no patience
READER = "the free reader of this project"
ADVICE = {
    "bad": "Do not rely on it: limit attempts per address and per account, block after a few failures, and ask for a "
    "second factor or a confirmation by e-mail where it matters. A proof of work makes each attempt cost a bot "
    "something; a stronger text captcha alone does not keep one out for long.",
    "fair": "What protects you is the number of attempts: limit it per address and per account, and slow down or block "
    "after failures. For what matters ask for a second factor or a confirmation by e-mail, let a proof of work make "
    "each attempt cost something, and do not rely on a text captcha alone.",
    "good": "Other readers exist, and people are paid to solve captchas: keep a limit on attempts per address and per "
    "account, slow down or block after failures, and do not rely on a text captcha alone. What matters needs a second "
    "factor or a confirmation by e-mail; a proof of work helps, too.",
}  # what to do instead, by the level: above 50 % read, 1 to 50 %, below 1 %
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
        data: `name`, `pictures`, `labeled`, `generated` (by our generator), `left_out` (`total`, `reasons`, `listed`).
        settings: `seed`, `ignore_case`, `seconds_per_label`, `characters`, `length`, as they were given.
        attack: one row a number of labels: `accuracy_figures` and `labels`, `training_seconds`, `typing_seconds`.
        last: `truths`, `readings`, `confidences`, `guesses` of the last model on the pictures kept aside; None where
            nothing is labeled, or nothing measured yet.
        sample: `texts` (labels, or what was read where there are none; folded where case is ignored) and `pictures` of
            the whole sample.
        changes: rows of `plot_changes`, with `n`.
        partial: what is missing and why, and after a semicolon how to go on; empty where nothing is.
        about: `created`, `machine`, `reader`, `reading_ms` and `mean_confidence`, None with labels or where nothing was
            read yet.
    """
    details = detailed_metrics(last["truths"], last["readings"], last["confidences"]) if last else None
    report: dict[str, Any] = {"format": FORMAT, "partial": partial, "data": data, "settings": settings}
    report |= {"attack": list(attack), **about}
    report["guesses"] = guesses_needed(last["truths"], last["guesses"]) if last else None
    report["characters"] = character_table(last["truths"], last["readings"], details) if last and details else []
    report["confusions"] = details["confusions"][:10] if details else []
    report["by_length"] = details["by_length"] if details else {}
    known = settings.get("characters")
    if known and settings["ignore_case"]:
        known = "".join(dict.fromkeys(known.casefold()))  # as the texts
    report["secret"] = secret_bits(sample["texts"], known)
    report["repeats"] = repeated_texts(sample["texts"])
    report["near_duplicates"] = len(near_duplicates(sample["pictures"]))
    report["changes"], report["changes_n"] = list(changes), changes[0]["n"] if changes else 0
    report["change_advice"] = change_advice(changes)
    report["weaknesses"] = _weaknesses(report)
    report["verdict"] = _verdict(report)
    return report


def _verdict(report: dict[str, Any]) -> dict[str, str]:
    attack = report["attack"]
    confidence = report["mean_confidence"]
    if not attack and confidence is None:  # the time was over, or it was interrupted
        return {
            "level": "unknown",
            "text": f"Nothing was measured yet of what {READER} reads of it.",
            "advice": "Give it more time: then there are figures.",
        }
    if not attack:
        return {
            "level": "fair" if confidence <= WEAK_AT else "bad",
            "text": f"Without labels nothing is certain: {READER} expects to read {percent(confidence)} of it.",
            "advice": "Label a hundred pictures and run this again: then the figures are measured, not expected.",
        }
    first, best = attack[0], max(step["accuracy"] for step in attack)
    says = []
    if first["labels"] == 0 and report["data"]["generated"]:
        says.append(
            f"{READER.capitalize()} reads {percent(first['accuracy'])} without labels; it was trained on this "
            "generator, so this is not what it reads of a stranger's captcha."
        )
    elif first["labels"] == 0:
        says.append(f"{READER.capitalize()} that has never seen it reads {percent(first['accuracy'])}.")
    if attack[-1]["labels"] > 0:
        taught = [step for step in attack if step["labels"] > 0]
        most = max(step["accuracy"] for step in taught)
        # The first step that is within chance of the best one says what the attack costs.
        enough = next(step for step in taught if step["interval"][1] > most - 1e-9)
        cost = f"{duration(enough['typing_seconds'])} of typing, {duration(enough['training_seconds'])} of training"
        gain = "" if first["labels"] or enough["accuracy"] > first["interval"][1] else ": no gain beyond chance"
        says.append(f"After {enough['labels']} labels ({cost}) it reads {percent(enough['accuracy'])}{gain}.")
    low = max(step["interval"][0] for step in attack)
    level = "bad" if best > WEAK_AT else "fair" if best >= BROKEN_AT else "good"
    broken = "By the published yardstick it is broken: a" if low > BROKEN_AT else "A"
    found = {
        "bad": "It keeps no bot out.",
        "fair": f"{broken} bot needs about {1 / max(best, 1e-9):.0f} attempts for one success.",
        "good": "This reader does not break it with so few labels; that does not prove strength.",
    }
    return {"level": level, "text": " ".join(says), "advice": f"{found[level]} {ADVICE[level]}"}


def _weaknesses(report: dict[str, Any]) -> list[str]:
    secret, repeats = report["secret"], report["repeats"]
    says = []
    lengths = list(secret["lengths"])
    length = " or ".join(lengths) if len(lengths) < 3 else f"{lengths[0]} to {lengths[-1]}"
    used = secret["characters"]
    if lengths:  # otherwise no text is known
        bits, nominal = secret["estimated_bits"], secret["nominal_bits"]
        says.append(
            f"It uses {len(used)} characters ({compact(used)[:80]}) and texts of {length} of them: "
            f"{nominal:.0f} bits if all were equally likely, about {bits:.0f} as it is."
        )
    if lengths and secret["estimated_bits"] < FEW_BITS:
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
    worst, mean = read_worst(report["characters"]), mean_accuracy(report["characters"])
    if worst:
        said = ", ".join(f"{row['character']} ({percent(row['accuracy'])})" for row in worst[:5])
        says.append(f"Characters read worst, clearly below the mean of {percent(mean)}: {said}.")
    elif any(row["n"] >= MIN_SEEN for row in report["characters"]):
        says.append(
            f"No character seen at least {MIN_SEEN} times is read clearly worse than the mean of {percent(mean)}."
        )
    by_length = {k: v for k, v in report["by_length"].items() if v["n"] >= MIN_SEEN}
    if len(by_length) > 1:
        said = ", ".join(f"{k}: {percent(v['accuracy'])} of {v['n']}" for k, v in by_length.items())
        says.append(f"By length: {said}.")
    return says
