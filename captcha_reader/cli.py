"""The command line: settings from flags and YAML files, and errors in one sentence instead of a traceback."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import re
import sys
import types
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from captcha_reader.errors import FULL, UserError
from captcha_reader.files import printable, relative_paths

Config = TypeVar("Config")

# Old flag -> the flag that it is now. An old name works for one release, on the command line and in YAML files, in
# every script whose settings have the new one.
RENAMED = {
    "lean": "shear",
    "looks": "tta_views",
    "normalise": "normalize",
    "same_kind": "same_source",
    "share": "blend",
}
MAX_YAML_BYTES = 2**20


def parse_config(
    config_class: type[Config],
    description: str,
    argv: Sequence[str] | None = None,
    positional: str | None = None,
) -> Config:
    """Read the command line, and the YAML file named by `--config`, into `config_class`.

    Every dataclass field becomes a flag, explained by the docstring under the field. Flags override the YAML file if
    they stand after it, an unknown flag or key is an error (exit code 2). Dashes and underscores in flag names mean the
    same, and a switch may stand alone: `--resume` is `--resume true`. The value of a text setting is taken as it is
    typed, also where YAML would read it as something else (`#a`, `null`, `[old]`).

    Args:
        config_class: a dataclass of `config.py`.
        description: what the script does, shown by `--help`.
        argv: arguments without the program's name; `sys.argv[1:]` by default.
        positional: name of a `list[str]` field that takes the bare arguments, one or more.

    Returns:
        An instance of `config_class`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _parse(config_class, words, description, positional, _say_renamed)
    except UserError as error:
        print(f"error: {relative_paths(str(error))} (--help explains the settings)", file=sys.stderr)
        sys.exit(2)


def load_settings(config_class: type[Config], path: str | Path) -> Config:
    """The settings of a YAML file, as `--config` reads them.

    Raises:
        UserError: names the file, and the setting that cannot be used.
    """
    try:
        return _parse(config_class, [f"--config={path}"], "", None, lambda old, new: None)
    except UserError as error:
        text = str(error)
        raise UserError(text if str(path) in text else f"{path}: {text}") from None


def _say_renamed(old: str, new: str) -> None:
    print(f"note: --{old} is called --{new} now; the old name works until the next release", file=sys.stderr)


def _parse(
    config_class: type[Config],
    words: list[str],
    description: str,
    positional: str | None,
    renamed: Callable[[str, str], None],
) -> Config:
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    helping = any(word == "-h" or word.startswith("--h") for word in words)
    # The strings under the fields explain them; to read the sources for these takes longer than to parse the flags.
    set_parsing_settings(docstring_parse_attribute_docstrings=helping)
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", help="YAML file (UTF-8) with any of the settings below; later flags override it")
    if positional:
        parser.add_argument(
            positional, nargs="+", type=str, help=_field_help(config_class, positional) if helping else ""
        )
    parser.add_class_arguments(config_class, skip={positional} if positional else set())
    reader = _Words(config_class, positional, renamed)
    try:
        arguments = parser.parse_args(reader.expand(words))
    except ArgumentError as error:
        raise UserError(_in_one_sentence(str(error))) from None
    values = arguments.as_dict() | reader.texts
    names = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    return config_class(**{name: value for name, value in values.items() if name in names})


class _Words:
    """The words of a command line, sorted: text settings are taken here, jsonargparse takes the rest.

    jsonargparse reads the value of a setting that may also be None as YAML, so that `#a` would be nothing at all.

    Args:
        config_class: the settings.
        positional: see `parse_config`.
        renamed: is told the old and the new name where an old one is used.

    Attributes:
        texts: the text settings that `expand` has met.
    """

    def __init__(self, config_class: type, positional: str | None, renamed: Callable[[str, str], None]) -> None:
        self.types, self.positional, self.renamed = field_types(config_class), positional, renamed
        self.texts: dict[str, str | list[str] | None] = {}

    def expand(self, words: Sequence[str]) -> list[str]:
        """What is left for jsonargparse: flags joined to their values, `--config FILE` replaced by what it says."""
        left: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if not word.startswith("--") or word == "--":
                left.append(word)
                continue
            flag, equals, value = word.partition("=")
            name = self.name(flag[2:].replace("-", "_"))
            if name in self.types or name == "config":
                following = rest[0] if rest else "--"
                if not equals and self.types.get(name) is bool and following.lower() not in ("true", "false"):
                    value = "true"
                elif not equals and (following.startswith("--") or following == "-h"):
                    left.append(f"--{name}")  # it lacks its value, and jsonargparse says so
                    continue
                elif not equals:
                    value = rest.pop(0)
            if name == "config":
                left += self.from_file(Path(value))
            elif self._takes_text(name):
                texts = _json_texts(value) if list[str] in get_args(self.types[name]) else None
                self.texts[name] = texts or value
            else:
                left.append(f"--{name}={value}" if equals or name in self.types else f"--{name}")
        return left

    def name(self, name: str) -> str:
        """A setting's name now; `renamed` is told of an old one."""
        new = RENAMED.get(name)
        if new is None or new not in self.types or name in self.types:
            return name
        self.renamed(name, new)
        return new

    def _takes_text(self, name: str) -> bool:
        kind = self.types.get(name)
        return kind is str or str in get_args(kind)

    def from_file(self, path: Path) -> list[str]:
        """As `expand`, for the settings of a YAML file."""
        left: list[str] = []
        for written, node in read_yaml(path):
            name = self.name(written.replace("-", "_"))
            if name not in self.types:
                raise UserError(
                    f"{path} has the setting {written}, which there is none of: correct or remove that line"
                )
            text_wanted = self._takes_text(name) or name == self.positional
            if isinstance(node.value, str):
                value = _scalar(name, node, text_wanted, path)
                if value is None and type(None) not in get_args(self.types[name]):
                    raise UserError(f"{path}: {name} has no value: give it one or remove that line")
                items: list[str] | str | None = value
            elif node.id == "sequence" and all(isinstance(item.value, str) for item in node.value):
                items = [_scalar(name, item, text_wanted, path) or "" for item in node.value]
            else:
                raise UserError(f"{path}: {name} must be one value or a list of values")
            if name == self.positional:
                left += [items] if isinstance(items, str) else items or []
            elif not text_wanted:
                left.append(
                    f"--{name}={'null' if items is None else items if isinstance(items, str) else _listed(items)}"
                )
            elif isinstance(items, list) and list[str] not in get_args(self.types[name]):
                raise UserError(f"{path}: {name} must be one value, not a list")
            else:
                self.texts[name] = items
        return left


