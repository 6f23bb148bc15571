"""The command line: settings from flags and files, messages, locks."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from captcha_reader import cli, files
from captcha_reader.cli import load_settings, parse_config
from captcha_reader.config import DatasetConfig, EvaluateConfig, PredictConfig, TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.files import locked_output, process_runs, relative_paths, to_json, write_atomically, write_json

ROOT = Path(cli.__file__).resolve().parent.parent
ODD = [
    "#nosuch.onnx",
    "&a",
    "null",
    "~",
    "[old]",
    "{a}",
    "'q'",
    '"q"',
    "1e5",
    "0012",
    "true",
    "- x",
    "a: b",
    "",
    "*x",
    "!t",
]


@pytest.mark.parametrize("typed", ODD)
@pytest.mark.parametrize("joined", [True, False])
def test_text_stays_as_it_is_typed(typed: str, joined: bool) -> None:
    def flags(name: str) -> list[str]:
        return [f"--{name}={typed}"] if joined else [f"--{name}", typed]

    train = parse_config(TrainConfig, "", [w for n in ("data", "out", "init", "alphabet", "teacher") for w in flags(n)])
    assert (train.data, train.out, train.init, train.alphabet, train.teacher) == (typed,) * 5
    predict = parse_config(PredictConfig, "", ["a.png", *flags("checkpoint")], positional="images")
    assert predict.checkpoint == typed


def test_pictures_may_have_any_name() -> None:
    names = ["#a.png", "null", "~", "[old]", "&b"]
    assert parse_config(PredictConfig, "", names, positional="images").images == names


def test_several_sources_are_a_json_list() -> None:
    assert parse_config(TrainConfig, "", ["--data", '["a b", "#c"]']).data == ["a b", "#c"]
    assert parse_config(TrainConfig, "", ["--data", "[1]"]).data == "[1]"


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "settings.yaml"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alphabet: 01234567", '"01234567"'),
        ("data: 0123", '"0123"'),
        ("data: [a, 0123]", '"0123"'),
        ("out: 2024-01-02", "a date"),
        ("alphabet: true", "into quotes"),
        ("epochs: 1\nepochs: 2", "twice"),
        ("a: &x [1]\nb: *x", "alias"),
        ("- 1", "holds no settings"),
        ("epochs: {a: 1}", "one value or a list"),
        ("init: ", "no value"),
        ("out: [a]", "not a list"),
        ("epochz: 1", "epochz"),
        ("epochs: [", "parsing"),
        ("a: " + "[" * 3000, "parsing"),
    ],
)
def test_a_settings_file_that_misleads_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_settings(TrainConfig, path)
    assert said in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(UserError, match="alias"):
        load_settings(TrainConfig, written(tmp_path, "\n".join(lines)))
    with pytest.raises(UserError, match="too large"):
        load_settings(TrainConfig, written(tmp_path, "#" * 2**21))


def test_a_settings_file_is_utf8_in_any_locale(tmp_path: Path) -> None:
    path = written(tmp_path, "alphabet: 'абв→'\ndata: [données, null]\nepochs: null\nlearning_rate: 1e-3\ncpu: yes")
    program = (
        "from captcha_reader.cli import load_settings; from captcha_reader.config import TrainConfig\n"
        f"c = load_settings(TrainConfig, {str(path)!r}); print(ascii([c.alphabet, c.data, c.learning_rate, c.cpu]))"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == ascii(["абв→", ["données", ""], 0.001, True]), done.stderr
    with pytest.raises(UserError, match="UTF-8"):
        load_settings(TrainConfig, written(tmp_path, "alphabet: 'абв'", "cp1251"))


def test_the_sources_of_a_dataset_may_stand_in_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, "sources: ['#a', b]\nout: c")
    config = parse_config(DatasetConfig, "", ["--config", str(path)], positional="sources")
    assert (config.sources, config.out) == (["#a", "b"], "c")


@dataclass
class _Renamed:
    tta_views: int = 8
    """Views."""
    blend: float | None = None
    """Blend."""


def test_an_old_name_works_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "share: 0.5")
    config = parse_config(_Renamed, "", ["--looks", "3", "--config", str(path)])
    assert config == _Renamed(3, 0.5)
    assert capsys.readouterr().err.splitlines() == [
        "note: --looks is called --tta_views now; the old name works until the next release",
        "note: --share is called --blend now; the old name works until the next release",
    ]
    assert load_settings(_Renamed, path).blend == 0.5, "a run that was begun before"
    assert capsys.readouterr().err == ""


def test_no_character_ends_a_script(tmp_path: Path) -> None:
    program = (
        "from captcha_reader import cli\nfrom captcha_reader.errors import UserError\n"
        "def main():\n    print('aB\\u2192\\u2205', '\\ud800')\n    raise UserError('\\u4e2d')\ncli.run(main)"
    )
    for encoding in ("ascii", "cp1252", "gbk"):
        environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr and done.stderr.startswith(b"error: ")
        assert done.stdout.startswith(b"aB")


def test_messages_name_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = f"{tmp_path / 'run' / 'a.png'} and {ROOT / 'saved_models' / 'b.onnx'} and /elsewhere/c"
    assert relative_paths(said) == "run/a.png and saved_models/b.onnx and /elsewhere/c"


def test_json_has_no_nan(tmp_path: Path) -> None:
    values = {"a": [float("nan"), 1.5, (float("inf"),)], "b": {"c": float("-inf")}, "p": Path("x")}
    assert json.loads(to_json(values)) == {"a": [None, 1.5, [None]], "b": {"c": None}, "p": "x"}
    assert json.loads(write_json(tmp_path / "v.json", values).read_text())["b"] == {"c": None}


@pytest.mark.skipif(os.name == "nt", reason="files are not locked there")
def test_one_process_writes_an_output(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    holder = (
        "import sys; from captcha_reader.files import locked_output\n"
        f"with locked_output({str(out)!r}): print('locked', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process"), locked_output(out):
            pass
        process.kill()
    with locked_output(out), pytest.raises(UserError, match="another process"), locked_output(out):
        pass
    assert list(out.parent.iterdir()) == [], "no lock is left"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), locked_output(tmp_path / "file" / "run"):
        pass


def test_a_missing_value_is_named(call: Callable) -> None:
    for flags in (["--checkpoint"], ["--checkpoint", "--limit", "3"]):
        with pytest.raises(SystemExit) as end:
            parse_config(EvaluateConfig, "", flags)
        assert end.value.code == 2


# --------------------------------------------------------------------------------------------------------------------
# Every script, as a process of its own

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py") if "\n    run(main)\n" in path.read_text(encoding="utf-8"))


def test_every_script_ends_through_run() -> None:
    assert {"main.py", "predict.py", "accuracy_calculator.py", "export_model.py", "interface.py"} <= set(SCRIPTS)
    started = {p.name for p in ROOT.glob("*.py") if '__name__ == "__main__"' in p.read_text(encoding="utf-8")}
    assert started - {"setup.py"} == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_during_the_imports_shows_no_traceback(script: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name in ('numpy', 'pyarrow', 'PIL', 'torch', 'gradio', 'anyio'):\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, ROOT / script], capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert done.stderr == "interrupted\n"


def test_every_help_is_written_to_an_output_of_ascii() -> None:
    """As a pipe on Windows, which has not the characters that they print; `security/test_privacy.py` runs the rest."""
    program = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "for script in sys.argv[1:]:\n"
        "    sys.argv = [script, '--help']\n"
        "    try:\n"
        f"        runpy.run_path({str(ROOT)!r} + '/' + script, run_name='__main__')\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, script\n"
        "    print('END OF', script)\n"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program, *SCRIPTS], capture_output=True, env=environment)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    texts = re.split(r"END OF .*\n", done.stdout.decode("ascii"))
    assert len(texts) == len(SCRIPTS) + 1 and all(len(text) > 300 for text in texts[:-1])


# --------------------------------------------------------------------------------------------------------------------
# How a script ends


def script(action: Callable[[], int | None]) -> SimpleNamespace:
    """A module with such a `main`, for the fixture `call`."""
    return SimpleNamespace(main=action)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "out/a"), "there is no room to write ("),
        (OSError(122, "Disk quota exceeded"), "make room and run it again"),
        (PermissionError(13, "Permission denied", str(Path.cwd() / "a.csv")), "a.csv cannot be read or written (Perm"),
        (UserError(f"{Path.cwd() / 'a.csv'} is empty: fill it"), "a.csv is empty: fill it"),
    ],
)
def test_what_stops_a_script_is_one_sentence(call: Callable, error: Exception, words: str) -> None:
    def main() -> None:
        raise error

    code, out, err = call(script(main))
    assert code == 1 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert words in err and str(Path.cwd()) not in err


def test_an_error_of_the_program_itself_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise OSError("unknown")

    with pytest.raises(OSError, match="unknown"):
        cli.run(main)


def test_a_reader_of_the_output_that_is_gone_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise BrokenPipeError

    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as end:
            cli.run(main)
        print("what is still to be flushed", file=out, flush=True)
    assert end.value.code == 0 and (tmp_path / "out").read_text() == "" and capsys.readouterr().err == ""


def test_only_ctrl_c_is_quiet_while_a_script_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: shown.append(kind))
    cli.quiet_interrupt()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "interrupted\n" and shown == []
    sys.excepthook(ImportError, ImportError("no torch"), None)
    assert shown == [ImportError]


def test_an_empty_settings_file_sets_nothing(tmp_path: Path) -> None:
    assert load_settings(TrainConfig, written(tmp_path, "# nothing yet\n")) == TrainConfig()


# --------------------------------------------------------------------------------------------------------------------
# Files


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail(number: int) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            path.write_text("half")
            raise OSError(number, os.strerror(number))

        return write

    with pytest.raises(UserError, match=r"a\.json cannot be written \(Permission denied\): choose another place"):
        write_atomically(target, fail(errno.EACCES))
    with pytest.raises(OSError, match="No space left") as full:
        write_atomically(target, fail(errno.ENOSPC))
    assert full.value.filename == str(target), "which file it was"
    assert target.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_process_of_another_user_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    assert process_runs(os.getpid()) and not process_runs(2**70)
    monkeypatch.setattr(os, "kill", kill)
    assert process_runs(1)


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really, removed = files.lock_file, []

    def lock(file: Any, wait: bool = False) -> bool:
        taken = really(file, wait)
        if not removed:  # the process that held it before removes its file
            removed.append(Path(file.name))
            removed[0].unlink()
        return taken

    monkeypatch.setattr(files, "lock_file", lock)
    with locked_output(tmp_path / "out"):
        assert removed[0].exists(), "a file that others see"
        with pytest.raises(UserError, match="is being written by another process"), locked_output(tmp_path / "out"):
            pass
    assert not removed[0].exists()
