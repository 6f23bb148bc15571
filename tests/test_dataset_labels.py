"""Where labels come from: every form of table, anywhere in a source, in a folder or a zip, and names that are none."""

from __future__ import annotations

import contextlib
import io
import json
import time
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.labels import check_labels, is_numbering, label_from_name, parse_label
from captcha_reader.dataset.lookup import PictureLabels
from captcha_reader.dataset.samples import Reject
from captcha_reader.dataset.sources import iter_source
from captcha_reader.dataset.strangers import names_pictures, refuse_other_tables
from captcha_reader.dataset.tables import is_table, parse_table
from captcha_reader.dataset.zips import entry_name
from captcha_reader.errors import UserError
from make_dataset import make_dataset

TEXTS = ["aB3x", "k7Qm", "0012", "zzPq", "h4T2"]


def png(number: int) -> bytes:
    """A picture unlike that of any other number."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, names: list[str], files: dict[str, str | bytes] | None = None) -> Path:
    """Pictures with these names, and other files."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(i))
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def labels(folder: Path) -> dict[str, str]:
    """Path within the folder -> label, for what iter_source yields."""
    return {str(Path(s.source).relative_to(folder)): parse_label(s.text) for s in iter_source(str(folder))}


def labels_in_zip(folder: Path) -> dict[str, str]:
    """The same for the names of a zip of the folder, through the class that the page calls."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}
    pictures = [name for name in files if name.endswith((".png", ".jpg"))]
    found = PictureLabels(pictures, [n for n in files if n not in pictures], lambda name, most: files[name][:most])
    taken = {name: found.take(name) for name in pictures}
    return {name: parse_label(text) for name, text in taken.items() if isinstance(text, str)}


def lines(names: list[str], between: str, quote: str = "") -> str:
    return "".join(f"{name}{between}{quote}{text}{quote}\n" for name, text in zip(names, TEXTS, strict=True))


NUMBERS = [f"{i:04d}" for i in range(1, 6)]
PNGS = [f"{number}.png" for number in NUMBERS]
IMAGES = [f"images/{name}" for name in PNGS]
WORDS = [f"train/word_{i}.png" for i in range(1, 6)]

LAYOUTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "ICDAR: gt.txt with quotes": (PNGS, {"gt.txt": lines(PNGS, ", ", '"')}),
    "ICDAR: gt.txt above images/": (IMAGES, {"gt.txt": lines(PNGS, ", ", '"')}),
    "gt.txt with folders and tabs": (IMAGES, {"gt.txt": lines(IMAGES, "\t")}),
    "PaddleOCR": (WORDS, {"rec_gt_train.txt": lines(WORDS, "\t")}),
    "PaddleOCR with the folder above": (WORDS, {"rec_gt_train.txt": lines([f"data/rec/{w}" for w in WORDS], "\t")}),
    "imagefolder, csv": (WORDS, {"metadata.csv": "file_name,text\n" + lines(WORDS, ",")}),
    "imagefolder, names alone": (WORDS, {"metadata.csv": "file_name,text\n" + lines([w[6:] for w in WORDS], ",")}),
    "imagefolder, jsonl": (
        WORDS,
        {
            "train/metadata.jsonl": "".join(
                json.dumps({"file_name": word[6:], "text": text}) + "\n"
                for word, text in zip(WORDS, TEXTS, strict=True)
            )
        },
    ),
    "a text file for each": (PNGS, {f"{n}.txt": f"{t}\n" for n, t in zip(NUMBERS, TEXTS, strict=True)}),
    "a text file for each, tesseract": (PNGS, {f"{n}.gt.txt": t for n, t in zip(NUMBERS, TEXTS, strict=True)}),
    "a text file for each, elsewhere": (IMAGES, {f"labels/{n}.txt": t for n, t in zip(NUMBERS, TEXTS, strict=True)}),
    "names without suffix": (PNGS, {"labels.csv": lines(NUMBERS, ",")}),
    "names with another suffix": (PNGS, {"labels.csv": lines([f"{n}.jpg" for n in NUMBERS], ",")}),
    "a table in a folder of its own": (IMAGES, {"annotations/labels.csv": lines(PNGS, ",")}),
    "zeros lost in a spreadsheet": (PNGS, {"labels.csv": lines([str(int(n)) for n in NUMBERS], ",")}),
    "paths of another machine": (IMAGES, {"labels.csv": lines([f"C:\\data\\images\\{n}" for n in PNGS], ",")}),
    "deeper than its table": ([f"a/b/{n}" for n in PNGS], {"a/labels.txt": lines(PNGS, " ")}),
    "quotes behind a comma and a space": (PNGS, {"labels.csv": lines(PNGS, ", ", '"')}),
    "single quotes around every label": (PNGS, {"labels.txt": lines(PNGS, " ", "'")}),
    "Excel: formulas": (
        PNGS,
        {"labels.csv": "sep=;\n" + "".join(f'{n};="{t}"\n' for n, t in zip(PNGS, TEXTS, strict=True))},
    ),
    "Excel: empty lines above a header": (PNGS, {"labels.csv": "\n;;\nfilename;label\n" + lines(PNGS, ";")}),
    "a header that is not ours": (PNGS, {"labels.csv": "file_name,ground_truth\n" + lines(PNGS, ",")}),
    "tsv": (PNGS, {"labels.tsv": "file\ttext\n" + lines(PNGS, "\t")}),
    "old Mac line ends": (PNGS, {"labels.csv": lines(PNGS, ",").replace("\n", "\r")}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_anywhere_in_the_source_wins(tmp_path, layout):
    names, files = LAYOUTS[layout]
    folder = fill(tmp_path / "in", names, files)
    expected = dict(zip(names, TEXTS, strict=True))
    assert labels(folder) == expected
    assert labels_in_zip(folder) == expected


def spreadsheet(rows: str) -> bytes:
    """As much of an .xlsx file as has the cells."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("xl/sharedStrings.xml", f"<sst>{rows}</sst>")
    return buffer.getvalue()


