"""The promises that no single file makes: import order, quiet imports, pinned versions, the README's commands."""

from __future__ import annotations

import ast
import dataclasses
import email
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from captcha_reader import config

ROOT = Path(__file__).resolve().parent.parent

# The layers of docs/design.md, from the ground up. A file imports what stands in its own layer or below.
LAYERS = [
    "errors config cli files image_files images ctc text cluster progress",
    "transforms checkpoint training_settings optimization training_state transfer model_card",
    "generator dataset",
    "reading labeling",
    "plots",
    "strength",
    "web",
    "/model /data_loader",
    "/predict",
    "/accuracy_calculator /captcha_generator /make_dataset /visualize /export_model",
    "/initialization /trainer",
    "/finetune",
    "/label_errors /main",
    "/strength /interface",
]
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names.split()}
# A script that is loaded when a flag asks for it, and only then.
ASKED_FOR = {("accuracy_calculator", "label_errors")}
SCRIPTS = {
    "main": config.TrainConfig,
    "captcha_generator": config.GeneratorConfig,
    "make_dataset": config.DatasetConfig,
    "accuracy_calculator": config.EvaluateConfig,
    "predict": config.PredictConfig,
    "export_model": config.ExportConfig,
    "interface": config.InterfaceConfig,
    "strength": config.StrengthConfig,
}


def modules() -> dict[str, Path]:
    """The project's modules by their dotted names."""
    scripts = [path for path in ROOT.glob("*.py") if path.name != "setup.py"]
    paths = [*scripts, *(ROOT / "captcha_reader").rglob("*.py")]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return dict(zip(names, paths, strict=True))


