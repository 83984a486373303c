"""The demo clears its own folders and nobody else's."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lathe.demo.workspace import fresh_folder, orderly_end, passing_folder
from lathe.errors import InvalidInput


def test_an_earlier_run_is_removed(tmp_path: Path) -> None:
    folder = fresh_folder(tmp_path / "models")
    (folder / "old").touch()
    assert fresh_folder(folder) == folder
    assert not (folder / "old").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "models" / "face"
    precious.mkdir(parents=True)
    with pytest.raises(InvalidInput, match="is not the demo's"):
        fresh_folder(tmp_path / "models")
    assert precious.is_dir()


def test_what_passes_is_gone_though_something_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with passing_folder(tmp_path / "gallery") as folder:
            (folder / "people").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not (tmp_path / "gallery").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_clears_away(number: signal.Signals, tmp_path: Path) -> None:
    def be_ended() -> None:
        with orderly_end(), passing_folder(tmp_path / "gallery"):
            signal.raise_signal(number)

    def survive(*_: object) -> None:
        pass

    before = signal.signal(number, survive)
    try:
        with pytest.raises(KeyboardInterrupt):
            be_ended()
        assert not (tmp_path / "gallery").exists()
        assert signal.getsignal(number) == survive
    finally:
        signal.signal(number, before)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with orderly_end():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
