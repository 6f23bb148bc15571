"""Results of the benchmarks: one JSON file a section in results/, and the tables of benchmarks/*.md drawn from it.

A section stands between the lines `<!-- NAME -->` and `<!-- /NAME -->` of one Markdown file. Nobody edits it by hand:
`python benchmarks/run.py NAME` measures it, and `python benchmarks/run.py --render` draws all tables again.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the scripts live one folder up

from captcha_reader.files import available_cores, write_text  # noqa: E402

PAGES = [ROOT / "README.md", ROOT / "docs" / "scaling.md", *sorted((ROOT / "benchmarks").glob("*.md"))]
RESULTS = ROOT / "benchmarks" / "results"

MADE_BY = {"estimate": "bulk", "generators_development": "generators"}  # section -> its function in run.py

Value = str | int | float | dict[str, Any] | list[float] | None


@dataclass
class Table:
    """A table of a section.

    Attributes:
        columns: name -> how a number in it is written, as Python's `format` has it (`.2%`, `,`, `.0f`).
        rows: one value a column: text, a number, None, [low, high], or what `spread` returns.
        shown: whether it stands in the Markdown file, too.
    """

    columns: dict[str, str]
    rows: list[list[Value]]
    shown: bool = True


@dataclass
class Result:
    """What one section measured.

    Attributes:
        section: its name, that of the function in run.py.
        about: what was measured, in sentences: the set, n, the seeds, what the columns mean.
        tables: one or more.
        machine: processor and cores.
        date: of the measurement.
        weights: the beginning of the SHA-256 of the shipped weights, where they matter.
        commands: what was run, for one seed.
    """

    section: str
    about: str
    tables: list[Table]
    machine: str = ""
    date: str = ""
    weights: str = ""
    commands: list[str] = field(default_factory=list)


def processor() -> str:
    """Processor and cores of this machine."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return f"{cpu}, {available_cores()} cores"


def spread(
    values: Sequence[float], middle: Callable[[Sequence[float]], float] = statistics.mean
) -> dict[str, float | list[float]]:
    """Several measurements of one thing: their mean (or `middle` of them), the lowest, the highest, and all of them."""
    return {"middle": middle(values), "low": min(values), "high": max(values), "values": list(values)}


def record(section: str, about: str, *tables: Table, weights: str = "", commands: Sequence[str] = ()) -> None:
    """Write results/`section`.json with this machine and date, and the section of its Markdown file."""
    result = Result(section, about, list(tables), processor(), datetime.date.today().isoformat(), weights)
    data = os.environ.get("CAPTCHA_DATA")
    result.commands = [line.replace(data, "$CAPTCHA_DATA") if data else line for line in commands]
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / f"{section}.json", json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n")
    write_section(section, render(result))
    write_section("numbers", numbers())


def load(section: str) -> Result:
    """The result of a section, as it was recorded."""
    kept = json.loads((RESULTS / f"{section}.json").read_text(encoding="utf-8"))
    return Result(**kept | {"tables": [Table(**table) for table in kept["tables"]]})


def render(result: Result) -> str:
    """What stands in the Markdown file."""
    raw = Path(os.path.relpath(RESULTS / f"{result.section}.json", page_of(result.section).parent)).as_posix()
    weights = f", weights {result.weights}" if result.weights else ""
    about = f"{result.about} {result.machine}, {result.date}{weights}.".strip()
    name = MADE_BY.get(result.section, result.section)
    about += f" `python benchmarks/run.py {name}`; [figures and commands]({raw})."
    tables = []
    for table in (table for table in result.tables if table.shown):
        specs = table.columns.values()
        rows = [[cell(value, spec) for value, spec in zip(row, specs, strict=True)] for row in table.rows]
        tables.append(markdown(list(table.columns), rows))
    return "\n\n".join([about, *tables])


