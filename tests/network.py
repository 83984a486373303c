"""A network between a client and a server that can be cut, or fall silent."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Self


class Link:
    """Carries connections on to an address, and what is said on them, until told otherwise.

    Args:
        to: HOST:PORT.
    """

    def __init__(self, to: str) -> None:
        host, _, port = to.rpartition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open = threading.Event()  # cleared: nothing is carried, and nobody is told
        self._open.set()
        self._ended = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._open.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    @property
    def connections(self) -> int:
        """That were made so far."""
        return len(self._pairs)

    def cut(self, *, reset: bool = False) -> None:
        """Ends all connections: in good order, or by a reset as a machine that has forgotten them does."""
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    if reset:
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)  # wakes whoever reads it
                end.close()

    def fall_silent(self) -> None:
        """From now on nothing comes through, and both ends believe that the other one lives."""
        self._open.clear()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._to)
            except OSError:
                near.close()
                continue
            self._pairs.append((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while content := one.recv(65_536):
                self._open.wait()
                other.sendall(content)
            self._open.wait()
            other.shutdown(socket.SHUT_WR)
