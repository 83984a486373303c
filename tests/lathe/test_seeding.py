"""`lathe repo seed`: versions come whole into a repository that lives, and what is there stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from lathe import seeding
from lathe.cli import main
from lathe.errors import InvalidInput, Refused
from lathe.housekeeping import problems, versions
from lathe.pipeline_file import PIPELINE_FILE, PipelineSpec
from lathe.repository import Repository, VariantRef
from lathe.seeding import seed, seed_pipelines
from lathe.v1 import control_pb2
from tests.models import card_for

A1, A2, B1 = (VariantRef("spots", variant, number) for variant, number in (("a", 1), ("a", 2), ("b", 1)))


def repository_at(root: Path) -> Repository:
    root.mkdir()
    return Repository(root)


@pytest.fixture
def source(tmp_path: Path) -> Repository:
    """Two versions of a, signed, one of b, and a route."""
    found = repository_at(tmp_path / "seed")
    for variant, content in (("a", b"one"), ("a", b"two"), ("b", b"three")):
        found.add_signature(found.publish(card_for("spots", variant), content, making={"steps": []}), b"signed")
    found.add_route(control_pb2.Route(model="spots", revision=7, weights=[{"variant": "b", "version": 1, "weight": 1}]))
    return found


@pytest.fixture
def target(tmp_path: Path) -> Repository:
    return repository_at(tmp_path / "live")


def test_an_empty_one_gets_all_versions_with_all_their_files_and_no_route(
    source: Repository, target: Repository
) -> None:
    assert dict(seed(source, target)) == {A1: "copied", A2: "copied", B1: "copied"}
    for ref in (A1, A2, B1):
        files = {path.name: path.read_bytes() for path in source.folder(ref).iterdir()}
        assert {path.name: path.read_bytes() for path in target.folder(ref).iterdir()} == files
        assert "model.sig" in files
    assert target.revisions("spots") == []
    assert [path.name for path in target.root.iterdir()] == ["spots"]


def test_pipelines_come_too_where_their_names_are_free(
    source: Repository, target: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    own = PipelineSpec("face", "other")
    for name in ("face-id", "ours", "spots-id"):
        source.write_pipeline(name, PipelineSpec("face", "face-embed"))
    (source.root / "spots-id" / PIPELINE_FILE).write_text("{")
    target.write_pipeline("ours", own)
    assert main(["repo", "seed", str(source.root), str(target.root)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-3:] == [
        "face-id: copied",
        "ours: left: another one is there",
        "spots-id: not copied: pipeline spots-id cannot be read: it is not JSON",
    ]
    assert (target.pipeline("face-id"), target.pipeline("ours")) == (PipelineSpec("face", "face-embed"), own)
    assert dict(seed_pipelines(target, target)) == {"face-id": "there already", "ours": "there already"}


def test_whoever_has_a_name_keeps_it(
    source: Repository, target: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start that seeds goes on."""
    spec = PipelineSpec("face", "face-embed")
    source.write_pipeline("face-id", spec)
    target.publish(card_for("face-id", "a"), b"a network")
    target.write_pipeline("spots", spec)
    assert main(["repo", "seed", str(source.root), str(target.root)]) == 0
    named = "left: a pipeline has the name"
    assert capsys.readouterr().out.splitlines() == [
        *(f"{ref}: {named}" for ref in (A1, A2, B1)),
        "face-id: left: a model has the name",
    ]
    assert (target.models(), target.pipelines()) == (["face-id"], ["spots"])


def test_what_is_there_stays_whether_it_is_the_same_or_another(source: Repository, target: Repository) -> None:
    target.publish(card_for("spots", "a"), b"of its own")
    route = control_pb2.Route(model="spots", revision=1, weights=[{"variant": "a", "version": 1, "weight": 1}])
    target.add_route(route)
    assert dict(seed(source, target)) == {A1: "left: another one is there", A2: "copied", B1: "copied"}
    assert dict(seed(source, target)) == {A1: "left: another one is there", A2: "there already", B1: "there already"}
    assert target.model_bytes(A1) == b"of its own"
    assert target.route("spots") == route


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.onnx", b"tw"), ("model.onnx", None), ("card.json", b"{"), ("card.json", None), ("making.json", b"{")],
)
def test_what_an_interrupted_copy_has_left_is_replaced(
    source: Repository, target: Repository, file: str, content: bytes | None
) -> None:
    list(seed(source, target))
    path = target.folder(A2) / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert dict(seed(source, target))[A2] == "copied again: the one there is damaged"
    assert list(problems(target)) == []
    assert target.model_bytes(A2) == b"two"
    assert [path.name for path in target.root.iterdir()] == ["spots"]


def test_a_copy_that_breaks_off_shows_nothing_of_a_version(
    source: Repository, target: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:1])
        raise OSError("no space left")

    monkeypatch.setattr(seeding, "write_durably", full)
    with pytest.raises(Refused, match="spots/a/1 cannot be written"):
        list(seed(source, target))
    assert list(versions(target)) == []
    assert not list(target.root.rglob("*.onnx"))


def test_a_damaged_source_is_told_and_all_else_is_copied(
    source: Repository, target: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    (source.folder(A1) / "model.onnx").write_bytes(b"on")
    assert main(["repo", "seed", str(source.root), str(target.root)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("spots/a/1: not copied: ")
    assert told[1:] == ["spots/a/2: copied", "spots/b/1: copied"]
    assert list(versions(target)) == [A2, B1]


def test_an_object_store_is_no_target(source: Repository) -> None:
    from argparse import Namespace

    from lathe.cli.repo import seed_versions

    with pytest.raises(InvalidInput, match="repo copy"):
        seed_versions(Namespace(repository=str(source.root), to="s3://bucket/models"))