def figure(section: str, row: str, column: str, spec: str = ".1%") -> str:
    """One figure of a section, as text: the mean or median where there are several measurements.

    Args:
        section: its name.
        row: what its first cells begin with, joined by spaces.
        column: its name.
        spec: as Python's `format` has it.
    """
    table = load(section).tables[0]
    cells = next(cells for cells in table.rows if " ".join(map(str, cells)).startswith(row))
    value = cells[list(table.columns).index(column)]
    return cell(value["middle"] if isinstance(value, dict) else value, spec)


def numbers() -> str:
    """The table of the README, of the figures of other sections."""
    case, peer = "ignoring case", "ddddocr 1.6.1"
    v2, lepture, ms = "`captcha_v2`", "lepture's `captcha`", "ms, one picture, one core"
    no_labels = [
        [
            "18 test generators that nobody looked at",
            *(figure("generators", "18", what) for what in ("reader", peer)),
            "generators",
        ],
        ["*captcha version 2*", *(figure("unseen", v2, what) for what in (case, f"{peer} {case}")), "unseen"],
        [
            "lepture's library, 62 characters",
            *(figure("unseen", lepture, what) for what in (case, f"{peer} {case}")),
            "unseen",
        ],
        [
            "twelve websites, ddddocr knowing their characters",
            *(figure("constraints", "**mean", what) for what in ("free", "ddddocr, characters")),
            "constraints",
        ],
    ]
    after = [
        ["*captcha version 2*, 100 labels", "few_labels", f"{v2}, 100"],
        ["lepture's library, 50 labels", "few_labels", f"{lepture}, 50 "],
        ["lepture's library, 5,000 labels", "many_labels", lepture],
    ]
    rows = [[f"{what}, no labels", *values] for what, *values in no_labels]
    rows += [[what, figure(section, row, case), "", section] for what, section, row in after]
    for pictures, what in ((v2, "*captcha version 2*, mostly one view"), ("`generic_upper`", "*generic*, many views")):
        speed = [figure("reading", f"{pictures} {who}", ms, ".1f") for who in ("shipped", peer)]
        rows.append([f"milliseconds a picture, one core: {what}", *speed, "reading"])
    rows = [[*row, f"`python benchmarks/run.py {section}`"] for *row, section in rows]
    return markdown(["sequence accuracy", "this reader", peer, "measured by"], rows)


def cell(value: Value, spec: str) -> str:
    """A value as text: `97.10%`, `97.10% (96.98% to 97.11%)` or `96.98% to 97.11%`."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict):
        return f"{value['middle']:{spec}} ({value['low']:{spec}} to {value['high']:{spec}})"
    if isinstance(value, list):
        return f"{value[0]:{spec}} to {value[1]:{spec}}"
    return f"{value:{spec}}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)


def page_of(section: str) -> Path:
    """The Markdown file that holds a section.

    Raises:
        SystemExit: none does, or more than one.
    """
    marks = f"<!-- {section} -->", f"<!-- /{section} -->"
    found = [page for page in PAGES if any(mark in page.read_text(encoding="utf-8") for mark in marks)]
    if len(found) != 1 or any(found[0].read_text(encoding="utf-8").count(mark) != 1 for mark in marks):
        raise SystemExit(f"error: no file of benchmarks/ has one pair of lines {' and '.join(marks)}")
    return found[0]


def read_section(section: str) -> str:
    """What stands between the marks of a section."""
    text = page_of(section).read_text(encoding="utf-8")
    return text.split(f"<!-- {section} -->\n", 1)[1].split(f"\n<!-- /{section} -->", 1)[0]


def write_section(section: str, text: str) -> None:
    """Put `text` between the marks of a section."""
    page = page_of(section)
    before, rest = page.read_text(encoding="utf-8").split(f"<!-- {section} -->", 1)
    after = rest.split(f"<!-- /{section} -->", 1)[1]
    write_text(page, f"{before}<!-- {section} -->\n{text.strip()}\n<!-- /{section} -->{after}")
