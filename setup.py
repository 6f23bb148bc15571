"""What pyproject.toml cannot say: the dependencies, which the requirement files hold, and the list of scripts."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The pins of a requirements file, those of the files that it names included."""
    found = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found += requirements(line.removeprefix("-r "))
        elif line:
            found.append(line)
    return found


if __name__ == "__main__":
    setup(
        py_modules=sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "setup"),
        install_requires=requirements("requirements.txt"),
        extras_require={name: requirements(f"requirements-{name}.txt") for name in ("serve", "scale", "dev")},
    )
