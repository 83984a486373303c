"""Repositories in object stores: a real S3 client against a server that answers as S3 does, on this machine."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lathe.cli import main
from lathe.errors import BadVariant, Conflict, InvalidInput, NotFound, Refused
from lathe.mirror import Mirror, open_repository
from lathe.pipeline_file import PipelineSpec
from lathe.repository import Repository, VariantRef
from lathe.used_pictures import UsedPictures
from lathe.v1 import control_pb2, experiment_pb2
from tests.calls import until
from tests.conftest import start_server
from tests.models import bright_spots, card_for

moto_server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")

A, B = VariantRef("spots", "a", 1), VariantRef("spots", "b", 1)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Where a stand-in for S3 listens."""
    store = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    yield f"http://{host}:{port}"
    store.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty repository."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "LATHE_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}/models"


def route(revision: int, variant: str = "a") -> control_pb2.Route:
    told = control_pb2.Route(model="spots", revision=revision)
    told.weights.add(variant=variant, version=1, weight=1)
    return told


def test_what_one_machine_publishes_another_one_reads(bucket: str, tmp_path: Path) -> None:
    here, there = Mirror(bucket, tmp_path / "here"), Mirror(bucket, tmp_path / "there")
    making, pictures = {"steps": []}, UsedPictures(["0" * 64])
    assert here.publish(card_for("spots", "a"), bright_spots(), making, pictures) == A
    assert there.models() == []
    there.refresh()
    assert (there.models(), there.newest("spots", "a")) == (["spots"], A)
    with pytest.raises(BadVariant, match="has no model file"):
        there.model_bytes(A)  # not copied before it is needed
    there.fetch(A)
    assert there.model_bytes(A) == bright_spots()
    assert (there.making(A), len(there.used_pictures(A))) == (making, 1)
    assert there.publish(card_for("spots", "a"), bright_spots()).version == 2
    there.remove(A)
    here.refresh()
    assert here.versions("spots", "a") == [2]
    with pytest.raises(NotFound):
        here.fetch(A)
    there.remove(VariantRef("spots", "a", 2))
    assert there.publish(card_for("spots", "a"), bright_spots()).version == 3, "numbers are given once"


@pytest.mark.fault(50)
def test_of_many_writers_of_one_revision_or_version_one_wins_whole(bucket: str, tmp_path: Path) -> None:
    writers = [Mirror(bucket, tmp_path / str(number)) for number in range(6)]
    models = [bright_spots(box_pixels=10.0 + number) for number in range(6)]

    def write(number: int) -> tuple[VariantRef, bool]:
        published = writers[number].publish(card_for("spots", "a"), models[number])
        try:
            writers[number].add_route(route(1, f"by-{number}"))
        except Conflict:
            return published, False
        return published, True

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        done = list(pool.map(write, range(6)))
    assert sorted(ref.version for ref, _ in done) == [1, 2, 3, 4, 5, 6]
    assert sum(won for _, won in done) == 1
    reader = Mirror(bucket, tmp_path / "reader")
    for number, (ref, won) in enumerate(done):
        reader.fetch(ref)
        assert reader.model_bytes(ref) == models[number]
        if won:
            kept = reader.route("spots", 1)
            assert kept
            assert kept.weights[0].variant == f"by-{number}"


def test_a_write_that_went_through_unanswered_and_is_tried_again_is_no_conflict(bucket: str, tmp_path: Path) -> None:
    here, there = Mirror(bucket, tmp_path / "here"), Mirror(bucket, tmp_path / "there")
    here.add_route(route(1))
    here.add_route(route(1))
    with pytest.raises(Conflict):
        there.add_route(route(1, "b"))


def test_experiments_change_and_go(bucket: str, tmp_path: Path) -> None:
    here, there = Mirror(bucket, tmp_path / "here"), Mirror(bucket, tmp_path / "there")
    here.publish(card_for("spots", "a"), bright_spots())
    told = experiment_pb2.Experiment(id="first", spec={"model": "spots"})
    for reason in ("begun", "going", "ended"):
        told.reason = reason
        here.write_experiment(told)
        there.refresh()
        assert there.experiment("spots").reason == reason
    assert Mirror(bucket, tmp_path / "there").experiment("spots").reason == "ended"
    here.remove_experiment("spots", "first")
    here.remove_experiment("spots", "first")
    there.refresh()
    assert (here.experiments("spots"), there.experiments("spots")) == ([], [])


