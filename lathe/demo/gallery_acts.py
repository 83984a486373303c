"""What is shown at a gallery beside searching: a swap that is refused, one that is planned, a person who is deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from lathe.client import AsyncClient
from lathe.demo.portraits import Portrait
from lathe.demo.searches import search
from lathe.repository import VariantRef
from lathe.server_error import ServerError


@dataclass(frozen=True, slots=True)
class Unplanned:
    """A swap to another embedding space while people are enrolled.

    Attributes:
        reason: the server's; empty where it has let it happen.
        serves: the variant on the route afterwards.
        goes_on: an enrolled face is still found.
    """

    reason: str
    serves: str
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Planned:
    """The same swap with its plan: load, re-enrol, swap.

    Attributes:
        records: re-enrolled from kept faces.
        between: why nobody was identified between re-enrolment and swap; empty where somebody was.
        load_seconds: until the new variant was in memory, while the old one answered.
        pause_seconds: from the beginning of the re-enrolment to the end of the swap; in the last part of it nobody is
            identified.
        serves: the variant on the route afterwards.
    """

    records: int
    between: str
    load_seconds: float
    pause_seconds: float
    serves: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """What is left of a person.

    Attributes:
        found_before, found_after: pictures of hers, of `probes`, with which she was found.
        is_known: she could still be verified or exported.
        on_disk_before, on_disk_after: records of hers whose names stand in a file of the gallery.
        people: who are enrolled afterwards.
    """

    person: str
    records: int
    probes: int
    found_before: int
    found_after: int
    is_known: bool
    on_disk_before: int
    on_disk_after: int
    people: int

    @property
    def is_gone(self) -> bool:
        """Nothing is left of what was there."""
        was_there = self.records > 0 and self.found_before > 0 and self.on_disk_before == self.records
        return was_there and not (self.found_after or self.is_known or self.on_disk_after)


async def swap_unplanned(client: AsyncClient, after: VariantRef, known: Portrait) -> Unplanned:
    """Tries it; what serves goes on."""
    reason = await refusal(client.set_route(after.model, {after.variant: 1}, author="demo", reason="without a plan"))
    serves = await _serves(client, after.model)
    return Unplanned(reason, serves, await _is_found(client, known) if reason else False)


async def swap_planned(client: AsyncClient, after: VariantRef, known: Portrait) -> Planned:
    """As docs/gallery.md says, with kept faces."""
    began = monotonic()
    await client.load(after.model, after.variant)
    loaded = monotonic()
    records = (await client.gallery.re_enroll(after.variant)).records
    between = await refusal(client.gallery.identify(known.pixels))
    await client.set_route(after.model, {after.variant: 1}, author="demo", reason="the gallery is re-enrolled")
    ended = monotonic()
    return Planned(records, between, loaded - began, ended - loaded, await _serves(client, after.model))


async def delete(client: AsyncClient, person: str, probes: Sequence[Portrait], files: Path) -> Deletion:
    """Deletes a person and looks for her everywhere.

    Args:
        probes: all of her.
        files: the gallery's folder.
    """
    names = [record.record async for record in client.gallery.export(person)]
    on_disk_before = names_in(files, names)
    found_before = [await _is_found(client, probe) for probe in probes]
    records = await client.gallery.delete(person)
    found_after = [await _is_found(client, probe) for probe in probes]
    is_unknown = await refusal(client.gallery.verify(person, probes[0].pixels, largest=True), "NOT_FOUND")
    is_unexported = await refusal(_read(client, person), "NOT_FOUND")
    return Deletion(
        person=person,
        records=records,
        probes=len(probes),
        found_before=sum(found_before),
        found_after=sum(found_after),
        is_known=not (is_unknown and is_unexported),
        on_disk_before=on_disk_before,
        on_disk_after=names_in(files, names),
        people=(await client.gallery.describe()).people,
    )


def names_in(folder: Path, names: Sequence[str]) -> int:
    """How many of the names stand in a file of a folder."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return sum(any(name.encode() in content for content in contents) for name in names)


async def refusal(call: Awaitable[Any], status: str = "FAILED_PRECONDITION") -> str:
    """The reason that a server gives for refusing a call with a status; empty where it does not refuse.

    Raises:
        ServerError: it refuses with another status.
    """
    try:
        await call
    except ServerError as error:
        if error.code.name == status:
            return error.message
        raise
    return ""


async def _read(client: AsyncClient, person: str) -> None:
    async for _ in client.gallery.export(person):
        pass


async def _is_found(client: AsyncClient, probe: Portrait) -> bool:
    """Whether the person is among those who match, at the gallery's own false match rate."""
    return probe.person in (await search(client.gallery, probe)).matches


async def _serves(client: AsyncClient, model: str) -> str:
    return ", ".join(weight.variant for weight in (await client.route(model)).weights if weight.weight)
