"""Where a scenario is played: a server that is there or one of its own, perhaps with a bad network before it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lathe.client import AsyncClient
from lathe.connection import Connection
from lathe.errors import InvalidInput
from lathe.machine import available_cores
from lathe.server_process import ServerProcess
from lathe_loadtest.actions import AUTHOR, Moment, not_ours, weights_of
from lathe_loadtest.fault_proxy import Proxy
from lathe_loadtest.scenario import Scenario


@dataclass(frozen=True)
class Target:
    """A server's addresses, HOST:PORT each.

    Attributes:
        grpc: where cameras send.
        http: of /metrics; empty where it has none that can be reached.
        connection: token and certificates; those of the environment where there is none.
        behind: the server's own, where `grpc` is that of a proxy before it.

    Raises:
        InvalidInput: one is no HOST:PORT.
    """

    grpc: str = "127.0.0.1:8500"
    http: str = "127.0.0.1:8501"
    control: str = "127.0.0.1:8502"
    connection: Connection | None = None
    behind: str = ""

    def __post_init__(self) -> None:
        for address in (self.grpc, *filter(None, (self.http, self.control))):
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or int(port) > 65535:
                raise InvalidInput(f"{address} is not HOST:PORT")

    @property
    def server(self) -> str:
        """HOST:PORT of the server itself."""
        return self.behind or self.grpc


class OwnServer:
    """A server that the load test has started, and may start anew at the same addresses.

    Raises:
        Unavailable: it did not start.
    """

    def __init__(self, repository: Path, folder: Path, flags: Sequence[str] = ()) -> None:
        self._repository, self._folder, self._flags = repository, folder, tuple(flags)
        self._starts = 0
        self._running = self._start(())
        ports = ("--grpc", self._running.grpc, "--http", self._running.http, "--control", self._running.control)
        self._ports = ports
        self.target = Target(self._running.grpc, self._running.http, self._running.control, Connection())

    @property
    def pid(self) -> int:
        return self._running.process.pid

    def restart(self, *, kill: bool = False) -> None:
        """Ends it, and starts it where it was.

        Args:
            kill: without asking; otherwise it drains first.
        """
        if not kill:
            self._running.stop()
        self._running.close()
        self._running = self._start(self._ports)

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._running.process.poll() is None:
                self._running.stop()
        self._running.close()

    def _start(self, ports: Sequence[str]) -> ServerProcess:
        self._starts += 1
        log = self._folder / ("server.log" if self._starts == 1 else f"server-{self._starts}.log")
        return ServerProcess(self._repository, log, (*ports, *self._flags))


class Stage:
    """Attributes:
    target: where cameras send: the server, or the proxy before it.
    address: of the server itself.
    """

    def __init__(self, target: Target, own: OwnServer | None = None, proxy: Proxy | None = None) -> None:
        self._server = target
        self._own = own
        self._proxy = proxy
        self.target = replace(target, grpc=proxy.address, behind=target.grpc) if proxy else target
        self.address = target.grpc

    def client(self) -> AsyncClient:
        """Of the server itself, whatever lies between it and the cameras."""
        return AsyncClient(self._server.grpc, self._server.control, self._server.connection)

    def do(self, model: str, moment: Moment) -> None:
        """Carries an action out, and returns when it is done; blocks.

        Raises:
            Refused: there is no server of its own, or no proxy.
            LatheError: the server refused it, or cannot be reached.
        """
        action = moment.action
        if action.do in ("restart", "kill"):
            if not self._own:
                raise not_ours(moment)
            self._own.restart(kill=action.do == "kill")
        elif action.do == "cut":
            if not self._proxy:
                raise not_ours(moment)
            self._proxy.cut(action.how, action.share)
        else:
            asyncio.run(self._control(model, moment))

    async def _control(self, model: str, moment: Moment) -> None:
        async with self.client() as client:
            if moment.action.do == "rollback":
                await client.rollback(model, author=AUTHOR)
            else:
                await client.set_route(
                    model,
                    weights_of(moment),
                    author=AUTHOR,
                    degrade=moment.action.degrade,
                    degrade_after_seconds=moment.action.degrade_after_seconds,
                )


def needs_proxy(scenario: Scenario) -> bool:
    return scenario.faults is not None or any(action.do == "cut" for action in scenario.actions)


@contextmanager
def staged(
    scenario: Scenario,
    target: Target | None = None,
    *,
    serve: Path | None = None,
    folder: Path,
    flags: Sequence[str] = (),
) -> Iterator[Stage]:
    """What a scenario needs, while the context lasts.

    Args:
        target: a server that is there; not looked at where `serve` is given.
        serve: a repository for a server of one's own, which leaves a core to who sends. Routes are written into it:
            give a copy of what is dear.
        folder: for that server's log.
        flags: for that server.

    Raises:
        Unavailable: the server did not start.
    """
    with contextlib.ExitStack() as stack:
        workers = () if "--workers" in flags else ("--workers", str(max(1, available_cores() - 1)))
        own = OwnServer(serve, folder, (*workers, *flags)) if serve else None
        if own:
            stack.callback(own.close)
        server = own.target if own else target or Target()
        proxy = None
        if needs_proxy(scenario):
            proxy = stack.enter_context(Proxy(server.grpc, faults=scenario.faults))
        yield Stage(server, own, proxy)
