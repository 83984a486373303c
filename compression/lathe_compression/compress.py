"""Runs a recipe: teacher → variants → measured, carded and published. The offline main job."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lathe.errors import BadPicture, InvalidInput, NotFound
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_compression.carded_thresholds import labelled_faces, measure_thresholds
from lathe_compression.cards import cards_of
from lathe_compression.made import Made, make
from lathe_compression.measure import measure
from lathe_compression.pictures import NamedPicture, load_pictures
from lathe_compression.plan import chosen_variants, plan
from lathe_compression.recipe import RecipeFile
from lathe_compression.runs import RunRecord
from lathe_compression.store import disk_full_said
from lathe_compression.workshop import Workshop
from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.engines.golden import golden_answers, golden_picture


def compress(
    file: RecipeFile,
    repository_root: Path,
    progress: Progress,
    *,
    cache: Path | None = None,
    only: Sequence[str] = (),
) -> list[VariantRef]:
    """Makes the variants of a recipe and publishes them as new versions.

    Nothing is published before everything has been made and measured. What was finished before, by this
    recipe or another, is taken from the cache; what was interrupted is gone on with. A variant whose newest
    version is just what this recipe makes is left as it is, unless it is an embedding network whose thresholds
    have now been measured, or measured against another variant.

    Args:
        cache: folder of steps' results; `cache` beside the repository where it is not given.
        only: names of variants to make beside the reference; all where none is named.

    Returns:
        The newest version of each, in the recipe's order.

    Raises:
        NotFound, InvalidInput, BadPicture: the recipe names what is not there or not usable.
        BadVariant: a variant fails a check: export, INT8 kernels.
        DiskFull: no space left; what was finished is kept.
    """
    recipe = file.recipe
    variants = chosen_variants(recipe, only)
    cache = cache or repository_root.parent / "cache"
    with disk_full_said():
        record = RunRecord(cache / "runs", recipe.model.name, {"recipe_sha256": file.sha256, "cpu": cpu_name()})
    workshop = Workshop(file, cache, progress, record)
    ends = plan(recipe, workshop.inputs)
    evaluation = _evaluation(workshop, file.folder)
    labelled = labelled_faces(workshop)
    made = [make(variant, ends[variant.name], workshop) for variant in variants]
    _refuse_seen(evaluation, made)
    cards = cards_of(file, made)
    repository_root.mkdir(parents=True, exist_ok=True)
    repository = Repository(repository_root)
    published = [_already_published(repository, card, one) for card, one in zip(cards, made, strict=True)]
    figures = measure(cards, made, evaluation, workshop) if not all(published) else {}
    if labelled and not all(there and repository.card(there).embedding.thresholds for there in published):
        measure_thresholds(cards, made, labelled, workshop)
    refs = []
    with disk_full_said():
        for card, one, there in zip(cards, made, published, strict=True):
            if not there:
                golden = OnnxRuntimeEngine(one.content).run(golden_picture(workshop.serving_size))
                card.golden.extend(golden_answers(golden))
                there = repository.publish(card, one.content, _with_figures(one.making, figures), one.pictures)
            elif renewed := _renewed(repository.card(there), card.embedding, [each.embedding.space for each in cards]):
                there = repository.publish(renewed, one.content, repository.making(there), one.pictures)
            refs.append(there)
            record.event("variant", variant=one.variant.name, version=there.version, sha256=card.sha256)
    record.close()
    return refs


def _evaluation(workshop: Workshop, folder: Path) -> list[NamedPicture]:
    """Pictures for the card's figures; those that cannot be decoded are left out, counted and named.

    Raises:
        BadPicture: none of what the recipe names is a picture.
    """
    skipped: list[str] = []
    with workshop.progress.step("evaluation pictures: read"):
        found = [one for chosen in workshop.recipe.evaluation for one in load_pictures(chosen, folder, skipped)]
    workshop.say_skipped("evaluation", skipped)
    if skipped and not found:
        raise BadPicture("none of the evaluation pictures can be decoded")
    return found


def _refuse_seen(pictures: Sequence[NamedPicture], made: Sequence[Made]) -> None:
    """Raises:
    InvalidInput: an evaluation picture has also calibrated or trained a variant.
    """
    shared = [picture.name for picture in pictures if any(picture.sha256 in one.pictures for one in made)]
    if shared:
        raise InvalidInput(f"{shared[0]} both makes a variant and judges it; quality needs pictures of its own")


def _already_published(repository: Repository, card: card_pb2.Card, made: Made) -> VariantRef | None:
    """The newest version, where it is this very file by this very recipe with these tools."""
    try:
        newest = repository.newest(card.model, card.variant)
    except NotFound:
        return None
    same = repository.model_bytes(newest) == made.content and repository.card(newest).lineage == card.lineage
    return newest if same else None


def _renewed(card: card_pb2.Card, measured: card_pb2.Embedding, spaces: Collection[str]) -> card_pb2.Card | None:
    """A published card with the thresholds of this run; None where there are none, or those that it holds already.

    Args:
        spaces: of this run's variants. What the card says of others stays.
    """
    if not measured.thresholds:
        return None
    renewed = card_pb2.Card()
    renewed.CopyFrom(card)
    renewed.embedding.CopyFrom(measured)
    renewed.embedding.cross_spaces.extend(one for one in card.embedding.cross_spaces if one.space not in spaces)
    renewed.embedding.cross_spaces.sort(key=lambda one: one.variant)
    return None if renewed == card else renewed


def _with_figures(making: Mapping[str, Any], figures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Beside each step, what the graph after it takes and keeps; of the reference, what hygiene gained."""
    gained = {} if making["steps"] else {"hygiene_speedup": figures.get("", {}).get("hygiene_speedup")}
    return {**making, **gained, "steps": [{**step, **figures.get(step["key"], {})} for step in making["steps"]]}