def _listed(items: Sequence[str]) -> str:
    return f"[{','.join(items)}]"


def _scalar(name: str, node: Any, text_wanted: bool, path: Path) -> str | None:
    """A YAML scalar as text, None for null."""
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool" and not text_wanted:
        return "true" if node.value.lower() in ("true", "yes", "on") else "false"
    if text_wanted and kind != "str":
        what = {"bool": "true or false", "timestamp": "a date"}.get(kind, "a number")
        raise UserError(f'{path}: YAML takes {name}: {node.value} for {what}: put it into quotes, "{node.value}"')
    return str(node.value)


def _json_texts(value: str) -> list[str] | None:
    """The texts of a JSON list, `["a", "b"]`; None for anything else, `[old]` for instance."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(value)
        if isinstance(found, list) and found and all(isinstance(item, str) for item in found):
            return found
    return None


def field_types(config_class: type) -> dict[str, Any]:
    """Setting -> its type, `X | None` as a union."""
    hints = get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class)}


@cache
def _yaml_loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        """Without aliases, by which a file of a few lines stands for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias (*name), which settings do not need")
            return super().compose_node(parent, index)

    return Loader


def read_yaml(path: Path) -> list[tuple[str, Any]]:
    """The top level of a YAML file: keys and nodes. The file is UTF-8, whatever the system's encoding is.

    Raises:
        UserError: it cannot be read, is larger than 1 MB, is no mapping, has aliases or a key twice.
    """
    import yaml

    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise UserError(f"{path} is too large for a file of settings: name another --config")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name another --config") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not written in UTF-8: save it in that encoding") from None
    try:
        root = yaml.compose(text, Loader=_yaml_loader())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"error while parsing {path}: {' '.join(str(error).split())}") from None
    if root is None:
        return []
    if root.id != "mapping" or any(not isinstance(key.value, str) for key, _ in root.value):
        raise UserError(f"{path} holds no settings: write one 'name: value' a line")
    pairs = [(key.value, value) for key, value in root.value]
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} has the setting {twice} twice: remove one of the lines")
    return pairs


def _in_one_sentence(complaint: str) -> str:
    """What jsonargparse says of a setting over several lines."""
    key, choices = re.match(r'Parser key "(\w+)"', complaint), re.search(r"typing\.Literal\[(.+?)\]", complaint)
    value = re.search(r"(?:Given|Got) value: (.*)", complaint)
    if not key or not value:
        return " ".join(complaint.removeprefix('Parser key "config": ').split())
    return f"--{key[1]} cannot be {value[1]}" + (f": choose from {choices[1]}" if choices else "")


def _field_help(config_class: type, name: str) -> str:
    from docstring_parser import parse_from_object

    return next((p.description or "" for p in parse_from_object(config_class).params if p.arg_name == name), "")


def quiet_interrupt() -> None:
    """Let Ctrl-C end the program without a traceback, for the seconds in which a script imports its libraries."""
    shown = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
        else:
            shown(kind, error, trace)

    sys.excepthook = show


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave the process with its exit code.

    A `UserError`, a full disk or a file out of reach is printed as one sentence (exit code 1), Ctrl-C ends with exit
    code 130; none shows a traceback. Characters that the output's encoding lacks (on Windows a pipe has that of the
    country) are spelled out: `\\u2192`.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stream that a test or a notebook has put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {relative_paths(str(error))}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output, `head` for instance, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno in FULL:
            reason = f"there is no room to write ({error}): make room and run it again"
        elif error.filename and error.strerror:
            reason = f"{printable(error.filename)} cannot be read or written ({error.strerror}): check the place"
        else:
            raise
        print(f"error: {relative_paths(reason)}", file=sys.stderr)
        code = 1
    gc.freeze()  # else the interpreter searches all that was imported for cycles once more before it goes: 60 ms
    sys.exit(code or 0)
