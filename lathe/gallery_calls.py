"""A server's gallery, asyncio and blocking: whose face is it?

    with Client() as client:
        client.gallery.enroll("badge 7", open("portrait.jpg", "rb").read())
        verdict = client.gallery.verify("badge 7", open("gate.jpg", "rb").read())
        print(verdict.match, verdict.similarity)

A face is a picture of it, as `Client.detect` takes them, or its embedding: an `Embeddings` that holds one vector.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

from lathe.embeddings import Embeddings
from lathe.errors import InvalidInput
from lathe.exchange import Picture, frame_message
from lathe.server_error import server_error, translated
from lathe.v1 import gallery_pb2

Face: TypeAlias = "Picture | Embeddings"


class AsyncGallery:
    """For asyncio, as `AsyncClient.gallery`. Its errors are those of the client's other calls.

    Args:
        stub: of GalleryService.
    """

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def enroll(self, subject: str, face: Face, *, largest: bool = False) -> gallery_pb2.EnrollResponse:
        """Adds a template to a person, who may be new; it is on the server's disk when this returns.

        Each call adds one: where no answer came, it may be there all the same. Look (`export`) before you try again.

        Args:
            largest: of several faces in a picture the largest is meant; without it a picture has to show one.
        """
        request = gallery_pb2.EnrollRequest(subject=subject, face=_face(face, largest))
        response: gallery_pb2.EnrollResponse = await translated(self._stub.Enroll(request))
        return response

    async def verify(
        self, subject: str, face: Face, *, fmr: float = 0.0, largest: bool = False
    ) -> gallery_pb2.VerifyResponse:
        """Whether it is this person's face; how alike it is, the answer says of pictures only.

        Args:
            fmr: share of comparisons of two people that may match; 0 takes the server's. A higher one is for those who
                may enrol.
        """
        request = gallery_pb2.VerifyRequest(subject=subject, face=_face(face, largest), fmr=fmr)
        response: gallery_pb2.VerifyResponse = await translated(self._stub.Verify(request))
        return response

    async def identify(
        self, face: Face, *, fmr: float = 0.0, limit: int = 1, largest: bool = False
    ) -> gallery_pb2.IdentifyResponse:
        """Whose face it may be, the most alike first.

        Args:
            fmr: as of `verify`; with N templates a stranger's face matches N x fmr of them on average.
            limit: most people.
        """
        request = gallery_pb2.IdentifyRequest(face=_face(face, largest), fmr=fmr, limit=limit)
        response: gallery_pb2.IdentifyResponse = await translated(self._stub.Identify(request))
        return response

    async def delete(self, subject: str, record: str = "") -> int:
        """Deletes a person's records, or one of them, for good; returns how many."""
        request = gallery_pb2.DeleteRequest(subject=subject, record=record)
        return int((await translated(self._stub.Delete(request))).records)

    async def export(self, subject: str = "", *, vectors: bool = False) -> AsyncIterator[gallery_pb2.EnrolledRecord]:
        """What is kept of a person, or of all.

        Args:
            vectors: with them, which are biometric data.
        """
        import grpc

        call = self._stub.Export(gallery_pb2.ExportRequest(subject=subject, vectors=vectors))
        try:
            async for response in call:
                yield response.record
        except grpc.aio.AioRpcError as error:
            raise server_error(error.code(), error.details() or "") from None
        finally:
            call.cancel()

    async def re_enroll(self, variant: str) -> gallery_pb2.ReEnrollResponse:
        """Embeds all kept faces anew with a variant of the embedding network, which must be in memory."""
        request = gallery_pb2.ReEnrollRequest(variant=variant)
        response: gallery_pb2.ReEnrollResponse = await translated(self._stub.ReEnroll(request))
        return response

    async def describe(self) -> gallery_pb2.DescribeResponse:
        response: gallery_pb2.DescribeResponse = await translated(self._stub.Describe(gallery_pb2.DescribeRequest()))
        return response


class Gallery:
    """The same, blocking, as `Client.gallery`."""

    def __init__(self, runner: asyncio.Runner, gallery: AsyncGallery) -> None:
        self._runner = runner
        self._gallery = gallery

    def enroll(self, subject: str, face: Face, *, largest: bool = False) -> gallery_pb2.EnrollResponse:
        """See `AsyncGallery.enroll`."""
        return self._runner.run(self._gallery.enroll(subject, face, largest=largest))

    def verify(self, subject: str, face: Face, **how: Any) -> gallery_pb2.VerifyResponse:
        """See `AsyncGallery.verify`."""
        return self._runner.run(self._gallery.verify(subject, face, **how))

    def identify(self, face: Face, **how: Any) -> gallery_pb2.IdentifyResponse:
        """See `AsyncGallery.identify`."""
        return self._runner.run(self._gallery.identify(face, **how))

    def delete(self, subject: str, record: str = "") -> int:
        """See `AsyncGallery.delete`."""
        return self._runner.run(self._gallery.delete(subject, record))

    def export(self, subject: str = "", *, vectors: bool = False) -> Iterator[gallery_pb2.EnrolledRecord]:
        """See `AsyncGallery.export`."""
        records = self._gallery.export(subject, vectors=vectors)
        try:
            while (record := self._runner.run(_next(records))) is not None:
                yield record
        finally:
            self._runner.run(_close(records))

    def re_enroll(self, variant: str) -> gallery_pb2.ReEnrollResponse:
        """See `AsyncGallery.re_enroll`."""
        return self._runner.run(self._gallery.re_enroll(variant))

    def describe(self) -> gallery_pb2.DescribeResponse:
        """See `AsyncGallery.describe`."""
        return self._runner.run(self._gallery.describe())


def _face(face: Face, largest: bool) -> gallery_pb2.Face:
    if not isinstance(face, Embeddings):
        return gallery_pb2.Face(frame=frame_message(0, face), largest=largest)
    if len(face) != 1:
        raise InvalidInput(f"a face has one embedding, and these are {len(face)}")
    vector = gallery_pb2.FaceVector(values=face.vectors[0].tolist(), space=face.space)
    return gallery_pb2.Face(embedding=vector)


async def _next(records: AsyncIterator[gallery_pb2.EnrolledRecord]) -> gallery_pb2.EnrolledRecord | None:
    return await anext(records, None)


async def _close(records: Any) -> None:
    await records.aclose()
