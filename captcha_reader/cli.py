"""The command line: settings from flags and YAML files, and errors in one sentence instead of a traceback."""

from __future__ import annotations

import dataclasses
import gc
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from captcha_reader.errors import FULL, UserError
from captcha_reader.files import printable

Config = TypeVar("Config")


def parse_config(
    config_class: type[Config],
    description: str,
    argv: Sequence[str] | None = None,
    positional: str | None = None,
) -> Config:
    """Read the command line, and the YAML file named by `--config`, into `config_class`.

    Every dataclass field becomes a flag, explained by the docstring under the field. Flags override the YAML file,
    an unknown flag or key is an error (exit code 2). Dashes and underscores in flag names mean the same, and a switch
    may stand alone: `--resume` is `--resume true`.

    Args:
        config_class: a dataclass of `config.py`.
        description: what the script does, shown by `--help`.
        argv: arguments without the program's name; `sys.argv[1:]` by default.
        positional: name of a `list[str]` field that takes the bare arguments, one or more.

    Returns:
        An instance of `config_class`.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    words = list(sys.argv[1:] if argv is None else argv)
    helping = any(word == "-h" or word.startswith("--h") for word in words)
    # The strings under the fields explain them; to read the sources for these takes longer than to parse the flags.
    set_parsing_settings(docstring_parse_attribute_docstrings=helping)
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below; flags override it")
    if positional:
        parser.add_argument(
            positional, nargs="+", type=str, help=_field_help(config_class, positional) if helping else ""
        )
    parser.add_class_arguments(config_class, skip={positional} if positional else set())
    switches = {f"--{field.name}" for field in dataclasses.fields(config_class) if field.type in ("bool", bool)}
    try:
        arguments = parser.parse_args(_normalised(words, switches))
    except ArgumentError as error:
        print(f"error: {_in_one_sentence(str(error))} (--help explains the settings)", file=sys.stderr)
        sys.exit(2)
    values = arguments.as_dict()
    names = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{name: value for name, value in values.items() if name in names})


def _normalised(argv: Sequence[str], switches: set[str]) -> list[str]:
    """Dashes in flag names to underscores, and a bare switch to `switch=true`, which jsonargparse asks for."""
    normalised = []
    for argument, following in pairwise([*argv, "--"]):
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
        bare = flag in switches and not equals and following.lower() not in ("true", "false")
        normalised.append(f"{flag}=true" if bare else flag + equals + value)
    return normalised


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


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave the process with its exit code.

    A `UserError`, a full disk or a file out of reach is printed as one sentence (exit code 1), Ctrl-C ends with exit
    code 130; none shows a traceback.
    """
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output, `head` for instance, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno in FULL:
            print(f"error: there is no room to write ({error}): make room and run it again", file=sys.stderr)
        elif error.filename and error.strerror:
            where = printable(error.filename)
            print(f"error: {where} cannot be read or written ({error.strerror}): check the place", file=sys.stderr)
        else:
            raise
        code = 1
    gc.freeze()  # else the interpreter searches all that was imported for cycles once more before it goes: 60 ms
    sys.exit(code or 0)
