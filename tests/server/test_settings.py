"""Flags over environment over file over defaults, and what each wrong one is told."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from lathe.errors import InvalidInput, NotFound
from lathe_server.settings import Settings, add_flags, load_settings, unknown_variables


def settings(tmp_path: Path, flags: str = "", file: str | None = None, **environment: str) -> Settings:
    arguments = flags.split()
    if file is not None:
        path = tmp_path / "lathe.toml"
        path.write_text(file)
        arguments += ["--config", str(path)]
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser)
    return load_settings(parser.parse_args(arguments), environment)


@pytest.mark.parametrize(
    ("flags", "environment", "file", "workers"),
    [
        ("", {}, None, 0),
        ("", {}, "workers = 2", 2),
        ("", {"LATHE_WORKERS": "3"}, "workers = 2", 3),
        ("--workers 4", {"LATHE_WORKERS": "3"}, "workers = 2", 4),
        ("--workers 0", {"LATHE_WORKERS": "3"}, "workers = 2", 0),
    ],
    ids=["default", "file", "environment over file", "flag over environment", "a flag of 0 is a flag"],
)
def test_the_nearer_source_wins(
    tmp_path: Path, flags: str, environment: dict[str, str], file: str | None, workers: int
) -> None:
    assert settings(tmp_path, flags, file, **environment).workers == workers


def test_sources_are_merged_key_by_key(tmp_path: Path) -> None:
    merged = settings(tmp_path, "--workers 1", 'currency = "EUR"\ndrain_seconds = 3', LATHE_LOAD_SECONDS="7")
    assert (merged.workers, merged.currency, merged.drain_seconds, merged.load_seconds) == (1, "EUR", 3.0, 7.0)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ('grpc = "127.0.0.1:1"\nworker = 2', 'lathe.toml, line 2: unknown key "worker"; did you mean "workers"?'),
        ("nonsense = 2", 'line 1: unknown key "nonsense"'),
        ('workers = "two"', 'line 1: "workers" must be a whole number'),
        ("workers = true", 'line 1: "workers" must be a whole number'),
        ("workers = 1.5", 'line 1: "workers" must be a whole number'),
        ("drain_seconds = 'long'", 'line 1: "drain_seconds" must be a number'),
        ("workers = -1", "workers must not be negative"),
        ("max_streams = 0", "max_streams must be above 0"),
        ("price_per_core_hour = nan", "price_per_core_hour must"),
        ("price_per_core_hour = inf", "price_per_core_hour must"),
        ("drain_seconds = nan", "drain_seconds must"),
        ("load_seconds = nan", "load_seconds must"),
        ('grpc = "8500"', "grpc must be HOST:PORT"),
        ('http = ":8500"', "http must be HOST:PORT"),
        ('control = "127.0.0.1:65536"', "control must be HOST:PORT"),
        ('control = "127.0.0.1:http"', "control must be HOST:PORT"),
        ("workers = ", "lathe.toml is not valid TOML"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_what_is_right(tmp_path: Path, file: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        settings(tmp_path, file=file)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "environment",
    [{"LATHE_WORKERS": "two"}, {"LATHE_WORKERS": ""}, {"LATHE_DRAIN_SECONDS": "-1"}, {"LATHE_LOAD_SECONDS": "nan"}],
    ids=str,
)
def test_a_variable_that_is_wrong_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        settings(tmp_path, **environment)


def test_a_flag_that_is_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(argparse.ArgumentError):
        settings(tmp_path, "--workers two")


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        settings(tmp_path, f"--config {tmp_path / 'missing.toml'}")


def test_variables_that_set_nothing_are_named_with_the_nearest_that_does() -> None:
    warnings = unknown_variables({"LATHE_WORKER": "1", "LATHE_WORKERS": "1", "LATHE_DATA": "x", "PATH": "y"})
    assert warnings == ['LATHE_WORKER sets nothing; did you mean "LATHE_WORKERS"?']


def test_the_control_port_is_not_public_by_default() -> None:
    assert Settings().control.startswith("127.0.0.1:")
