"""Reproduce the tables of benchmarks/*.md.

    python benchmarks/run.py                        # all of them, one after another
    python benchmarks/run.py captcha_v2 generate    # some of them

Every table stands between two marker lines of its file and is written there with the commands, the date, the machine,
n and the seed. Leave the machine alone meanwhile: two heavy jobs at once spoil each other's times. A training whose
run folder is complete is not repeated; delete its folder below data/generated/benchmarks to measure it anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import accuracy
import changes
import kinds
import speed
from tables import ROOT, WORK, check_places

from captcha_reader.cli import run

SECTIONS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        accuracy.captcha_v2,
        accuracy.unseen,
        changes.changed,
        kinds.kinds,
        accuracy.efficientnet,
        accuracy.no_labels,
        accuracy.few_labels,
        accuracy.many_labels,
        accuracy.label_errors,
        speed.reading,
        speed.precision,
        speed.hardware,
        speed.learning,
        speed.training,
        speed.growth,
        speed.generate,
        speed.merge,
        speed.dataset,
        speed.bulk,
        speed.serving,
    )
}


def main() -> int:
    """Command line."""
    names = sys.argv[1:] or list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"error: no table {unknown[0]!r}: choose from {', '.join(SECTIONS)}", file=sys.stderr)
        return 1
    (ROOT / WORK).mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    check_places(names)  # rather than lose what took hours to measure
    for name in names:
        SECTIONS[name]()
    return 0


if __name__ == "__main__":
    run(main)
