"""What a network does to connections: when things arrive, and what a proxy does that stands for one."""

from __future__ import annotations

import contextlib
import math
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lathe_loadtest.fault_proxy import Proxy
from lathe_loadtest.faults import PACKET_BYTES, CutHow, Faults, Lane, Line
from tests.calls import until


def arrivals(faults: Faults, sent: list[tuple[float, int]], name: str = "one") -> list[float]:
    lane = Lane(faults, Line(faults, 0.0, "up"), name)
    return [lane.arrives(at, size) for at, size in sent]


def lateness(faults: Faults, sent: list[tuple[float, int]]) -> list[float]:
    return [at - begun for at, (begun, _) in zip(arrivals(faults, sent), sent, strict=True)]


def evenly(count: int, seconds: float, size: int = PACKET_BYTES) -> list[tuple[float, int]]:
    return [(number * seconds, size) for number in range(count)]


SPECIAL = [
    Faults(),
    Faults(delay_seconds=0.02, jitter_seconds=0.05),
    Faults(loss=0.2),
    Faults(stalls_per_second=2.0, stall_seconds=0.3),
    Faults(bytes_per_second=1e5),
    Faults(delay_seconds=0.01, jitter_seconds=0.01, loss=0.1, stalls_per_second=1, stall_seconds=0.1, seed=3),
]


@pytest.mark.parametrize("faults", SPECIAL)
@given(gaps=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 100_000)), min_size=1, max_size=50))
def test_whatever_happens_all_arrives_in_order_and_none_before_it_was_sent(
    faults: Faults, gaps: list[tuple[float, int]]
) -> None:
    now, sent = 0.0, []
    for gap, size in gaps:
        now += gap
        sent.append((now, size))
    found = arrivals(faults, sent)
    assert all(earlier <= later for earlier, later in pairwise(found))
    assert all(at >= begun + faults.delay_seconds for at, (begun, _) in zip(found, sent, strict=True))


def test_a_good_network_takes_no_time() -> None:
    assert arrivals(Faults(), evenly(5, 0.1)) == [at for at, _ in evenly(5, 0.1)]


def test_the_same_seed_has_the_same_faults_and_another_has_others() -> None:
    sent = evenly(500, 0.01)
    found = [arrivals(Faults(loss=0.05, seed=seed), sent) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_a_lost_packet_holds_back_what_is_behind_it_and_losses_are_as_frequent_as_said() -> None:
    loss, count = 0.02, 20_000
    late = lateness(Faults(loss=loss), evenly(count, 10.0))
    stalled = sum(seconds > 0 for seconds in late)
    assert abs(stalled - loss * count) < 4 * math.sqrt(count * loss * (1 - loss))
    assert min(seconds for seconds in late if seconds) == pytest.approx(0.2)
    assert max(late) >= 0.59  # where the second is lost as well: 0.2 and 0.4
    assert sum(seconds > 0 for seconds in lateness(Faults(loss=loss), evenly(count, 0.001))) > 20 * stalled


def test_a_large_frame_is_hit_more_often_than_a_small_one() -> None:
    hit = [
        sum(seconds > 0 for seconds in lateness(Faults(loss=0.01), evenly(2000, 10.0, size))) for size in (500, 50_000)
    ]
    assert hit[0] / 2000 == pytest.approx(0.01, abs=0.008)
    assert hit[1] / 2000 == pytest.approx(1 - 0.99 ** math.ceil(50_000 / PACKET_BYTES), abs=0.04)


def test_stalls_take_the_share_of_time_that_was_asked_for() -> None:
    faults = Faults(stalls_per_second=0.5, stall_seconds=0.5)
    late = lateness(faults, evenly(200_000, 0.01, 0))
    assert sum(seconds > 0 for seconds in late) / len(late) == pytest.approx(
        0.5 / (2 + 0.5), rel=0.1
    )  # 2 seconds between them


def test_a_stall_is_of_all_connections_and_a_loss_of_one() -> None:
    stalling = Faults(stalls_per_second=1.0, stall_seconds=1.0)
    line = Line(stalling, 0.0, "up")
    lanes = [Lane(stalling, line, name) for name in ("one", "other")]
    assert all(lanes[0].arrives(at, 0) == lanes[1].arrives(at, 0) for at, _ in evenly(1000, 0.05))
    assert arrivals(Faults(loss=0.1), evenly(100, 1.0), "one") != arrivals(Faults(loss=0.1), evenly(100, 1.0), "other")


def test_connections_share_the_bandwidth() -> None:
    faults = Faults(bytes_per_second=1e6)
    line = Line(faults, 0.0, "up")
    lanes = [Lane(faults, line, str(number)) for number in range(4)]
    assert max(lane.arrives(0.0, 250_000) for lane in lanes) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"loss": 1.0}, "loss is a share"),
        ({"loss": -0.1}, "loss is a share"),
        ({"stall_seconds": -1.0}, "stall_seconds must not be negative"),
        ({"bytes_per_second": math.inf}, "bytes_per_second must not be"),
        ({"delay_seconds": math.nan}, "delay_seconds must not be"),
    ],
)
def test_a_network_that_cannot_be_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Faults(**how)


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(2**16):
                self.request.sendall(data)


@contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def echoing() -> AbstractContextManager[str]:
    """A server that answers with what it is sent."""
    return serving(Echo)


def connect(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def receive(opened: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := opened.recv(2**16)):
        data += more
    return data


@pytest.mark.parametrize(
    "faults", [Faults(), Faults(delay_seconds=0.01, jitter_seconds=0.01, loss=0.02, retransmit_seconds=0.01)]
)
def test_all_bytes_come_through_in_order(faults: Faults) -> None:
    data = bytes(range(256)) * 8000
    with echoing() as address, Proxy(address, faults=faults) as proxy, connect(proxy) as opened:
        sending = threading.Thread(target=opened.sendall, args=(data,))
        sending.start()
        assert receive(opened, len(data)) == data
        sending.join()


def test_the_delay_is_of_both_ways() -> None:
    with echoing() as address, Proxy(address, 0.05) as proxy, connect(proxy) as opened:
        began = time.monotonic()
        opened.sendall(b"hello")
        assert receive(opened, 5) == b"hello"
        assert time.monotonic() - began >= 0.1


def test_a_narrow_line_takes_the_time_of_its_bandwidth_and_holds_the_sender_back() -> None:
    faults = Faults(bytes_per_second=16e6)
    data = bytes(16_000_000)  # more than the system takes in by itself
    with echoing() as address, Proxy(address, faults=faults) as proxy, connect(proxy) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        began = time.monotonic()
        sending = threading.Thread(target=opened.sendall, args=(data,))
        sending.start()
        sending.join()
        sent_after = time.monotonic() - began
        assert receive(opened, len(data)) == data
        assert time.monotonic() - began >= 0.8
        assert sent_after > 0.1, "a sender that feels nothing would have been done at once"


def end_of(opened: socket.socket) -> str:
    opened.settimeout(0.3)
    try:
        return "close" if opened.recv(1) == b"" else "data"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "silence"


@pytest.mark.parametrize("how", ["reset", "close", "silence"])
def test_a_cut_looks_to_the_client_like_what_it_is(how: CutHow) -> None:
    with echoing() as address, Proxy(address) as proxy, connect(proxy) as opened:
        opened.sendall(b"hello")
        assert receive(opened, 5) == b"hello"
        proxy.cut(how)
        if how == "silence":
            opened.sendall(b"is anybody there")
        assert end_of(opened) == how
        assert proxy.cuts == 1


def test_a_connection_that_is_silent_does_not_tell_its_end_either() -> None:
    ended = threading.Event()

    class Waiting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)
            ended.set()

    with serving(Waiting) as address, Proxy(address) as proxy:
        with connect(proxy):
            until(lambda: proxy.taken == 1)
            proxy.cut("silence")
        with connect(proxy) as another:  # by the time that it is through, the end of the other would be, too
            until(lambda: proxy.taken == 2)
            assert end_of(another) == "silence"
        assert not ended.is_set()


def test_a_line_that_is_full_does_not_hold_up_its_end(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(bytes_per_second=1000.0)
    with echoing() as address, Proxy(address, faults=faults) as proxy, connect(proxy) as opened:
        opened.sendall(bytes(50_000))  # for which it would need almost a minute
        until(lambda: proxy.taken == 1)
    assert caplog.records == []


def test_what_is_cut_is_not_cut_again() -> None:
    with echoing() as address, Proxy(address) as proxy, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(proxy)) for _ in range(2)]
        until(lambda: proxy.taken == 2)
        proxy.cut("reset", 0.5)
        proxy.cut("reset", 0.5)
        assert list(map(end_of, opened)) == ["reset", "reset"]
        assert proxy.cuts == 2


def test_a_share_of_the_connections_is_cut_and_new_ones_are_taken() -> None:
    with echoing() as address, Proxy(address) as proxy, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(proxy)) for _ in range(8)]
        until(lambda: proxy.taken == 8)
        proxy.cut("reset", 0.25)
        assert sorted(map(end_of, opened)) == ["reset"] * 2 + ["silence"] * 6
        another = stack.enter_context(connect(proxy))
        another.sendall(b"hello")
        assert receive(another, 5) == b"hello"


def test_connections_are_cut_at_random_moments() -> None:
    faults = Faults(cuts_per_second=50.0, cut_how="close")
    with echoing() as address, Proxy(address, faults=faults) as proxy, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(proxy)) for _ in range(3)]
        until(lambda: proxy.cuts >= 3)
        assert [receive(one, 1) for one in opened] == [b""] * 3


def test_a_proxy_before_no_server_takes_no_connection() -> None:
    with echoing() as address:
        pass
    with Proxy(address) as proxy, connect(proxy) as opened:
        assert end_of(opened) in ("close", "reset")
        assert proxy.taken == 0
