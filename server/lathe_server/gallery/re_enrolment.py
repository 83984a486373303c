"""A gallery's way into another embedding space: each kept face is looked at anew, then all records move at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lathe.errors import Conflict, LatheError, Overloaded, Refused, Unavailable
from lathe.repository import VariantRef
from lathe.v1 import card_pb2
from lathe_server.gallery.audit import Entry
from lathe_server.gallery.decision import threshold
from lathe_server.gallery.desk import Desk
from lathe_server.gallery.eyes import Eyes
from lathe_server.gallery.gallery import Gallery

T = TypeVar("T")
PAUSES_SECONDS = (0.2, 1.0, 5.0)
"""Before what a busy server did not do is asked for again: the work of hours hangs on it."""


class ReEnrolment:
    """On the event loop. One at a time: each has the vectors of all faces in memory.

    Args:
        fmr: false match rate at which the gallery decides.
    """

    def __init__(self, desk: Desk, eyes: Eyes, fmr: float) -> None:
        self._desk = desk
        self._eyes = eyes
        self._fmr = fmr
        self._is_going_on = False

    async def by(self, variant: str, who: str) -> tuple[str, int]:
        """Moves all records, or none, into the space of a variant of the pipeline's embedding network.

        Args:
            variant: VARIANT or VARIANT/VERSION, in memory.
            who: asks, for the audit log.

        Returns:
            The space, and how many records there are.

        Raises:
            Refused: another one is going on; the gallery could not decide by the variant's vectors; there are records
                without a kept face; nobody is enrolled; or another network has taken the variant's place.
            LatheError: a face could not be embedded; its record is named.
        """
        if self._is_going_on:
            raise Refused("a re-enrolment is going on, and one at a time may")
        self._is_going_on = True
        try:
            return await self._whole(variant, who)
        finally:
            self._is_going_on = False

    async def _whole(self, variant: str, who: str) -> tuple[str, int]:
        by = await self._eyes.variant(variant)
        made_by = self._eyes.embedding(by)
        threshold(made_by, made_by.space, self._fmr)  # or the gallery could not decide
        entry = Entry("re-enroll", who, is_change=True, about=(("space", made_by.space),))
        vectors: dict[str, NDArray[np.float32]] = {}

        def move() -> Awaitable[int]:
            work = partial(Gallery.re_enroll, made_by=made_by, vectors=vectors)
            return self._desk.do(entry, work, lambda count: f"{count} records")

        count = 0
        while not count:  # or everybody has gone, which the next look tells
            await self._look_again(vectors, by, made_by)
            with suppress(Conflict):  # more people have come at the very end
                count = await _patiently(move)
        return made_by.space, count

    async def _look_again(
        self, vectors: dict[str, NDArray[np.float32]], by: VariantRef, made_by: card_pb2.Embedding
    ) -> None:
        """Embeds the kept faces that have no vector yet."""
        for gone in set(vectors) - set(await self._desk.ask(lambda gallery: gallery.others(()))):
            del vectors[gone]
        while others := await self._desk.ask(lambda gallery: gallery.others(vectors)):
            if bare := await self._desk.ask(lambda gallery: gallery.bare()):
                raise Refused(f"no face was kept of {bare} records: delete them, and enrol these people anew")
            for record in others:
                if kept := await self._desk.ask(partial(Gallery.kept_face, record=record)):
                    vectors[record] = await self._vector(record, kept, by, made_by)
        if not await self._desk.ask(len):
            raise Refused("nobody is enrolled: whoever is enrolled next decides the embedding space")

    async def _vector(
        self, record: str, kept: bytes, by: VariantRef, made_by: card_pb2.Embedding
    ) -> NDArray[np.float32]:
        try:
            probe = await _patiently(lambda: self._eyes.again(kept, by))
        except LatheError as error:
            raise type(error)(f"the kept face of record {record}: {error.message}", detail=error.detail) from error
        if probe.made_by.space != made_by.space:
            raise Refused(f"{by} has become another network meanwhile: begin the re-enrolment anew")
        return probe.vector


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    for pause in PAUSES_SECONDS:
        with suppress(Overloaded, Unavailable):
            return await ask()
        await asyncio.sleep(pause)
    return await ask()
