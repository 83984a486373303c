"""The folder as others leave it: half-copied, linked, misnamed, crowded, written by two at once."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from pathlib import Path

import pytest

from lathe.errors import BadVariant, Conflict, NotFound, Refused
from lathe.repository import Repository, VariantRef
from lathe.v1 import control_pb2
from lathe_server.loading import load_servable
from tests.conftest import start_server
from tests.models import bright_spots, card_for

A = VariantRef("spots", "a", 1)


@pytest.mark.fault(44)
def test_a_folder_without_its_card_is_not_seen(repository: Repository) -> None:
    half = repository.root / "spots/a/2"
    half.mkdir()
    (half / "model.onnx").write_bytes(bright_spots()[:100])
    (repository.root / ".staging-left-behind").mkdir()
    assert repository.newest("spots", "a") == A
    assert repository.models() == ["spots"]
    assert repository.publish(card_for("spots", "a"), bright_spots()) == VariantRef("spots", "a", 3)


@pytest.mark.fault(44, 47)
def test_a_publication_that_fails_leaves_nothing_behind(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(repository.root.rglob("*"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        repository.publish(card_for("spots", "a"), bright_spots())
    with pytest.raises(Refused, match="cannot be written"):
        repository.add_route(control_pb2.Route(model="spots", revision=1))
    assert [path for path in sorted(repository.root.rglob("*")) if path.name != "routes"] == before
    assert repository.route("spots") is None


@pytest.mark.fault(45)
def test_a_version_that_is_deleted_serves_on_and_is_refused_when_it_is_to_be_loaded(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    with start_server(repository.root, tmp_path / "server.log") as server, server.client() as client:
        for file in ("model.onnx", "card.json"):
            (repository.folder(A) / file).unlink()
        assert client.detect("spots", spot_jpeg).variant == "a"
        assert [status.card.variant for status in client.variants()] == ["b"]
        assert client.set_route("spots", {"b": 1}).revision == 1
        assert client.detect("spots", spot_jpeg).variant == "b"
    with pytest.raises(NotFound):
        load_servable(repository, A, max_pixels=10**7, max_model_bytes=10**8)


@pytest.mark.fault(32, 46)
@pytest.mark.parametrize("what", ["version folder", "model file", "card", "variant folder"])
def test_a_link_out_of_the_repository_is_refused(repository: Repository, tmp_path: Path, what: str) -> None:
    inside = {
        "version folder": repository.folder(A),
        "variant folder": repository.folder(A).parent,
        "model file": repository.folder(A) / "model.onnx",
        "card": repository.folder(A) / "card.json",
    }[what]
    outside = tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(BadVariant):
        load_servable(repository, A, max_pixels=10**7, max_model_bytes=10**8)


@pytest.mark.fault(32)
@pytest.mark.parametrize("name", ["model.onnx", "card.json"])
def test_a_pipe_or_a_device_is_not_waited_for(repository: Repository, name: str) -> None:
    path = repository.folder(A) / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadVariant):
        load_servable(repository, A, max_pixels=10**7, max_model_bytes=10**8)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(BadVariant):
        load_servable(repository, A, max_pixels=10**7, max_model_bytes=10**8)


@pytest.mark.fault(46)
def test_folders_whose_names_are_none_are_not_seen(repository: Repository) -> None:
    for name in (b"Spots", b"x" * 255, b"\xff\xfe", b"-x", b"a b", b"new\nline", b".hidden"):
        (Path(os.fsdecode(os.fsencode(repository.root) + b"/" + name)) / "v/1").mkdir(parents=True)
    for number in ("0", "01", "-1", "1.5", "٣", "20260101120000", "latest"):
        (repository.root / "spots/a" / number).mkdir()
    assert repository.models() == ["spots"]
    assert repository.versions("spots", "a") == [1]
    assert repository.publish(card_for("spots", "a"), bright_spots()).version == 2


@pytest.mark.fault(51)
def test_versions_order_by_number_whatever_their_times_say(repository: Repository) -> None:
    for _ in range(10):
        newest = repository.publish(card_for("spots", "a"), bright_spots())
    os.utime(repository.folder(A), (2**31, 2**31))
    os.utime(repository.folder(newest), (0, 0))
    assert repository.newest("spots", "a") == newest == VariantRef("spots", "a", 11)


@pytest.mark.fault(49)
def test_ten_thousand_versions_do_not_slow_the_start(repository: Repository, tmp_path: Path) -> None:
    for number in range(2, 10_001):
        (repository.root / "spots/a" / str(number)).mkdir()
    repository.folder(A).rename(repository.root / "spots/a/99999")
    card = (repository.root / "spots/a/99999/card.json").read_text()
    (repository.root / "spots/a/99999/card.json").write_text(card.replace('"version": 1', '"version": 99999'))
    began = time.perf_counter()
    repository.newest_cards("spots")
    assert time.perf_counter() - began < 1
    with start_server(repository.root, tmp_path / "server.log") as server, server.client() as client:
        assert client.route("spots").weights[0].version == 99999


@pytest.mark.fault(50)
def test_of_many_writers_of_a_revision_one_wins_whole(repository: Repository) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def write(author: str) -> None:
        route = control_pb2.Route(model="spots", revision=1, author=author, reason=author * 1000)
        start.wait()
        try:
            repository.add_route(route)
            outcomes.append(author)
        except Conflict:
            outcomes.append("")

    _together(write)
    stored = repository.route("spots")
    assert stored
    assert [outcome for outcome in outcomes if outcome] == [stored.author]
    assert stored.reason == stored.author * 1000
    assert [path.name for path in (repository.root / "spots/routes").iterdir()] == ["1.json"]


@pytest.mark.fault(50)
def test_writers_of_versions_at_once_each_get_their_own(repository: Repository) -> None:
    refs: list[VariantRef] = []
    _together(lambda name: refs.append(repository.publish(card_for("spots", "c"), bright_spots())))
    assert sorted(ref.version for ref in refs) == list(range(1, 9))
    assert all(repository.card(ref).version == ref.version for ref in refs)


def _together(write: object) -> None:
    threads = [threading.Thread(target=write, args=(name,)) for name in "stuvwxyz"]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


@pytest.mark.fault(48)
@pytest.mark.parametrize("name", ["model.onnx", "card.json"])
def test_what_may_not_be_read_is_said_and_its_path_is_for_the_log_alone(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    open_file = io.open

    def forbid(path: object, *how: object, **more: object) -> object:
        if str(path).endswith(name):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_file(path, *how, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(io, "open", forbid)  # the tests may run as root, who may read everything
    with pytest.raises(BadVariant, match="cannot be read") as caught:
        load_servable(repository, A, max_pixels=10**7, max_model_bytes=10**8)
    assert str(repository.root) not in caught.value.message
    assert name in caught.value.detail


@pytest.mark.fault(48)
def test_a_folder_that_may_not_be_written_refuses_routes_and_signatures(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(repository.root))

    route = control_pb2.Route(model="spots", revision=1)
    monkeypatch.setattr("lathe.repository.write_durably", forbid)
    for write in (lambda: repository.add_route(route), lambda: repository.add_signature(A, b"")):
        with pytest.raises(Refused, match="cannot be written") as caught:
            write()
        assert str(repository.root) not in caught.value.message
        assert "Permission denied" in caught.value.detail
    assert repository.revisions("spots") == []
