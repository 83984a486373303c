"""Runs of small recipes, and what they leave."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe_compression.arithmetic import arithmetic
from lathe_compression.compress import compress
from lathe_compression.pictures import file_digest
from lathe_compression.plan import Task, plan
from lathe_compression.recipe import load_recipe
from lathe_compression.workshop import Workshop

PRUNE = "{ prune = { keep = 0.7, rounds = 1, probe = 4 } }"
DISTILL = "{ distill = { pictures = 8 } }"
STUDENT = "{ distill = { student = { width = 0.5 }, pictures = 16 } }"
QAT = '{ quantize = { method = "qat", pictures = 8 } }'


def run(folder: Path, *only: str, output: StringIO | None = None) -> list[VariantRef]:
    progress = Progress(Console(file=output or StringIO(), width=500))
    return compress(load_recipe(folder / "spots.toml"), folder / "models", progress, only=only)


def files(folder: Path) -> dict[str, str]:
    """Digests of all files in a folder, by path."""
    return {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def models(folder: Path) -> dict[str, str]:
    """Digests of the newest models by variant."""
    repository = Repository(folder / "models")
    names = [path.name for path in (folder / "models/spots").iterdir() if path.is_dir()]
    return {name: repository.card(repository.newest("spots", name)).sha256 for name in names}


def events(folder: Path) -> list[dict[str, Any]]:
    """Of the newest run's record."""
    newest = max((folder / "cache/runs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in newest.read_text().splitlines()]


def workshop(folder: Path) -> Workshop:
    return Workshop(load_recipe(folder / "spots.toml"), folder / "cache", Progress(Console(file=StringIO())))


def chain(folder: Path, variant: str) -> list[Task]:
    shop = workshop(folder)
    end = plan(shop.recipe, shop.inputs)[variant]
    return end.chain if end else []


def latency_by_macs(model: onnx.ModelProto, reference: onnx.ModelProto, size_wh: tuple[int, int]) -> float:
    """In the place of a measurement: a network takes the square root of its multiply-accumulates."""
    macs = [arithmetic(one, size_wh).macs for one in (model, reference)]
    return float((macs[0] / macs[1]) ** 0.5)