@pytest.mark.fault(47)
def test_pipelines_change_and_go(bucket: str, tmp_path: Path) -> None:
    here, there = Mirror(bucket, tmp_path / "here"), Mirror(bucket, tmp_path / "there")
    here.publish(card_for("face", "a"), bright_spots())
    for largest in (1, 2):
        here.write_pipeline("face-id", PipelineSpec("face", "face-embed", largest))
        there.refresh()
        assert there.pipeline("face-id").largest == largest
    assert Mirror(bucket, tmp_path / "there").pipelines() == ["face-id"]
    with pytest.raises(Refused, match="a model has the name face"):
        here.write_pipeline("face", PipelineSpec("face", "face-embed"))
    with pytest.raises(Refused, match="a pipeline has the name face-id"):
        there.publish(card_for("face-id", "a"), bright_spots())
    there.publish(card_for("new", "a"), bright_spots())
    with pytest.raises(Refused, match="a model has the name new"):
        here.write_pipeline("new", PipelineSpec("face", "face-embed"))
    here.remove_pipeline("face-id")
    there.refresh()
    assert there.pipelines() == here.pipelines() == []


def test_while_the_store_is_away_the_copy_serves_and_nothing_is_written(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = Mirror(bucket, tmp_path / "here")
    here.publish(card_for("spots", "a"), bright_spots())
    here.add_route(route(1))
    here.fetch(A)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with caplog.at_level(logging.WARNING):
        again = Mirror(bucket, tmp_path / "here")
    assert "the object store cannot be read; what was copied earlier is used" in caplog.text
    again.fetch(A)
    assert (again.model_bytes(A), again.revisions("spots")) == (bright_spots(), [1])
    for write in (
        lambda: again.add_route(route(2)),
        lambda: again.publish(card_for("spots", "a"), bright_spots()),
        lambda: again.remove(A),
    ):
        with pytest.raises(Refused, match="the object store cannot be"):
            write()
    assert (again.revisions("spots"), again.versions("spots", "a")) == ([1], [1])
    with pytest.raises(Refused, match="the object store cannot be read"):
        Mirror(bucket, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.fault(46)
def test_names_in_the_store_that_are_none_of_ours_come_near_no_path(bucket: str, tmp_path: Path) -> None:
    store, folder = s3fs.S3FileSystem(), bucket.removeprefix("s3://")
    names = (
        "../x/1/card.json",
        "a/../1/card.json",
        "spots/a/01/card.json",
        "spots/A/1/card.json",
        "x.json",
        ".a/b/1/card.json",
    )
    for name in names:
        store.pipe_file(f"{folder}/{name}", b"{}")
    here = Mirror(bucket, tmp_path / "here")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert here.models() == []


def test_a_bucket_that_is_gone_takes_no_copy_with_it(bucket: str, tmp_path: Path) -> None:
    here = Mirror(bucket, tmp_path / "here")
    here.publish(card_for("spots", "a"), bright_spots())
    here.fetch(A)
    s3fs.S3FileSystem().rm(bucket.removeprefix("s3://").partition("/")[0], recursive=True)
    with pytest.raises(Refused, match="is empty, where it was not"):
        here.refresh()
    assert Mirror(bucket, tmp_path / "here").model_bytes(A) == bright_spots()


def test_what_is_signed_anew_withdrawn_or_damaged_here_is_fetched_anew(bucket: str, tmp_path: Path) -> None:
    here, there = Mirror(bucket, tmp_path / "here"), Mirror(bucket, tmp_path / "there")
    here.publish(card_for("spots", "a"), bright_spots())
    there.refresh()
    signature = there.folder(A) / "model.sig"
    for content in (b"first", b"again"):
        here.add_signature(A, content)
        there.fetch(A)
        assert signature.read_bytes() == content
    model = there.folder(A) / "model.onnx"
    model.write_bytes(bright_spots()[:-1] + b"x")
    s3fs.S3FileSystem().rm_file(f"{bucket.removeprefix('s3://')}/spots/a/1/model.sig")
    there.fetch(A)
    assert (there.model_bytes(A), signature.exists()) == (bright_spots(), False)


@pytest.mark.fault(38)
def test_what_is_larger_than_it_may_be_is_not_copied(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Mirror(bucket, tmp_path / "here"), Mirror(bucket, tmp_path / "there")
    here.publish(card_for("spots", "a"), bright_spots())
    there.refresh()
    with pytest.raises(BadVariant, match="more than it may"):
        there.fetch(A, max_bytes=100)
    s3fs.S3FileSystem().pipe_file(f"{bucket.removeprefix('s3://')}/spots/a/1/model.onnx", b"x" * 10**6)
    with pytest.raises(BadVariant, match="more than it may"):
        there.fetch(A)
    monkeypatch.setattr("lathe.mirror.MAX_COPIED_BYTES", 10)
    assert Mirror(bucket, tmp_path / "third").models() == []


def test_a_network_that_is_not_its_cards_is_not_kept(bucket: str, tmp_path: Path) -> None:
    Mirror(bucket, tmp_path / "here").publish(card_for("spots", "a"), bright_spots())
    key = f"{bucket.removeprefix('s3://')}/spots/a/1/model.onnx"
    s3fs.S3FileSystem().pipe_file(key, b"another")
    there = Mirror(bucket, tmp_path / "there")
    with pytest.raises(BadVariant, match="sha256"):
        there.fetch(A)
    assert not (there.folder(A) / "model.onnx").exists()
    s3fs.S3FileSystem().pipe_file(key, bright_spots())
    there.fetch(A)
    assert there.model_bytes(A) == bright_spots()


def test_addresses_that_cannot_be_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        open_repository(tmp_path / "nowhere")
    assert type(open_repository(str(tmp_path))) is Repository
    with pytest.raises(InvalidInput, match="gopher:// is no kind of store"):
        open_repository("gopher://models", tmp_path)
    import fsspec.core

    def missing(address: str, **_: object) -> Any:
        raise ImportError("no such package")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(Refused, match="for s3:// install lathe"):
        open_repository("s3://models", tmp_path)


def test_other_kinds_of_stores_work_the_same(tmp_path: Path) -> None:
    here, there = (Mirror("memory://models", tmp_path / name) for name in ("here", "there"))
    assert here.publish(card_for("spots", "a"), bright_spots()) == A
    here.add_route(route(1))
    with pytest.raises(Conflict):
        there.add_route(route(1, "b"))
    there.refresh()
    there.fetch(A)
    assert there.model_bytes(A) == bright_spots()


def test_servers_on_one_bucket_follow_one_route(
    bucket: str, repository: Repository, tmp_path: Path, spot_jpeg: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repo", "copy", str(repository.root), bucket, "spots/a", "spots/b/1"]) == 0
    assert "spots/b/1 is spots/b/1 there" in capsys.readouterr().out
    assert main(["repo", "verify", bucket]) == 0
    caches = [("--cache", str(tmp_path / name)) for name in ("first", "second")]
    with (
        start_server(bucket, tmp_path / "1", *caches[0]) as first,
        start_server(bucket, tmp_path / "2", *caches[1]) as second,
        first.client() as client,
        second.client() as other,
    ):
        assert client.detect("spots", spot_jpeg).variant == "a"
        client.set_route("spots", {"b": 1})
        assert client.detect("spots", spot_jpeg).variant == "b"
        until(lambda: other.detect("spots", spot_jpeg).variant == "b")
        assert main(["repo", "copy", str(repository.root), bucket, "spots/a"]) == 0
        other.set_route("spots", {"a": 1})
        assert other.detect("spots", spot_jpeg).variant == "a"
        assert other.route("spots").weights[0].version == 2
    assert main(["repo", "ls", bucket]) == 0
    assert "spots/a/2" in capsys.readouterr().out
