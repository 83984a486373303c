"""What make keeps of trainings: nothing is removed before all of it is there, and no two recipes share a folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from tests.conftest import ROOT


def make(folder: Path, *words: str, rules: str = "") -> subprocess.CompletedProcess[str]:
    """By the repository's Makefile, in a folder of its own."""
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "try.mk").write_text(f"include Makefile\n{rules}", "utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "-f", "try.mk", *words]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def version(folder: Path, name: str) -> Path:
    path = folder / name / "card.json"
    path.parent.mkdir(parents=True)
    path.write_text(name, "utf-8")
    return path


KEEP = "kept:\n\t$(call keep,made,face,a b)\n"


def test_the_newest_versions_take_the_place_of_those_before(tmp_path: Path) -> None:
    for name in ("made/face/a/9", "made/face/a/10", "made/face/b/1", "models/face/a/3", "models/face/c/1"):
        version(tmp_path, name)
    assert make(tmp_path, "kept", rules=KEEP).returncode == 0
    kept = {path.read_text("utf-8") for path in (tmp_path / "models").rglob("card.json")}
    assert kept == {"made/face/a/10", "made/face/b/1", "models/face/c/1"}


def test_nothing_is_removed_where_one_is_missing(tmp_path: Path) -> None:
    version(tmp_path, "made/face/a/1")
    (tmp_path / "made/face/b").mkdir()
    old = version(tmp_path, "models/face/a/3")
    done = make(tmp_path, "kept", rules=KEEP)
    assert done.returncode
    assert "made/face has no b" in done.stdout
    assert old.read_text("utf-8") == "models/face/a/3"


def test_each_recipe_publishes_into_a_repository_of_its_own(tmp_path: Path) -> None:
    """In a common one each run would publish its fp32 anew, after that of the other."""
    done = make(tmp_path, "-n", "-o", ".venv/.installed", "results", "results-embed", "LATHE_DATA=data")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"lathe compress (\S+)(?:.*\\\n)?.* --repository (\S+)", done.stdout)
    assert len(found) == 3
    assert set(Counter(repository for _, repository in found).values()) == {1}
