"""Pipelines as the repository keeps them, and the command that writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lathe.cli import main
from lathe.errors import BadVariant, InvalidInput, NotFound, Refused
from lathe.housekeeping import Problem, problems
from lathe.pipeline_file import PIPELINE_FILE, PipelineSpec
from lathe.repository import Repository
from tests.models import card_for
from tests.server.faces import publish_faces

SPEC = PipelineSpec("face", "face-embed", 3, 24.0)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = publish_faces(tmp_path / "models")
    repository.remove_pipeline("face-id")
    return repository


def test_a_pipeline_is_kept_replaced_and_removed(repository: Repository) -> None:
    for spec in (SPEC, PipelineSpec("face", "face-embed")):
        repository.write_pipeline("face-id", spec)
        assert repository.pipeline("face-id") == spec
    assert repository.pipelines() == ["face-id"]
    assert repository.models() == ["face", "face-embed"]
    repository.remove_pipeline("face-id")
    assert repository.pipelines() == []
    for gone in (repository.pipeline, repository.remove_pipeline):
        with pytest.raises(NotFound, match="no pipeline face-id"):
            gone("face-id")
    assert not list(repository.root.glob(".*")), "nothing is left half-written"


def test_a_pipeline_and_a_model_share_no_name(repository: Repository) -> None:
    with pytest.raises(Refused, match="a model has the name face;"):
        repository.write_pipeline("face", SPEC)
    with pytest.raises(InvalidInput, match="a pipeline is named by"):
        repository.write_pipeline("../face", SPEC)
    repository.write_pipeline("face-id", SPEC)
    with pytest.raises(Refused, match="a pipeline has the name face-id;"):
        repository.publish(card_for("face-id", "a"), b"a network")
    assert repository.models() == ["face", "face-embed"]
    (repository.root / "face" / "a").rename(repository.root / "face-id" / "a")
    assert Problem("face-id, pipeline", "a model has the name face-id; a pipeline needs one of its own") in [
        *problems(repository)
    ]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"detector": "Face"}, "a model is named by"),
        ({"embedder": "face"}, "two models"),
        ({"largest": 0}, "1 to 64 faces"),
        ({"largest": 65}, "1 to 64 faces"),
        ({"min_side": -1.0}, "min_side is 0 or more"),
        ({"min_side": float("nan")}, "min_side is 0 or more"),
    ],
)
def test_what_makes_no_pipeline_is_refused(how: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        PipelineSpec(**{"detector": "face", "embedder": "face-embed", **how})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 60_000, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b'{"detector": "face"}', 'the key "embedder" is missing'),
        (b'{"detector": "face", "embedder": "face-embed", "most": 3}', 'unknown key "most"'),
        (b'{"detector": "face", "embedder": "face-embed", "largest": 2.5}', '"largest" must be a whole number'),
        (b'{"detector": "face", "embedder": "face"}', "two models"),
        (b'{"detector": "face", "embedder": "face-embed"}' + b" " * (1 << 16), "larger than 64 KiB"),
    ],
)
def test_a_damaged_file_is_told_of(repository: Repository, content: bytes, words: str) -> None:
    repository.write_pipeline("face-id", SPEC)
    (repository.root / "face-id" / PIPELINE_FILE).write_bytes(content)
    with pytest.raises(BadVariant, match="face-id") as caught:
        repository.pipeline("face-id")
    assert words in caught.value.message
    (problem,) = problems(repository)
    assert (problem.where, problem.what) == ("face-id, pipeline", caught.value.message)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_plain_file_is_not_read(repository: Repository, kind: str) -> None:
    repository.write_pipeline("face-id", SPEC)
    path = repository.root / "face-id" / PIPELINE_FILE
    path.rename(path.with_name("elsewhere.json"))
    if kind == "link":
        path.symlink_to("elsewhere.json")
    else:
        os.mkfifo(path)
    with pytest.raises(BadVariant, match="not a plain file"):
        repository.pipeline("face-id")


def test_the_command_publishes_lists_and_removes_one(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(repository.root)
    command = ["repo", "pipeline", root, "face-id"]
    assert main([*command, "--detector", "face", "--embedder", "face-embed", "--largest", "3", "--min-side", "24"]) == 0
    assert repository.pipeline("face-id") == SPEC
    assert main(["repo", "ls", root]) == 0
    line = "pipeline face-id: face, then face-embed of the 3 largest faces"
    assert capsys.readouterr().out.count(line) == 2
    assert main(["repo", "verify", root]) == 0
    assert main([*command, "--remove"]) == 0
    assert repository.pipelines() == []
    assert main([*command, "--detector", "face"]) != 0
    assert "needs --detector MODEL and --embedder MODEL" in capsys.readouterr().err
    assert main([*command, "--detector", "face", "--embedder", "nobody"]) != 0
    assert "there is no model nobody; there are face, face-embed" in capsys.readouterr().err


def test_a_pipeline_whose_model_is_gone_is_a_problem(repository: Repository) -> None:
    repository.write_pipeline("face-id", PipelineSpec("face", "nobody"))
    assert [(one.where, one.what) for one in problems(repository)] == [
        ("face-id, pipeline", "there is no model nobody")
    ]
