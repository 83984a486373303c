"""A stream that outlives its connections: where a call is cut, another one goes on."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, suppress
from typing import Any

import grpc
from grpc import aio

from lathe.errors import InvalidInput, Unavailable
from lathe.exchange import Picture, Result, frame_message
from lathe.ledger import Ledger, Live, Message, Recording, goes_on, pause_seconds
from lathe.server_error import server_error
from lathe.v1 import inference_pb2

FRAMES_AHEAD = 4
"""Frames that a stream which is not live sends before it has the answer to the first of them: enough to keep
two workers busy, few enough that no old ones pile up in the network's buffers."""

TAKEN_SECONDS = 1.0
"""A server says at once what it does not take; so a call that has stood for so long was taken."""

_MADE_UP = "Internal error from Core"
"""Details of the status that grpc.aio makes up when a write fails."""
_LOOKS, _LOOK_SECONDS = 100, 0.01
"""For the true one, where it is not there yet."""


class ResumingStream:
    """The frames of one camera or recording, over as many calls as it takes.

    One task draws frames and sends them, the caller's own reads the results, and a third one looks for a server while
    there is no call. None is looked for before there is a frame to send: an idle camera whose connection is cut every
    minute must not be given up for that.

    Args:
        method: `DetectStream` of a stub.
        reconnect_seconds: how long the stream looks for a server once it has begun and been cut.

    Raises:
        InvalidInput: such a time cannot be.
    """

    def __init__(self, method: Any, config: inference_pb2.StreamConfig, reconnect_seconds: float) -> None:
        if not reconnect_seconds >= 0:
            raise InvalidInput("reconnect_seconds is 0 (never) or above")
        self._method = method
        self._config = config
        self._reconnect_seconds = reconnect_seconds
        again = reconnect_seconds > 0
        self._ledger: Ledger = Recording(FRAMES_AHEAD, again=again) if config.keep_all else Live()
        self._writing = asyncio.Lock()
        self._room = asyncio.Event()
        self._changed = asyncio.Event()  # for whoever waits while there is no call
        self._has_begun = False
        self._source_has_ended = False
        self._attempts = 0  # since the last result
        self._seconds_left = reconnect_seconds  # to look for a server; an idle stream uses none up

    async def results(self, frames: AsyncIterable[tuple[Picture, float]]) -> AsyncGenerator[Result, None]:
        """See `AsyncClient.detect_stream`. Once only."""
        self._call = _Call(self._method())
        feeding: asyncio.Task[None] | None = None
        try:
            if await self._open():  # otherwise the source stays untouched
                feeding = asyncio.create_task(self._feed(frames))
            while True:
                while (result := await self._answer()) is not None:
                    yield result
                code, details = await self._call.end()
                if not self._goes_on(code):
                    if code is not grpc.StatusCode.OK:
                        raise server_error(code, details)
                    break
                reason = server_error(code, details).message or "the server went away"
                async with aclosing(self._resume(reason)) as lost:
                    async for result in lost:
                        yield result
                if self._is_done:
                    break
            if feeding and self._source_has_ended:
                await feeding  # raises what the source raised
        finally:
            if feeding:
                feeding.cancel()
            await self._call.close()
            if feeding:
                await asyncio.gather(feeding, return_exceptions=True)

    @property
    def _is_done(self) -> bool:
        return self._source_has_ended and self._ledger.settled == self._ledger.drawn

    async def _answer(self) -> Result | None:
        """The next result on this call; None at its end."""
        while (response := await self._call.read()) is not None:
            self._has_begun = self._call.is_answered = True
            if self._ledger.settle(response.result.outcome):
                self._attempts, self._seconds_left = 0, self._reconnect_seconds
                self._room.set()
                return Result.from_message(response.result)
        return None

    def _goes_on(self, code: grpc.StatusCode) -> bool:
        self._has_begun |= self._call.stood_seconds > TAKEN_SECONDS
        return self._reconnect_seconds > 0 and goes_on(
            code, has_begun=self._has_begun, is_answered=self._call.is_answered, is_owed=self._ledger.is_owed
        )

    async def _feed(self, frames: AsyncIterable[tuple[Picture, float]]) -> None:
        try:
            async for picture, captured_at in frames:
                self._ledger.draw(Message(frame=frame_message(self._ledger.drawn, picture, captured_at)))
                await self._flush()
                while self._ledger.is_full:
                    self._room.clear()
                    await self._room.wait()
        finally:  # where the source failed, too: what it gave before is answered, and the stream ends
            self._source_has_ended = True
            await self._flush()

    async def _flush(self) -> None:
        """Sends what there is to send, as fast as the server reads."""
        async with self._writing:
            while (message := self._ledger.send()) is not None:
                if not await self._call.write(message):
                    self._ledger.cut()
            if self._source_has_ended and self._ledger.is_open:
                await self._call.done_writing()
        self._changed.set()

    async def _open(self) -> bool:
        """Begins the call; False where it has ended already."""
        async with self._writing:
            if await self._call.begin(self._config):
                self._ledger.open()
        return self._ledger.is_open

    async def _resume(self, reason: str) -> AsyncGenerator[Result, None]:
        """Yields results of what is lost until there is a new call, or nothing left to send.

        Raises:
            Unavailable: no server was found in time.
        """
        self._ledger.cut()
        cut_at = time.monotonic()
        connecting: asyncio.Task[None] | None = None
        try:
            while True:
                while self._ledger.lost:
                    yield Result.disconnected(self._ledger.settle_lost(), self._config.model)
                if connecting and connecting.done():
                    connecting.result()
                    return
                if not connecting and self._ledger.waits:
                    connecting = asyncio.create_task(self._connect(cut_at, reason))
                    connecting.add_done_callback(lambda _: self._changed.set())
                if not connecting and self._source_has_ended:
                    return
                self._changed.clear()
                await self._changed.wait()
        finally:
            if connecting:
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)

    async def _connect(self, cut_at: float, reason: str) -> None:
        """Opens a call as soon as a server takes connections, and sends what waits.

        Raises:
            Unavailable: none does in time.
        """
        began = time.monotonic()
        pause = pause_seconds(self._attempts, random.random())
        self._attempts += 1
        try:
            async with asyncio.timeout(self._seconds_left):
                await asyncio.sleep(cut_at + pause - began)
                self._call = _Call(self._method(wait_for_ready=True))
                await self._call.connected()
        except TimeoutError:
            raise Unavailable(f"{reason}, and no server was found for {self._reconnect_seconds:g} s") from None
        self._seconds_left -= time.monotonic() - began
        if await self._open():
            await self._flush()


