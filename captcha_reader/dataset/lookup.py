"""Find the label of every picture of a source, a folder or a zip: one search through all of its files.

In this order:

1. A table of labels (`tables.py` has the forms). It holds for its folder and the folders below, up to those with a
   table of their own; where there are no pictures in there, for the nearest folder above that has some. Pictures are
   found by path, then by name, then by name without suffix.
2. A text file for each picture: `0001.txt` or `0001.gt.txt` beside it, or in another folder of the source.
3. The picture's own name, unless another file of the source seems to have the labels, or the names say nothing.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from captcha_reader.dataset.labels import check_labels, check_numbered, is_numbering, label_from_name, nfc
from captcha_reader.dataset.samples import Reject
from captcha_reader.dataset.strangers import refuse_other_tables
from captcha_reader.dataset.tables import Entry, is_table, parse_table, unquote
from captcha_reader.errors import UserError
from captcha_reader.images import IMAGE_SUFFIXES

NOT_LISTED = "not in the label file"
MISSING = "missing image file"
AMBIGUOUS = "several images of that name"
TEXT_BYTES = 10_000  # of one picture's text file
DEEPEST = 32  # leading folders of a name in a table that may be no folders of the source

Read = Callable[[str, int], bytes]


class PictureLabels:
    """The label of each picture of one source.

    Args:
        pictures: their paths within the source, with `/`.
        others: the paths of all its other files.
        read: gives the start of one of `others`: (path, most bytes, or -1 for all) -> bytes.
        source: how messages call the source, to be put before a path: `my_captchas/`, nothing for a zip.

    Attributes:
        named: the pictures that are labeled by their own names.
        note: a sentence for the user about labels that look odd; empty where they do not.

    Raises:
        UserError: a table cannot be read or gives a picture two labels, or no label can be trusted.
    """

    def __init__(self, pictures: Sequence[str], others: Sequence[str], read: Read, source: str = "") -> None:
        self._read, self._source = read, source
        self._labels: dict[str, str] = {}  # by picture: from tables
        self._texts: dict[str, str] = {}  # by picture: its text file
        self._unlisted: dict[str, str] = {}  # by picture: why it has no label
        self._pseudo: set[str] = set()
        self._missing: list[Reject] = []
        self.note = ""
        tables = [path for path in others if is_table(_name(path))]
        left = self._use_tables(pictures, tables)
        if left:
            strangers = [path for path in others if not is_table(_name(path))]
            left, strangers = self._use_text_files(left, strangers)
        self.named = left
        if left:
            refuse_other_tables(left, strangers, read, source)
            check_labels([label_from_name(_name(picture)) for picture in left])
            check_numbered([_name(_stem(picture)) for picture in left])
            stems = {_name(_stem(picture)) for picture in left}
            if is_numbering(stems):
                self.note = (
                    f"the names of {len(stems):,} pictures in {source or 'the zip'} are taken as labels and look like "
                    f"a numbering ({min(stems)} to {max(stems)}): if they are one, add a labels.csv"
                )

    def take(self, picture: str) -> str | Reject:
        """The label of a picture, as its source has it, or why there is none."""
        if (label := self._labels.get(picture)) is not None:
            return label
        shown = self._source + picture
        if picture in self._unlisted:
            return Reject(shown, NOT_LISTED, self._unlisted[picture])
        if picture in self._texts:
            return self._text_of(shown, self._texts[picture])
        return label_from_name(_name(picture))

    def is_pseudo(self, picture: str) -> bool:
        """Whether a table says that a model gave the label, and nobody typed it."""
        return picture in self._pseudo

    def missing(self) -> Iterator[Reject]:
        """The entries of tables that name no picture, or more than one."""
        yield from self._missing

    def _use_tables(self, pictures: Sequence[str], tables: Sequence[str]) -> list[str]:
        """Give labels by the tables; returns the pictures for which none holds."""
        if not tables:
            return list(pictures)
        scopes = self._scopes(pictures, tables)
        left: list[str] = []
        inside: dict[str, list[str]] = {scope: [] for scope in scopes}
        for picture in pictures:
            scope = next((folder for folder in _parents(picture) if folder in scopes), None)
            (left if scope is None else inside[scope]).append(picture)
        for scope, used in scopes.items():
            entries = [(t, entry) for t in used for entry in parse_table(self._read(t, -1), self._source + t)]
            self._match(entries, _Index(inside[scope], scope))
            for picture in inside[scope]:
                if picture not in self._labels:
                    self._unlisted[picture] = f"{self._source}{used[0]} does not name it"
            named = [self._labels[picture] for picture in inside[scope] if picture in self._labels]
            check_labels(named, self._source + used[0])
        return left

    def _scopes(self, pictures: Sequence[str], tables: Sequence[str]) -> dict[str, list[str]]:
        """Folder -> the tables that hold for it and for what is below it.

        Raises:
            UserError: two hold for the same folder, and are not PaddleOCR's, of which there is one a split.
        """
        with_pictures = {folder for picture in pictures for folder in _parents(picture)}
        scopes: dict[str, list[str]] = defaultdict(list)
        for table in tables:
            scopes[next((f for f in _parents(table) if f in with_pictures), _folder(table))].append(table)
        for used in scopes.values():
            if len(used) > 1 and not all(_name(table).lower().startswith("rec_gt") for table in used):
                first, second = (self._source + table for table in used[:2])
                raise UserError(
                    f"{first} and {second} hold for the same pictures: keep either {_name(first)} or {_name(second)}"
                )
        return scopes

    def _match(self, entries: Iterable[tuple[str, Entry]], index: _Index) -> None:
        """Give the labels of a table to the pictures that it names: by their paths first, then by less."""
        rest = []
        for table, entry in entries:
            name = _normal(entry.name)
            if (picture := index.by_path_of(table, name)) is None:
                rest.append((table, name, entry))
            else:
                self._give(picture, table, entry)
        exact = set(self._labels)
        unknown: dict[str, Reject] = {}
        for table, name, entry in rest:
            found = index.by_less(table, name)
            where = f"{self._source}{table}: {entry.name}"
            if not found or (found[0] in exact and _has_suffix(name)):
                unknown[where] = Reject(where, MISSING, f"no such picture in {self._source}{index.scope or '.'}")
            elif len(found) > 1:
                detail = f"{self._source}{found[0]} and {self._source}{found[1]}: write their folders, too"
                unknown[where] = Reject(where, AMBIGUOUS, detail)
            else:
                self._give(found[0], table, entry)
        self._missing += [unknown[where] for where in sorted(unknown)]

    def _give(self, picture: str, table: str, entry: Entry) -> None:
        label = self._labels.setdefault(picture, entry.label)
        if entry.pseudo:
            self._pseudo.add(picture)
        if label != entry.label:
            raise UserError(
                f"line {entry.line} of {self._source}{table} gives {entry.name} the label {entry.label!r}, which had "
                f"{label!r} before: keep one of the two"
            )

    def _use_text_files(self, pictures: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
        """Find text files that belong to one picture each; returns the pictures and the files that are left.

        Raises:
            UserError: in a folder, less than half of the pictures have one.
        """
        beside: dict[str, str] = {}  # by path without suffix
        elsewhere: dict[str, list[str]] = defaultdict(list)  # by name without suffix
        for path in others:
            if path.lower().endswith(".txt"):
                stem = nfc(path[: -len(".gt.txt")] if path.lower().endswith(".gt.txt") else path[: -len(".txt")])
                beside[stem] = path
                elsewhere[_name(stem)].append(path)
        if not beside:
            return list(pictures), list(others)
        stems: dict[str, int] = defaultdict(int)
        for picture in pictures:
            stems[_name(_stem(picture))] += 1
        by_folder: dict[str, list[str]] = defaultdict(list)
        for picture in pictures:
            by_folder[_folder(picture)].append(picture)
            stem = _stem(picture)
            if stem in beside:
                self._texts[picture] = beside[stem]
            elif len(found := elsewhere.get(_name(stem), [])) == 1 and stems[_name(stem)] == 1:
                self._texts[picture] = found[0]
        left: list[str] = []
        for folder, inside in by_folder.items():
            with_text = sum(picture in self._texts for picture in inside)
            if not with_text:
                left += inside
            elif 2 * with_text < len(inside):
                example = next(self._texts[picture] for picture in inside if picture in self._texts)
                raise UserError(
                    f"of the {len(inside):,} pictures in {self._source}{folder or '.'}, {with_text:,} have a text file "
                    f"of their name ({self._source}{example}): give one to each, or take them away if the file names "
                    "are the labels"
                )
            for picture in inside if with_text else []:
                if picture not in self._texts:
                    self._unlisted[picture] = "it has no text file, as others in its folder have"
        used = set(self._texts.values())
        return left, [path for path in others if path not in used]

    def _text_of(self, shown: str, path: str) -> str | Reject:
        """The label in a picture's own text file."""
        try:
            lines = self._read(path, TEXT_BYTES + 1).decode("utf-8-sig").strip().splitlines()
        except (UserError, OSError, UnicodeDecodeError):
            return Reject(shown, "unreadable label", f"{self._source}{path} is no UTF-8 text: save it as UTF-8")
        if len(lines) > 1 or len("".join(lines)) > TEXT_BYTES // 10:
            return Reject(shown, "unreadable label", f"{self._source}{path} is not a single line with the label")
        return unquote(lines[0]) if lines else ""


