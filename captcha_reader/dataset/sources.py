"""The samples of a source of any kind: parquet shards, folders of pictures, the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from captcha_reader.dataset.folders import GENERATED
from captcha_reader.dataset.hub import iter_hub
from captcha_reader.dataset.lookup import PictureLabels
from captcha_reader.dataset.samples import Note, Reject, Sample
from captcha_reader.dataset.shards import Shard
from captcha_reader.dataset.split import PSEUDO, split_of
from captcha_reader.dataset.strangers import LOOKED_AT, names_pictures
from captcha_reader.dataset.tables import is_table
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, relative_paths
from captcha_reader.images import IMAGE_SUFFIXES, OTHER_FORMAT, OTHER_SUFFIXES

Item = Sample | Shard | Reject | Note


def iter_source(
    source: str, limit: int | None = None, on_reject: Callable[[Reject], None] = lambda reject: None
) -> Iterator[Sample]:
    """Yield the samples of a source of any kind in a fixed order, reading as it goes.

    Args:
        source: path of a parquet file, of a folder of shards or pictures, of a picture, or `hub:OWNER/NAME[:SPLIT]`.
        limit: stop after this many.
        on_reject: is told what is passed over: pictures that a table of labels does not name, names in there without a
            picture, files that cannot be read.

    Yields:
        Samples with raw labels and unchecked pictures.

    Raises:
        UserError: no such source, an unreadable parquet or label file, missing columns, or the Hub out of reach.
    """
    for item in iter_items(source, limit):
        if isinstance(item, Sample):
            yield item
        elif isinstance(item, Reject):
            on_reject(item)
        elif isinstance(item, Shard):
            by_model = iter(item.pseudo()[item.start :])
            for batch in item.batches():
                images = batch.column("image")
                columns = images.field("bytes"), batch.column("text"), images.field("path")
                for image, text, place in zip(*(column.to_pylist() for column in columns), strict=True):
                    yield Sample(image, text, place, PSEUDO if next(by_model) else item.split)


def iter_items(source: str, limit: int | None = None, skip: Path | None = None) -> Iterator[Item]:
    """Samples and shards, of at most `limit` rows in all, rejects that are known before looking at the picture, and
    notes."""
    items: Iterator[Item]
    if source.startswith("hub:"):
        items = iter_hub(source)
    elif (path := Path(source)).is_dir():
        items = _iter_folder(path, skip)
    elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        items = _iter_picture(path)
    elif path.suffix.lower() == ".parquet" and path.is_file():
        items = iter([Shard.open(path)])
    elif path.exists():
        raise UserError(f"the source {source} is neither a folder nor a parquet file nor a picture: name one of these")
    else:
        raise UserError(f"there is no {source}: name a parquet file, a folder of shards or pictures, or hub:OWNER/NAME")
    seen = 0
    empty = True
    for item in items:
        if isinstance(item, (Sample, Shard)):
            if limit is not None and seen >= limit:
                return
            rows = 1 if isinstance(item, Sample) else item.rows
            if not rows:
                continue
            if limit is not None and seen + rows > limit:
                rows = limit - seen
                item = replace(item, rows=rows) if isinstance(item, Shard) else item
            seen += rows
        empty = empty and isinstance(item, Note)
        yield item
    if empty:
        raise UserError(
            f"the source {source} holds no samples: it needs .parquet shards or PNG/JPEG/GIF/BMP/WebP/TIFF files"
        )


@dataclass
class Folder:
    """What stands in a folder, sorted by name. Hidden files are left out, and what we generated, of which data/ has a
    folder; so are links to folders of the same source, which are read under their own names."""

    path: Path
    folders: list[Path]
    shards: list[Path]
    pictures: list[Path]
    others: list[Path]


def list_folder(folder: Path, root: Path | None = None) -> Folder:
    """List a folder of the source `root`, by default a source itself."""
    inside = Folder(folder, [], [], [], [])
    top = (root or folder).resolve()
    own = GENERATED if folder.resolve() == ROOT / "data" else None
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path per entry costs as much as the scan
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name == own:
                continue
            if entry.is_dir():
                if not (entry.is_symlink() and _leads_back(path, top)):
                    inside.folders.append(path)
            elif suffix == ".parquet":
                inside.shards.append(path)
            elif suffix in IMAGE_SUFFIXES:
                inside.pictures.append(path)
            elif entry.is_file():
                inside.others.append(path)
    for paths in (inside.folders, inside.shards, inside.pictures, inside.others):
        paths.sort()
    return inside


def _leads_back(link: Path, top: Path) -> bool:
    """Whether a link leads into the source `top`, or to a folder around it, so that following it would never end."""
    target = link.resolve()
    return target.is_relative_to(top) or top.is_relative_to(target)


def walk_folder(folder: Path, skip: Path | None = None, root: Path | None = None) -> Iterator[Folder]:
    """A folder and all those below it, in the order in which they are read; not the folder `skip`."""
    if skip is not None and folder.resolve() == skip:
        return
    inside = list_folder(folder, root or folder)
    yield inside
    for path in inside.folders:
        yield from walk_folder(path, skip, root or folder)


def _iter_folder(source: Path, skip: Path | None) -> Iterator[Item]:
    folders = list(walk_folder(source, skip))
    pictures = [path for folder in folders if not folder.shards for path in folder.pictures]
    labels = _find_labels(source, pictures, [path for folder in folders for path in folder.others])
    _refuse_table_above(source, labels.named)
    if labels.note:
        yield Note(labels.note)
    for folder in folders:
        if folder.shards:
            for shard in map(Shard.open, folder.shards):
                yield replace(shard, split=split_of(shard.path.relative_to(source), source))
            if folder.pictures:
                yield Note(f"{len(folder.pictures):,} pictures beside the shards in {folder.path} are not read")
        else:
            yield from _iter_pictures(source, folder.pictures, labels)
            for path in folder.others:
                if path.suffix.lower() in OTHER_SUFFIXES:
                    yield Reject(ascii(str(path)), OTHER_FORMAT, "save it as PNG or JPEG")
    yield from labels.missing()


def _refuse_table_above(source: Path, pictures: Sequence[str]) -> None:
    """Refuse pictures that are to be labeled by their names although a table beside the source names them.

    Raises:
        UserError: there is one.
    """
    above = source.resolve().parent
    for path in sorted(above.iterdir()) if pictures and os.access(above, os.R_OK) else []:
        if is_table(path.name) and path.is_file():
            with path.open("rb") as file:
                data = file.read(LOOKED_AT)
            if names_pictures(path.name, data, pictures):
                raise UserError(
                    f"{relative_paths(str(path))} names the pictures of {source}: give the folder of both as the "
                    "source, or take the table away if the file names are the labels"
                )


def _iter_picture(path: Path) -> Iterator[Item]:
    """A picture that is a source by itself: a table of its folder may have its label."""
    folder = list_folder(path.parent)
    yield from _iter_pictures(path.parent, [path], _find_labels(path.parent, [path], folder.others))


def _find_labels(source: Path, pictures: Sequence[Path], others: Sequence[Path]) -> PictureLabels:
    def read(path: str, most: int) -> bytes:
        try:
            with (source / path).open("rb") as file:
                return file.read(most)
        except OSError as error:
            raise UserError(f"{source / path} cannot be read ({error.strerror}): check its permissions") from None

    names = [path.relative_to(source).as_posix() for path in others if _is_utf8(path)]
    inside = [path.relative_to(source).as_posix() for path in pictures if _is_utf8(path)]
    return PictureLabels(inside, names, read, f"{source}/")


def _is_utf8(path: Path) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in str(path))  # surrogates stand for foreign bytes


def _iter_pictures(source: Path, paths: Sequence[Path], labels: PictureLabels) -> Iterator[Item]:
    for path in paths:
        if not _is_utf8(path):
            yield Reject(ascii(str(path)), "file name is not UTF-8", "rename it")
            continue
        name = path.relative_to(source)
        text = labels.take(name.as_posix())
        if isinstance(text, Reject):
            yield text
            continue
        try:
            image = path.read_bytes()
        except OSError as error:
            yield Reject(str(path), "unreadable image", error.strerror or str(error))
            continue
        split = PSEUDO if labels.is_pseudo(name.as_posix()) else split_of(name, source)
        yield Sample(image, text, str(path), split)