class _Call:
    """One call of a stream. Whatever fails on it ends it, and only `end` says why.

    Attributes:
        is_answered: it has given a response.
    """

    def __init__(self, call: Any) -> None:
        self.is_answered = False
        self._call = call
        self._responses = aiter(call)
        self._first_status: tuple[grpc.StatusCode, str] | None = None
        self._begun_at = self._ended_at = math.inf
        call.add_done_callback(self._on_end)

    def _on_end(self, call: Any) -> None:
        self._first_status = self._first_status or (_at_once(call.code()), _at_once(call.details()) or "")
        self._ended_at = time.monotonic()

    @property
    def stood_seconds(self) -> float:
        """From its configuration to its end."""
        return self._ended_at - self._begun_at

    async def connected(self) -> None:
        """Waits until a server takes connections, or the call has ended."""
        with suppress(aio.AioRpcError):
            await self._call.wait_for_connection()

    async def begin(self, config: inference_pb2.StreamConfig) -> bool:
        """Sends the configuration; False where the call has ended."""
        is_begun = await self.write(Message(config=config))
        self._begun_at = time.monotonic() if is_begun else math.inf
        return is_begun

    async def write(self, message: Message) -> bool:
        """Waits until the server has room for the message; False where the call has ended."""
        try:
            await self._call.write(message)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def done_writing(self) -> None:
        with suppress(aio.InternalError):
            await self._call.done_writing()

    async def read(self) -> inference_pb2.DetectStreamResponse | None:
        """The next response; None at the end. Responses that came before the end are given, whatever ended it."""
        try:
            response: inference_pb2.DetectStreamResponse = await anext(self._responses)
        except (aio.AioRpcError, StopAsyncIteration):
            return None
        return response

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Its status, and the server's or gRPC's words for it.

        A write that fails because the call has ended makes up a status, before or after the true one is there, and the
        later replaces the earlier (grpc issue 36066).
        """
        for _ in range(_LOOKS):
            status = await self._call.code(), await self._call.details() or ""
            for code, details in (self._first_status or status, status):
                if details != _MADE_UP:
                    return code, details
            await asyncio.sleep(_LOOK_SECONDS)
        return status

    async def close(self) -> None:
        """Ends it where it has not ended; then gRPC has no task of its own left, which a closed loop would not like."""
        self._call.cancel()
        await asyncio.gather(self._rest(), return_exceptions=True)

    async def _rest(self) -> None:
        async for _ in self._responses:
            pass


def _at_once(coroutine: Any) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("the coroutine waits")