STRANGERS = {
    "annotations.csv": lines(NUMBERS, ","),
    "labels.json": json.dumps(dict(zip(PNGS, TEXTS, strict=True))),
    "meta/all.json": json.dumps([{"id": n, "t": t} for n, t in zip(NUMBERS, TEXTS, strict=True)]),
    "labels.xlsx": spreadsheet("".join(f"<t>{n}</t><t>{t}</t>" for n, t in zip(PNGS, TEXTS, strict=True))),
    "names.xlsx": spreadsheet("".join(f"<t>{n}</t><t>{t}</t>" for n, t in zip(NUMBERS, TEXTS, strict=True))),
    "train.txt": lines(PNGS, " "),
    "unicode.txt": lines(PNGS, "\t").encode("utf-16"),
    "labels.yaml": lines(PNGS, ": "),
    "data.xml": "".join(f"<i><f>{n}</f><t>{t}</t></i>" for n, t in zip(PNGS, TEXTS, strict=True)),
    "labels.pkl": b"\x80\x04" + b"\x94\x8c\x08".join(name.encode() for name in PNGS),
    "labels": lines(PNGS, " "),
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("pictures", [PNGS, IMAGES], ids=["beside", "below"])
def test_a_table_of_no_known_form_is_refused(tmp_path, name, pictures):
    folder = fill(tmp_path / "in", pictures, {name: STRANGERS[name]})
    for find in (labels, labels_in_zip):
        if find is labels_in_zip and "." not in name:
            continue
        with pytest.raises(UserError, match=rf"{name} names the pictures beside it, but labels are read from"):
            find(folder)


def test_one_json_file_a_picture_is_refused(tmp_path):
    folder = fill(tmp_path, PNGS, {f"{n}.json": "{}" for n in NUMBERS})
    with pytest.raises(UserError, match=r"0001\.json stands beside a picture of its name"):
        labels(folder)


def test_files_that_have_no_labels_do_no_harm(tmp_path):
    names = [f"{text}.png" for text in TEXTS]
    files = {
        "README.md": "Look at aB3x.png and k7Qm.png",
        "words.txt": "\n".join(TEXTS),
        "license.txt": "MIT",
        "config.yaml": "width: 120\nheight: 40\n",
        "costs.xlsx": spreadsheet("<t>Date</t><t>Price</t>"),
    }
    assert labels(fill(tmp_path, names, files)) == dict(zip(names, TEXTS, strict=True))


def test_tables_hold_for_their_folders_and_split_files_go_together(tmp_path):
    files = {
        "rec_gt_train.txt": "train/word_1.png\tab\n",
        "rec_gt_test.txt": "test/word_1.png\tcd\n",
        "own/labels.csv": "word_1.png,ef\n",
    }
    folder = fill(tmp_path, ["train/word_1.png", "test/word_1.png", "own/word_1.png"], files)
    assert labels(folder) == {"train/word_1.png": "ab", "test/word_1.png": "cd", "own/word_1.png": "ef"}


@pytest.mark.parametrize(
    ("names", "files", "words"),
    [
        (PNGS, {"labels.csv": lines(PNGS, ","), "gt.txt": lines(PNGS, " ")}, "keep either gt.txt or labels.csv"),
        (PNGS, {"labels.csv": "0001.png,a\n0001,b\n"}, "line 2 of .*labels.csv gives 0001 the label 'b'"),
        (PNGS, {"metadata.csv": "file_name,width,height\n0001.png,3,4\n"}, "has the columns file_name, width, height"),
        (PNGS, {"metadata.jsonl": '{"file_name": "0001.png", "text": 12}\n'}, "line 1 of .*jsonl has the label 12"),
        (PNGS, {"metadata.jsonl": "[1]\n"}, "line 1 of .*jsonl is not like"),
        (PNGS, {"labels.jsonl": '{"file_name": "0001.png", "text": "\\ud83d"}'}, "line 1 of .*jsonl holds half"),
        (PNGS, {"labels.jsonl": '{"file_name": "\\udc00.png", "text": "a"}'}, "line 1 of .*jsonl holds half"),
        (PNGS, {"labels.jsonl": "[" * 9000}, "line 1 of .*jsonl is not like"),
        (PNGS, {"labels.csv": '0001.png,"aB\n0002.png,"cd\n'}, "line 2 of .*csv ends in the middle of a quoted cell"),
        (PNGS, {"gt.txt": "0001.png " + "a" * 10_001}, r"line 1 of .*gt.txt has 10,0\d\d characters"),
        (PNGS, {"0001.txt": "a\n"}, "of the 5 pictures in .*, 1 have a text file of their name"),
        (PNGS, {"labels.csv": "".join(f"{n},captcha\n" for n in PNGS)}, r"labels.csv gives 5 pictures only 1 diff"),
    ],
)
def test_tables_that_cannot_be_used_are_one_sentence(tmp_path, names, files, words):
    folder = fill(tmp_path / "in", names, files)
    with pytest.raises(UserError, match=words) as caught:
        labels(folder)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_matched_is_counted_and_named(tmp_path):
    files = {"labels.csv": "a/0001.png,aa\n0002.png,bb\ngone.png,cc\n0003,dd\n"}
    folder = fill(tmp_path / "in", ["a/0001.png", "a/0002.png", "b/0002.png", "b/0003.png"], files)
    info = make_dataset(DatasetConfig(sources=[str(folder)], out=str(tmp_path / "out"), split="100/0/0", workers=1))
    listed = {r["source"].removeprefix(f"{folder}/"): (r["reason"], r["detail"]) for r in info["rejects"]["listed"]}
    assert {source: reason for source, (reason, _) in listed.items()} == {
        "a/0002.png": "not in the label file",
        "b/0002.png": "not in the label file",
        "labels.csv: 0002.png": "several images of that name",
        "labels.csv: gone.png": "missing image file",
    }
    assert "a/0002.png and" in listed["labels.csv: 0002.png"][1]
    assert info["counts"]["train"] == 2


def test_a_picture_named_by_itself_gets_the_label_of_its_table(tmp_path):
    folder = fill(tmp_path, PNGS, {"labels.csv": lines(PNGS, ",")})
    assert [s.text for name in PNGS for s in iter_source(str(folder / name))] == TEXTS


def test_a_table_beside_the_source_is_told_of(tmp_path):
    folder = fill(tmp_path / "all", IMAGES, {"gt.txt": lines(PNGS, " ")})
    with pytest.raises(UserError, match=r"gt\.txt names the pictures of .*images: give the folder of both"):
        labels(folder / "images")
    (folder / "gt.txt").write_text("other.png ab\n")
    assert len(labels(folder / "images")) == 5


def test_text_files_that_are_none(tmp_path):
    files = {"0001.txt": "ab", "0002.txt": "two\nlines", "0003.txt": b"\xff\xfe", "0004.txt": ""}
    names = [*PNGS]
    pictures = fill(tmp_path, names, files)
    found = PictureLabels(names, list(files), lambda name, most: (pictures / name).read_bytes()[:most])
    taken = [found.take(name) for name in names]
    assert taken[0] == "ab" and taken[3] == ""
    assert [t.reason for t in taken if isinstance(t, Reject)] == [
        *["unreadable label"] * 2,
        "not in the label file",
    ]


# ------------------------------------------------------------------------------------------- names that say nothing


@pytest.mark.parametrize("form", ["captcha_{}.png", "IMG_2024_{}.png", "aB3x/captcha_{}.png", "train/img ({}).png"])
def test_one_label_for_every_picture_is_refused(tmp_path, form):
    folder = fill(tmp_path / "in", [form.format(i) for i in range(10)])
    for find in (labels, labels_in_zip):
        with pytest.raises(UserError, match=r"the file names give 10 pictures only 1 different text \(.*\): name each"):
            find(folder)


def test_folders_named_by_the_labels_are_refused(tmp_path):
    folder = fill(tmp_path, [f"{text}/{i}.png" for text in TEXTS for i in range(3)])
    with pytest.raises(UserError, match="the names of 15 pictures are numbers from 0 to 2, again and again"):
        labels(folder)


def test_labels_may_repeat(tmp_path):
    check_labels(["ab", "cd"] * 10)
    check_labels(list("0123456789") * 100)  # one character each, over and over
    check_labels(["ab"] * 3)
    with pytest.raises(UserError, match="only 2 different texts"):
        check_labels(["ab", "cd"] * 11)


def test_a_numbering_is_told(tmp_path):
    assert is_numbering([f"{i:04d}" for i in range(1, 40) if i != 7])
    assert is_numbering([f"img{i}" for i in range(100, 130)])
    assert not is_numbering([f"{i:02d}" for i in range(100)]), "all labels of two digits"
    assert not is_numbering([f"{i * 37 % 10_000:04d}" for i in range(40)])
    folder = fill(tmp_path / "in", [f"{i:04d}.png" for i in range(1, 31)])
    info = make_dataset(DatasetConfig(sources=[str(folder)], out=str(tmp_path / "out"), workers=1))
    assert len(info["notes"]) == 1 and "look like a numbering (0001 to 0030)" in info["notes"][0]


# --------------------------------------------------------------------------------------------------- names and letters


def test_letters_of_a_mac_are_those_of_everybody(tmp_path):
    texts = ["가나다라", "éàü", "ガギグ"]
    split = [unicodedata.normalize("NFD", text) for text in texts]
    assert all(len(a) > len(b) for a, b in zip(split, texts, strict=True))
    assert [label_from_name(f"{text}_0.png") for text in split] == texts
    assert [parse_label(text) for text in split] == texts
    named = fill(tmp_path / "named", [f"{text}.png" for text in split])
    info = make_dataset(
        DatasetConfig(
            sources=[str(named)],
            out=str(tmp_path / "out"),
            split="100/0/0",
            alphabet=unicodedata.normalize("NFD", "".join(texts)),
            workers=1,
        )
    )
    assert info["alphabet"] == "".join(sorted(set("".join(texts)))) and info["rejects"]["total"] == 0
    table = "".join(f"{text}.png,{i}ab\n" for i, text in enumerate(texts))  # NFC: as typed elsewhere
    folder = fill(tmp_path / "table", [f"{text}.png" for text in split], {"labels.csv": table})
    assert sorted(labels(folder).values()) == ["0ab", "1ab", "2ab"]


@pytest.mark.parametrize(("name", "encoding"), [("验证码.png", "gbk"), ("가나.png", "utf-8"), ("é.png", "cp437")])
def test_names_in_zips_without_an_encoding(name, encoding):
    entry = zipfile.ZipInfo(name.encode(encoding).decode("cp437"))
    assert entry_name(entry) == name
    entry = zipfile.ZipInfo(name)
    entry.flag_bits |= 0x800
    assert entry_name(entry) == name


def test_names_of_tables():
    for name in (
        "labels.csv",
        "Labels.CSV",
        "gt.txt",
        "rec_gt_train.txt",
        "rec_gt.txt",
        "metadata.jsonl",
        "labels.tsv",
    ):
        assert is_table(name)
    for name in ("annotations.csv", "labels.json", "train.txt", "0001.txt", "gt.txt.bak", "metadata.txt"):
        assert not is_table(name)


# ------------------------------------------------------------------------------------------------------------ hostile

HOSTILE = {
    "blanks": ("labels.txt", lambda n: " " * n),
    "blanks and a letter": ("labels.txt", lambda n: " " * n + "a"),
    "lines of blanks": ("labels.txt", lambda n: (" " * 9000 + "a\n") * (n // 9001)),
    "dots": ("gt.txt", lambda n: (".png" * 2000 + "\n") * (n // 8001)),
    "quotes": ("labels.csv", lambda n: '"' * n),
    "open quotes": ("labels.csv", lambda n: '"a\n' * (n // 3)),
    "commas": ("labels.csv", lambda n: ("," * 9000 + "\n") * (n // 9001)),
    "slashes": ("labels.txt", lambda n: ("/" * 8000 + "a b\n") * (n // 8004)),
    "folders": ("labels.txt", lambda n: ("a/" * 4000 + "a.png b\n") * (n // 8008)),
    "brackets": ("metadata.jsonl", lambda n: ("[" * 9000 + "\n") * (n // 9001)),
    "one name": ("labels.txt", lambda n: "a.png b\n" * (n // 8)),
    "many names": ("labels.txt", lambda n: "".join(f"{i}.png b\n" for i in range(n // 9))),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_the_work_for_a_table_grows_with_its_size_alone(case):
    """The least of a few times, so that a busy machine does not decide."""
    name, make = HOSTILE[case]

    def seconds(size: int) -> float:
        data = make(size).encode()
        start = time.process_time()
        with contextlib.suppress(UserError):
            PictureLabels(["a.png", "b.png"], [name], lambda path, most: data)
        return time.process_time() - start

    once, twice = (min(seconds(size) for _ in range(3)) for size in (60_000, 120_000))
    for _ in range(5):  # one quiet moment is enough: what is quadratic has none
        if twice <= max(2.5 * once, 0.05):
            break
        once, twice = max(once, seconds(60_000)), min(twice, seconds(120_000))
    assert twice <= max(2.5 * once, 0.05)
    assert once < 2


def test_the_table_of_the_report_is_read_at_once():
    start = time.process_time()
    with pytest.raises(UserError, match=r"line 1 of labels\.txt has 60,000"):
        parse_table(b" " * 60_000, "labels.txt")
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("labels.txt", '0.png ab\n\n, ""\n', "line 3 of labels.txt is not `name label`"),
        ("metadata.jsonl", '\n{"file_name": "0.png", "text": "ab"}\n{"text": "cd"}\n', "line 3 of .* has no file_name"),
        ("metadata.jsonl", '{"file_name": 7, "text": "ab"}', "line 1 of .* has no file_name: name the picture"),
    ],
)
def test_a_line_of_a_table_that_says_nothing_is_named(name: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        list(parse_table(text.encode(), name))


def test_quoted_names_and_blank_lines_of_a_table_are_read() -> None:
    rows = list(parse_table(b'"a b.png" xy\n\n1.png cd\n', "labels.txt"))
    assert [(row.line, row.name, row.label) for row in rows] == [(1, "a b.png", "xy"), (3, "1.png", "cd")]


def test_a_name_in_a_zip_that_no_old_encoding_has_stays() -> None:
    entry = zipfile.ZipInfo("验.png")
    entry.flag_bits = 0
    assert entry_name(entry) == "验.png"


def test_files_that_are_no_text_are_no_tables(tmp_path: Path) -> None:
    def read(path: str, most: int) -> bytes:
        if path == "gone.dat":
            raise FileNotFoundError(path)
        return b"aB3x k7Qm 0012 zzPq h4T2"

    pictures = [f"{text}.png" for text in TEXTS]
    refuse_other_tables(pictures, ["gone.dat"], read, "")
    refuse_other_tables(pictures, ["weights.bin"], read, "")
    refuse_other_tables(pictures, ["table.xlsx"], read, "")  # no zip: nothing is known of it
    with pytest.raises(UserError, match=r"in/notes\.dat names the pictures beside it, but labels are read from"):
        refuse_other_tables(pictures, ["gone.dat", "notes.dat"], read, "in/")
    sheet = io.BytesIO()
    with zipfile.ZipFile(sheet, "w") as file:
        file.writestr("media/1.png", b"none")
        file.writestr("xl/strings.xml", "<t>" + "</t> <t>".join(TEXTS) + "</t>")
    assert names_pictures("table.xlsx", sheet.getvalue(), pictures)
