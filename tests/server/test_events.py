"""What watchers are told, and a route that lies in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lathe.cli import main
from lathe.client import ServerError
from lathe.v1 import control_pb2
from lathe_server.events import KEPT, MOST_UNREAD, Events
from lathe_server.metrics import Metrics
from tests.calls import metric
from tests.conftest import RunningServer


def kind(event: control_pb2.Event) -> str:
    return control_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_").lower()


def test_a_watcher_hears_of_swaps_refused_ones_too(server: RunningServer) -> None:
    with server.client() as client:
        client.set_route("spots", {"b": 1})
        with pytest.raises(ServerError):
            client.set_route("spots", {"lost": 1})
        heard = []
        for event in client.events("spots"):
            heard.append(event)
            if event.kind == control_pb2.EVENT_KIND_REFUSED:
                break
    assert [(kind(event), event.text.partition(" on ")[0]) for event in heard] == [
        ("loading", "spots/a/1"),
        ("loaded", "spots/a/1"),
        ("routed", "a/1=1"),
        ("loading", "spots/b/1"),
        ("loaded", "spots/b/1"),
        ("routed", "b/1=1"),
        ("unloaded", "spots/a/1"),
        ("refused", "model spots has no variant lost; it has a, b"),
    ]
    assert [event.revision for event in heard if kind(event) == "routed"] == [0, 1]
    assert metric(server, "lathe_events_total", kind="routed") == 2
    assert metric(server, "lathe_route_revision", model="spots") == 1
    at = metric(server, "lathe_event_timestamp_seconds", kind="refused")
    assert at == pytest.approx(heard[-1].at.ToNanoseconds() / 1e9)
    assert heard[3].variant.variant == "b"


def test_watchers_are_let_go_when_the_server_goes(server: RunningServer) -> None:
    with server.client() as client:
        events = client.events()
        assert kind(next(events)) == "loading"
        server.process.terminate()
        assert {kind(event) for event in events} <= {"loaded", "routed", "unloaded"}
    assert server.process.wait(10) == 0


def test_a_watcher_that_does_not_listen_is_let_go_and_costs_no_more_memory() -> None:
    async def act() -> int:
        events = Events(Metrics())
        for number in range(KEPT + 50):
            events.tell(control_pb2.EVENT_KIND_ROUTED, "spots", str(number))
        watching = events.watch("")
        first = await anext(watching)
        assert first.text == "50", "the newest are kept"
        for number in range(2 * MOST_UNREAD):
            events.tell(control_pb2.EVENT_KIND_ROUTED, "spots", str(number))
        return len([event async for event in watching])

    assert asyncio.run(act()) == MOST_UNREAD


def test_a_route_in_a_file_is_brought_about_once(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "route.toml"
    file.write_text(
        'model = "spots"\n'
        '[[weights]]\nvariant = "a"\nweight = 3\n'
        '[[weights]]\nvariant = "b/1"\nweight = 1\n'
        '[degrade]\nto = ["b"]\nafter_seconds = 0.2\n'
        '[shadow]\nvariant = "b"\nshare = 0.5\n'
        '[[rules]]\nprefix = "lobby-"\nvariant = "b"\n'
        '[[rules]]\nheader = "x-site"\nvalue = "gate"\nvariant = "b"\n'
        '[[labels]]\nname = "stable"\nvariant = "a/1"\n'
    )
    command = ["apply", str(file), "--control", server.control]
    assert main([*command, "--dry-run"]) == 0
    assert "would change revision 0" in capsys.readouterr().out
    assert main(command) == 0
    assert "spots revision 1: a/1=3 b/1=1" in capsys.readouterr().out
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    with server.client() as client:
        route = client.route("spots")
    assert (route.revision, route.reason) == (1, "lathe apply route.toml")
    assert (route.shadow.variant.variant, route.shadow.share) == ("b", 0.5)
    told = [(rule.prefix, rule.header, rule.value, rule.variant.variant) for rule in route.rules]
    assert told == [("lobby-", "", "", "b"), ("", "x-site", "gate", "b")]
    assert [(label.name, label.variant.version) for label in route.labels] == [("stable", 1)]
    file.write_text('model = "spots"\n[[weights]]\nvariant = "a"\nwieght = 3\n')
    assert main(command) == 1
    assert 'line 4: unknown key "wieght"; did you mean "weight"?' in capsys.readouterr().err
