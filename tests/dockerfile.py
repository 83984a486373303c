"""A Dockerfile read as instructions, and its build carried out in a folder where there is no container."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """What stands between one FROM and the next.

    Attributes:
        instructions: word and value, in order; continued lines are joined, comments gone.
    """

    base: str
    instructions: tuple[tuple[str, str], ...]

    def values(self, word: str) -> list[str]:
        return [value for name, value in self.instructions if name == word]

    def value(self, word: str) -> str:
        """The value of an instruction that the stage has once."""
        (value,) = self.values(word)
        return value

    def words(self, word: str) -> list[str]:
        """The value of an instruction in exec form, which runs without a shell."""
        words: list[str] = json.loads(self.value(word))
        return words

    def health_check(self) -> list[str]:
        """The command of HEALTHCHECK, which stands behind its options."""
        words: list[str] = json.loads(self.value("HEALTHCHECK").partition("CMD ")[2])
        return words


def read_stages(path: Path) -> list[Stage]:
    """The stages of a Dockerfile, the image last."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    stages: list[tuple[str, list[tuple[str, str]]]] = []
    for line in filter(str.strip, lines):
        word, _, value = line.partition(" ")
        if word == "FROM":
            stages.append((value.split()[0], []))
        else:
            stages[-1][1].append((word, value.strip()))
    return [Stage(base, tuple(instructions)) for base, instructions in stages]


@dataclass(frozen=True)
class Installed:
    """An image's files below a folder: `/opt/x` of the image is `<root>/opt/x`."""

    root: Path
    image: Stage

    def moved(self, text: str) -> str:
        """Text of the Dockerfile with its absolute paths led into the folder."""
        return re.sub(r"(?<![^\s=:])/(?=[a-z])", f"{self.root}/", text)

    def environment(self) -> dict[str, str]:
        """What a process of the image sees: nothing of the tests' own Python or settings."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LATHE_", "PYTHON"))}
        for name, value in pairs(self.image.value("ENV")):
            inherited[name] = self.moved(value).replace(f"${name}", inherited.get(name, ""))
        return inherited

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment(), cwd=self.root, capture_output=True, text=True, timeout=timeout, check=False
        )


def carry_out(path: Path, root: Path) -> Installed:
    """Does what the first stage says below `root`: its folders, its copies and its own commands.

    Left out is ENV: there it only quiets pip and keeps its cache out of a layer.
    """
    build, image = read_stages(path)
    installed = Installed(root, image)
    python = python_like(build.base)
    environment = installed.environment() | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    folder = root
    for word, value in build.instructions:
        if word == "WORKDIR":
            folder = Path(installed.moved(value))
            folder.mkdir(parents=True)
        elif word == "COPY":
            copy(value, path.parent, folder)
        elif word == "ARG":
            environment |= dict(pairs(value))
        elif word == "RUN":
            subprocess.run(["sh", "-ec", installed.moved(value)], cwd=folder, env=environment, check=True)
        else:
            assert word == "ENV", f"{word} is not known here"
    return installed


def pairs(value: str) -> list[tuple[str, str]]:
    """Of `NAME=VALUE NAME=VALUE`."""
    return [(name, text) for name, _, text in (pair.partition("=") for pair in value.split())]


def copy(value: str, context: Path, folder: Path) -> None:
    """What `COPY value` does, less what .dockerignore keeps back."""
    *sources, target = value.split()
    for source in sources:
        if (context / source).is_dir():
            kept_back = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(context / source, folder / target, ignore=kept_back)
        else:
            shutil.copy(context / source, folder / target)


def python_like(base: str) -> Path:
    """The image's version of Python where this machine has it, else the one that runs the tests."""
    return next(_pythons(base), Path(sys.executable))


def _pythons(base: str) -> Iterator[Path]:
    version = ".".join(base.partition(":")[2].partition("-")[0].split(".")[:2])
    found = shutil.which(f"python{version}")
    if found and subprocess.run([found, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        path = Path(found)
        if (path.parent / "python").exists():
            yield path
