"""Is every published version whole, and which of them does nobody need any more?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lathe.errors import LatheError
from lathe.repository import Repository, VariantRef
from lathe.signatures import Verifier

KEPT_ROUTES = 3
"""A model's newest routes, whose versions stay: what serves, and what a rollback or a start may go back to."""


@dataclass(frozen=True)
class Problem:
    """Attributes:
    where: a version, or a revision of a route.
    what: is wrong with it.
    """

    where: str
    what: str


def versions(repository: Repository) -> Iterator[VariantRef]:
    """All that are published, by name and number."""
    for model in repository.models():
        for variant in repository.variants(model):
            for version in repository.versions(model, variant):
                yield VariantRef(model, variant, version)


def problems(repository: Repository, verifier: Verifier | None = None) -> Iterator[Problem]:
    """What would not load, or was changed: every file against its card's digest, every route against what is there.

    Older routes than `KEPT_ROUTES` may name versions that are gone.

    Args:
        verifier: looks at signatures too.
    """
    for ref in versions(repository):
        try:
            repository.fetch(ref)
            repository.model_bytes(ref)
            if verifier:
                verifier.check(repository.folder(ref), str(ref))
            repository.used_pictures(ref)
            repository.making(ref)
        except LatheError as error:
            yield Problem(str(ref), error.message)
    for model in repository.newest_revisions():
        revisions = repository.revisions(model)
        for revision in revisions:
            try:
                named = _named(repository, model, revision)
                for ref in named if revision in revisions[-KEPT_ROUTES:] else ():
                    repository.folder(ref)
            except LatheError as error:
                yield Problem(f"{model}, route {revision}", error.message)
    for model in repository.models():
        for name in repository.experiments(model):
            try:
                repository.experiment(model, name)
            except LatheError as error:
                yield Problem(f"{model}, experiment {name}", error.message)
    for name in repository.pipelines():
        try:
            spec = repository.pipeline(repository.check_pipeline_name(name))
        except LatheError as error:
            yield Problem(f"{name}, pipeline", error.message)
            continue
        for model in (spec.detector, spec.embedder):
            if not repository.variants(model):
                yield Problem(f"{name}, pipeline", f"there is no model {model}")


def unneeded(repository: Repository, keep: int) -> list[VariantRef]:
    """Versions that are neither among the newest of their variant nor named by one of the newest routes.

    Args:
        keep: how many of the newest versions of each variant stay; at least 1.

    Raises:
        BadVariant: one of those routes cannot be read, so that what it names is not known.
    """
    needed: set[VariantRef] = set()
    for model in repository.newest_revisions():
        for revision in repository.revisions(model)[-KEPT_ROUTES:]:
            needed.update(_named(repository, model, revision))
    return [
        ref
        for ref in versions(repository)
        if ref not in needed and ref.version not in repository.versions(ref.model, ref.variant)[-keep:]
    ]


def _named(repository: Repository, model: str, revision: int) -> list[VariantRef]:
    """The versions that a route names."""
    route = repository.route(model, revision)
    if route is None:
        return []
    named = [VariantRef(model, one.variant, one.version) for one in route.weights]
    ruled = [*(rule.variant for rule in route.rules), *(label.variant for label in route.labels)]
    beside = [*route.degrade.variants, *ruled, route.shadow.variant, route.experiment.candidate]
    return named + [VariantRef(model, one.variant, one.version) for one in beside if one.variant]