class _Index:
    """The pictures of a folder and of those below, to be found by what a table calls them.

    Args:
        pictures: their paths within the source.
        scope: the folder.
    """

    def __init__(self, pictures: Sequence[str], scope: str) -> None:
        self.scope = scope
        self._pictures = pictures
        self._paths = {nfc(picture): picture for picture in pictures}

    def by_path_of(self, table: str, name: str) -> str | None:
        """The picture at the path `name`, relative to the table or to the folder of the pictures."""
        for folder in (_folder(table), self.scope):
            if picture := self._paths.get(posixpath.normpath(posixpath.join(folder, name))):
                return picture
        return None

    def by_less(self, table: str, name: str) -> list[str]:
        """The pictures that a name may mean: with fewer folders, without its suffix, or as a number without zeros."""
        stem = _stem(name) if _has_suffix(name) else name
        for folder in (_folder(table), self.scope):
            if found := self._stems.get(posixpath.normpath(posixpath.join(folder, stem))):
                return found
        tails = name.split("/")[-DEEPEST:]
        for i in range(1, len(tails)):
            if picture := self._paths.get(posixpath.join(self.scope, *tails[i:])):
                return [picture]
        last = _name(name)
        return self._names.get(last) or self._names.get(_name(stem)) or self._numbers.get(_number(_name(stem)), [])

    @cached_property
    def _stems(self) -> Mapping[str, list[str]]:
        """By path without suffix."""
        return _grouped((_stem(path), picture) for path, picture in self._paths.items())

    @cached_property
    def _names(self) -> Mapping[str, list[str]]:
        """By name, and by name without suffix."""
        names = [(_name(path), picture) for path, picture in self._paths.items()]
        return _grouped([*names, *((_stem(name), picture) for name, picture in names)])

    @cached_property
    def _numbers(self) -> Mapping[str, list[str]]:
        """By name, where that is a number: a spreadsheet makes 1 of 0001."""
        names = ((_number(_name(_stem(path))), picture) for path, picture in self._paths.items())
        return _grouped((number, picture) for number, picture in names if number)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped


def _normal(name: str) -> str:
    """A name in a table, with `/` between folders and without a drive or a leading `./`."""
    name = nfc(name.strip()).replace("\\", "/")
    if len(name) > 2 and name[1] == ":":
        name = name[2:]
    return posixpath.normpath(name.lstrip("/")) if name.strip("/") else name


def _number(stem: str) -> str:
    return (stem.lstrip("0") or "0") if stem.isdecimal() else ""


def _has_suffix(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _stem(path: str) -> str:
    return posixpath.splitext(nfc(path))[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _parents(path: str) -> Iterator[str]:
    """The folders around a path, from the nearest to the source itself, which is ''."""
    while path:
        path = _folder(path)
        yield path
