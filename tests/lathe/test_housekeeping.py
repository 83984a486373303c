"""What `lathe repo` says of a repository, and what it removes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lathe.cli import main
from lathe.errors import BadVariant
from lathe.housekeeping import problems, unneeded, versions
from lathe.repository import Repository, VariantRef
from lathe.v1 import control_pb2, experiment_pb2
from tests.models import card_for

MODEL = b"weights"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Four versions of a, two of b; routes a/1, then a/2 degrading to b/1, then b/2, then a/3."""
    root = tmp_path / "models"
    root.mkdir()
    found = Repository(root)
    for variant in "aaaabb":
        found.publish(card_for("spots", variant), MODEL)
    for revision, (variant, version) in enumerate([("a", 1), ("a", 2), ("b", 2), ("a", 3)], 1):
        route = control_pb2.Route(model="spots", revision=revision)
        route.weights.add(variant=variant, version=version, weight=3)
        if revision == 2:
            route.degrade.variants.add(variant="b", version=1)
            route.degrade.after_seconds = 0.1
        found.add_route(route)
    return found


def ref(variant: str, version: int) -> VariantRef:
    return VariantRef("spots", variant, version)


def test_a_whole_repository_has_no_problem(repository: Repository) -> None:
    assert list(versions(repository)) == [*(ref("a", n) for n in (1, 2, 3, 4)), ref("b", 1), ref("b", 2)]
    assert list(problems(repository)) == []


def test_an_experiment_that_cannot_be_read_is_found(repository: Repository) -> None:
    experiment = experiment_pb2.Experiment(id="20260101-000000-ab")
    experiment.spec.model = "spots"
    repository.write_experiment(experiment)
    assert list(problems(repository)) == []
    (repository.root / "spots/experiments/20260101-000000-ab.json").write_text("{")
    assert [(one.where, "cannot be read" in one.what) for one in problems(repository)] == [
        ("spots, experiment 20260101-000000-ab", True)
    ]


def test_what_an_experiment_or_a_shadow_needs_is_kept(repository: Repository) -> None:
    route = control_pb2.Route(model="spots", revision=5, weights=[{"variant": "a", "version": 4, "weight": 1}])
    route.shadow.variant.variant, route.shadow.variant.version = "a", 1
    route.experiment.candidate.variant, route.experiment.candidate.version = "b", 1
    repository.add_route(route)
    assert {ref("a", 1), ref("b", 1)}.isdisjoint(unneeded(repository, keep=1))


@pytest.mark.parametrize(
    ("file", "content", "where", "what"),
    [
        ("a/2/model.onnx", b"weighty", "spots/a/2", "sha256"),
        ("a/2/model.onnx", b"weight", "spots/a/2", "size"),
        ("a/2/model.onnx", None, "spots/a/2", "no model file"),
        ("a/2/card.json", b"{", "spots/a/2", "card"),
        ("a/2/making.json", b"[]", "spots/a/2", "not a JSON object"),
        ("routes/1.json", b"{", "spots, route 1", "cannot be read"),
    ],
)
def test_what_was_changed_is_found(
    repository: Repository, file: str, content: bytes | None, where: str, what: str
) -> None:
    path = repository.root / "spots" / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    (problem,) = problems(repository)
    assert problem.where == where
    assert what in problem.what


@pytest.mark.parametrize(
    ("variant", "version", "routes"), [("a", 1, []), ("a", 3, ["spots, route 4"]), ("b", 1, ["spots, route 2"])]
)
def test_a_route_that_may_still_be_needed_names_what_is_there(
    repository: Repository, variant: str, version: int, routes: list[str]
) -> None:
    repository.remove(ref(variant, version))
    assert [problem.where for problem in problems(repository)] == routes


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(1, [ref("a", 1)]), (2, [ref("a", 1)]), (4, [])],
)
def test_needed_are_the_newest_and_what_the_newest_routes_name(
    repository: Repository, keep: int, expected: list[VariantRef]
) -> None:
    assert unneeded(repository, keep) == expected


def test_a_route_that_cannot_be_read_keeps_everything(repository: Repository) -> None:
    (repository.root / "spots/routes/3.json").write_bytes(b"{")
    with pytest.raises(BadVariant, match="revision 3"):
        unneeded(repository, 1)


def test_what_is_removed_leaves_nothing_and_its_number_is_not_given_again(repository: Repository) -> None:
    repository.remove(ref("a", 1))
    assert repository.versions("spots", "a") == [2, 3, 4]
    assert [path.name for path in repository.root.iterdir()] == ["spots"]
    assert repository.publish(card_for("spots", "a"), MODEL).version == 5


def test_the_command_lists_verifies_and_clears_out(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> tuple[int, str]:
        code = main(["repo", *words, str(repository.root)])
        return code, capsys.readouterr().out

    code, table = said("ls")
    assert code == 0
    assert [line.split()[1] for line in table.splitlines() if "spots/" in line] == [
        str(one) for one in versions(repository)
    ]
    assert [line.split("│")[4].strip() for line in table.splitlines() if "spots/a/3" in line] == ["3"]
    assert said("verify") == (0, "6 versions, 0 problems\n")
    assert said("gc", "--dry-run") == (0, "would remove spots/a/1\n")
    assert said("gc") == (0, "removed spots/a/1\n")
    (repository.root / "spots/a/2/card.json").write_bytes(b"{")
    code, text = said("verify")
    assert code == 1
    assert text.splitlines()[-1] == "5 versions, 1 problems"
    assert "card" in said("ls")[1]


def test_none_of_a_variant_may_not_be_kept(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repo", "gc", "--keep", "0", str(repository.root)]) == 1
    assert "--keep must be at least 1" in capsys.readouterr().err
