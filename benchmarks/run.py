"""Measure the tables of benchmarks/*.md.

    python benchmarks/run.py unseen few_labels     # some of them
    python benchmarks/run.py all                   # all of them, one after another: hours
    python benchmarks/run.py --render              # measure nothing, draw all tables again from results/*.json

A section's figures go to results/NAME.json, with the commands, the date, the machine, n and the seeds; its table, drawn
from that file, to the Markdown file that has its marks. Real captchas are looked for in the folder that CAPTCHA_DATA
names (README.md says where to get them). Leave the machine alone meanwhile: two heavy jobs at once spoil each other's
times. A training whose run folder is complete is not repeated; delete its folder below data/generated/benchmarks to
measure it anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import accuracy
import constraints
import data_speed
import reading_speed
import robustness
import training_speed
import typist
from results import RESULTS, ROOT, load, numbers, page_of, render, write_section
from tables import WORK

from captcha_reader.cli import run

SECTIONS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        accuracy.captcha_v2,
        accuracy.unseen,
        robustness.changed,
        robustness.generators,
        accuracy.efficientnet,
        accuracy.no_labels,
        accuracy.few_labels,
        accuracy.many_labels,
        accuracy.label_errors,
        constraints.constraints,
        typist.typist,
        reading_speed.reading,
        reading_speed.precision,
        reading_speed.hardware,
        reading_speed.serving,
        training_speed.learning,
        training_speed.training,
        training_speed.growth,
        data_speed.generate,
        data_speed.merge,
        data_speed.dataset,
        data_speed.bulk,
    )
}


def render_all() -> None:
    """Draw every table again from its results."""
    for path in sorted(RESULTS.glob("*.json")):
        result = load(path.stem)
        write_section(result.section, render(result))
    write_section("numbers", numbers())


def main() -> int:
    """Command line."""
    names = sys.argv[1:]
    if names == ["--render"]:
        render_all()
        return 0
    names = list(SECTIONS) if names == ["all"] else names
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or not names:
        what = f"there is no table {unknown[0]!r}" if unknown else "name the tables to measure, or all"
        print(f"error: {what}: choose from {', '.join(SECTIONS)}", file=sys.stderr)
        return 1
    (ROOT / WORK).mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    for name in names:  # rather than lose what took hours to measure
        page_of(name)
    for name in names:
        SECTIONS[name]()
    return 0


if __name__ == "__main__":
    run(main)