def place(module: str) -> str:
    """`captcha_reader.web.api` -> `web`, the script `main` -> `/main`: the key of `LAYER`."""
    return module.split(".")[1] if module.startswith("captcha_reader.") else "/" + module


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """Modules of ours that a file imports, at its top or everywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found & modules().keys() - {"captcha_reader"}


def test_imports_point_one_way() -> None:
    files = modules().items() - {("captcha_reader", ROOT / "captcha_reader/__init__.py")}
    up = {(a, b) for a, path in files for b in imports(path) if LAYER[place(a)] < LAYER[place(b)]}
    assert up - ASKED_FOR == set()
    circles = TopologicalSorter({name: imports(path, everywhere=False) - {name} for name, path in files})
    circles.prepare()  # raises CycleError, which names them


def test_every_table_of_the_benchmarks_is_drawn_from_its_results() -> None:
    program = (
        "import json, run, results; "
        "[results.page_of(name) for name in run.SECTIONS]; "  # ends with what lacks its place
        "made = {results.MADE_BY.get(p.stem, p.stem) for p in results.RESULTS.glob('*.json')}; "
        "print(json.dumps([sorted(run.SECTIONS), sorted(made), "
        "[p.stem for p in results.RESULTS.glob('*.json') "
        "if results.render(results.load(p.stem)) != results.read_section(p.stem)], "
        "results.numbers() == results.read_section('numbers')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sections, measured, differing, readme_agrees = json.loads(done.stdout)
    assert set(measured) <= set(sections)
    assert differing == [] and readme_agrees, "python benchmarks/run.py --render"


def test_importing_runs_and_prints_nothing(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in files_of_the_project()}
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "\n".join(f"import {name}" for name in modules())
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert (result.stdout, result.stderr) == ("", "")
    assert not list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in before if path.exists()} == before


@pytest.mark.parametrize(
    "modules",
    [
        "captcha_reader.text,captcha_reader.images,captcha_reader.transforms,captcha_generator,data_loader,predict",
        "accuracy_calculator,visualize,captcha_reader.web.api,captcha_reader.web.jobs,interface",
    ],
)
def test_what_serves_needs_no_torch(modules: str) -> None:
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def files_of_the_project() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


REQUIREMENTS = tuple(f"requirements{part}.txt" for part in ("", "-serve", "-dev", "-scale"))


def test_requirements_are_pinned() -> None:
    for name in REQUIREMENTS:
        lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
        lines = [line for line in lines if line and not re.fullmatch(r"-r requirements(-scale|-serve)?.txt", line)]
        assert lines
        for line in lines:
            assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][0-9A-Za-z.]*", line), f"{name}: {line}"


def test_an_install_brings_what_the_requirement_files_pin(tmp_path: Path) -> None:
    """`pip install -e .` and its groups, by the metadata that setuptools writes for them."""
    pytest.importorskip("setuptools")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", *REQUIREMENTS):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    made = subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    about = email.message_from_string((tmp_path / "captcha_reader.egg-info" / "PKG-INFO").read_text())
    assert (about["Name"], about["Requires-Python"], about["License-Expression"]) == ("captcha-reader", ">=3.11", "MIT")
    groups: dict[str, set[str]] = {"": set()}
    for line in about.get_all("Requires-Dist", []):
        pin, _, group = line.partition("; extra == ")
        groups.setdefault(group.strip('"'), set()).add(pin)
    files = {"": "requirements.txt"} | {name: f"requirements-{name}.txt" for name in ("serve", "scale", "dev")}
    assert groups == {group: pins_of(file) for group, file in files.items()}
    assert groups["serve"] < groups[""] < groups["scale"] < groups["dev"]


def pins_of(name: str) -> set[str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    named = [pins_of(line.removeprefix("-r ")) for line in lines if line.startswith("-r ")]
    return {line for line in lines if line and not line.startswith("-r ")}.union(*named)


def test_pre_commit_runs_what_ci_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert all(
        repo["repo"] == "local" for repo in hooks
    )  # the environment's own versions, pinned in requirements-dev.txt
    entries = [hook["entry"].replace(" --force-exclude", "") for repo in hooks for hook in repo["hooks"]]
    text = (ROOT / ".ci" / "run").read_text().replace('"', "")
    assert entries == ["ruff check", "ruff format --check", "mypy"]
    assert all(f"/bin/{entry}" in text for entry in entries)


def test_requirements_name_what_is_imported() -> None:
    packages = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "jsonargparse", "sklearn": "scikit-learn"}
    packages |= {"docstring_parser": "jsonargparse", "efficientnet_pytorch": "efficientnet-pytorch"}
    packages |= {"skimage": "scikit-image"}
    listed = "".join((ROOT / name).read_text() for name in REQUIREMENTS[:2])
    pinned = set(re.findall(r"^([A-Za-z0-9_-]+)", listed, re.MULTILINE))
    brought = {
        "jinja2",
        "markupsafe",
        "fastapi",
        "starlette",
        "uvicorn",
        "h11",
        "pydantic",
        "huggingface_hub",
        "fsspec",
    }  # by gradio and datasets
    pinned.add("ray")  # in requirements-scale.txt: --engine ray alone needs it, and says so
    own = {name.split(".")[0] for name in modules()}
    for name, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                imported = [str(node.module)]
            for module in (m.split(".")[0] for m in imported):
                if module in sys.stdlib_module_names or module in own or module in brought:
                    continue
                assert packages.get(module, module) in pinned, f"{name} imports {module}"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    # Put together here, so that this file does not hold what it looks for.
    machine = ["/" + "work/", "/" + "root/", "/" + "home/", "pypi." + "org", "files.python" + "hosted"]
    for path in files_of_the_project():
        data = path.read_bytes()
        for word in machine:
            assert word.encode() not in data, f"{path.relative_to(ROOT)} holds {word}"


def test_what_is_large_or_ours_alone_is_ignored_by_git() -> None:
    names = {str(path.relative_to(ROOT)) for path in files_of_the_project()}
    assert {name for name in names if name.startswith("data/")} <= {"data/README.md"}
    assert {n for n in names if n.startswith("saved_models/")} <= {
        "saved_models/README.md",
        "saved_models/reader.safetensors",
        "saved_models/reader.onnx",
        "saved_models/efficientnet.safetensors",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".pt", ".pkl"))]


# --------------------------------------------------------------------------------------------------------------------
# README


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_opens_with_two_commands(readme: str) -> None:
    opening = readme.split("\n## ", 2)
    blocks = re.findall(r"```(?:bash|sh|console|shell)?\n(.*?)```", "\n## ".join(opening[:2]), re.DOTALL)
    commands = "\n".join(blocks)
    for part in ("python3.11 -m venv", "requirements.txt", "python main.py", "requirements-dev.txt", "pytest"):
        assert part in commands, part
    assert commands.index("requirements.txt") < commands.index("main.py") < commands.index("requirements-dev.txt")
    assert commands.index("requirements-dev.txt") < commands.index("pytest")


def test_the_readme_shows_a_picture_that_is_there(readme: str) -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)", readme) + re.findall(r'<img[^>]+src="([^"]+)"', readme)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file(), picture


def test_links_of_the_readme_lead_somewhere(readme: str) -> None:
    for link in re.findall(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)", readme):
        if "://" not in link and not link.startswith("#"):
            assert (ROOT / link.split("#")[0]).exists(), link


def test_documents_name_only_flags_that_exist() -> None:
    fields = {name: {f.name for f in dataclasses.fields(c)} | {"config", "help"} for name, c in SCRIPTS.items()}
    documents = [path for path in files_of_the_project() if path.suffix == ".md"]
    assert ROOT / "README.md" in documents
    found = 0
    for document in documents:
        for script, rest in re.findall(r"(\w+)\.py((?: [^\n`|#]*)?)", document.read_text(encoding="utf-8")):
            for flag in re.findall(r"(?<!\S)--([a-z_-]+)", rest) if script in fields else ():
                assert flag.replace("-", "_") in fields[script], f"{document.name}: {script}.py --{flag}"
                found += 1
    assert found >= 10


def test_benchmarks_run_scripts_with_flags_that_exist() -> None:
    own = set()
    used = {}
    for path in (ROOT / "benchmarks").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        own |= set(re.findall(r'add_argument\("--([a-z_]+)"', text))
        used[path.name] = set(re.findall(r"(?<![\w-])--([a-z_]+)\b", text))
    own |= {"no", "disable", "render", "b"}  # of Chromium, of run.py, and the boundary of a form
    known = own | {f.name for c in SCRIPTS.values() for f in dataclasses.fields(c)} | {"config"}
    assert {name: flags - known for name, flags in used.items() if flags - known} == {}


def test_ci_checks_style_then_runs_the_readme_s_tests_in_a_new_environment() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    places = [re.search(pattern, text) for pattern in ("-m venv", 'ruff"? check', 'ruff"? format --check', "README")]
    assert all(places), places
    assert places[0].start() < places[1].start() < places[2].start()


# --------------------------------------------------------------------------------------------------------------------
# Help


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_explains_every_setting(name: str, call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = call(__import__(name), "--help")
    assert code == 0, err
    words = " ".join(out.split())
    for field in dataclasses.fields(SCRIPTS[name]):
        assert f"--{field.name}" in words or re.search(rf"\b{field.name}\b", words), field.name
        said = docstrings(SCRIPTS[name])[field.name]
        assert " ".join(said.split()[:4]) in words, f"{field.name}: {said}"


def docstrings(config_class: type) -> dict[str, str]:
    """Field -> the string below it."""
    tree = ast.parse((ROOT / "captcha_reader" / "config.py").read_text(encoding="utf-8"))
    body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == config_class.__name__)
    return {
        field.target.id: ast.literal_eval(text.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def test_every_setting_is_explained() -> None:
    for config_class in SCRIPTS.values():
        assert docstrings(config_class).keys() == {field.name for field in dataclasses.fields(config_class)}


def test_a_real_process_answers_help() -> None:
    result = subprocess.run([sys.executable, str(ROOT / "predict.py"), "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "--checkpoint" in result.stdout


@pytest.mark.parametrize(("weights", "section"), [("reader", "unseen"), ("efficientnet", "efficientnet")])
def test_what_the_weights_say_of_themselves_stands_in_the_table(weights: str, section: str) -> None:
    """The Model tab shows these figures: two truths of one measurement would be one too many."""
    from safetensors import safe_open

    with safe_open(ROOT / "saved_models" / f"{weights}.safetensors", "np") as file:
        metrics = json.loads(file.metadata()["metrics"])
    text = (ROOT / "benchmarks/accuracy.md").read_text(encoding="utf-8")
    table = re.search(f"<!-- {section} -->(.*?)<!-- /{section} -->", text, re.DOTALL)
    assert table
    rows = [line.split(" | ")[1:5] for line in table[1].splitlines() if "%" in line and line.startswith("| ")]
    said = [
        [f"{m['n']:,}", *(f"{m[key]:.2%}" for key in ("sequence_accuracy", "sequence_accuracy_ignore_case", "cer"))]
        for m in metrics.values()
    ]
    assert [[cell.rstrip(" |") for cell in row] for row in rows] == said
