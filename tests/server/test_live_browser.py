"""The live page in a real browser: what it shows, what it makes of hostile names, and how it takes a server's end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from lathe.repository import Repository
from lathe.v1 import experiment_pb2, inference_pb2
from tests.browser import Tab, browser
from tests.calls import channel, config, frame, inference, until
from tests.conftest import RunningServer, start_server
from tests.pictures import jpeg, with_orientation

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
LONG = 30.0


@contextlib.contextmanager
def filming(server: RunningServer, cameras: dict[str, bytes], fps: float = 15.0) -> Iterator[None]:
    """Streams that send their one picture again and again."""
    stop = threading.Event()

    def play(name: str, picture: bytes) -> None:
        def messages() -> Iterator[inference_pb2.DetectStreamRequest]:
            yield config(stream_id=name)
            index = 0
            while not stop.wait(1 / fps):
                yield frame(index, picture, capture_time_unix_ns=time.time_ns())
                index += 1

        with channel(server.grpc) as opened, contextlib.suppress(grpc.RpcError):
            for _ in inference(opened).DetectStream(messages()):
                pass

    threads = [threading.Thread(target=play, args=item) for item in cameras.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with browser(tmp_path) as opened:
        yield opened


BRIGHTEST = """globalThis.brightest = picture => {
    if (!picture) return null;
    const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
    canvas.width = canvas.height = 100;
    pen.drawImage(picture, 0, 0, 100, 100);
    const greens = pen.getImageData(0, 0, 100, 100).data.filter((_, index) => index % 4 === 1);
    const place = greens.indexOf(Math.max(...greens));
    return [(place % 100 + 0.5) / 100, (Math.floor(place / 100) + 0.5) / 100];
}; 0"""
"""Where a picture is brightest as the browser shows it, as shares of its width and height."""
CARDS = """[...document.querySelectorAll('.cameras li')].map(card => ({
    name: card.querySelector('.name').textContent,
    by: card.querySelector('.by')?.textContent,
    figures: card.querySelector('.figures').textContent,
    alt: card.querySelector('img')?.alt,
    loaded: card.querySelector('img')?.naturalWidth ?? 0,
    brightest: brightest(card.querySelector('img')),
    boxes: [...card.querySelectorAll('.box')].map(box => {
        const all = card.querySelector('.stage').getBoundingClientRect(), own = box.getBoundingClientRect();
        return [(own.left - all.left) / all.width, (own.top - all.top) / all.height,
            (own.right - all.left) / all.width, (own.bottom - all.top) / all.height];
    }),
}))"""


@pytest.mark.parametrize("mode", ["blurred", "plain"])
def test_it_shows_cameras_with_their_boxes_and_the_variant_without_a_complaint(
    repository: Repository, tmp_path: Path, tab: Tab, mode: str
) -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[96:144, 128:176] = 255  # off both middles
    cameras = {"gate-2": jpeg(pixels), HOSTILE: jpeg(pixels), "turned": with_orientation(jpeg(pixels), 6)}
    with start_server(repository.root, tmp_path / "log", "--live", mode) as server, filming(server, cameras):
        with server.client() as client:
            client.set_route("spots", {"a": 1})
            spec = experiment_pb2.ExperimentSpec(model="spots", max_failed_share=0.5)
            spec.baseline.variant, spec.candidate.variant = "a", "b"
            client.start_experiment(spec)
        tab.open(f"http://{server.http}/live")
        tab.run(BRIGHTEST)
        until(lambda: [card["loaded"] for card in tab.run(CARDS) if card["loaded"]][2:], LONG)
        cards = {card["name"]: card for card in tab.run(CARDS)}
        assert list(cards) == sorted(cameras), "in the order of their names"
        for card in cards.values():
            assert card["by"] in ("a/1", "b/1")
            assert card["boxes"], card
            assert "spot" in card["alt"]
            across, down = card["brightest"]
            assert any(
                left - 0.01 <= across <= right + 0.01 and top - 0.01 <= down <= bottom + 0.01
                for left, top, right, bottom in card["boxes"]
            ), "a box sits on what was found"
            assert (across > 0.5) == (card["name"] == "turned")
        until(lambda: tab.run("document.querySelectorAll('#variants tr').length") == 2, LONG)
        assert "a/1" in tab.run("document.getElementById('variants').textContent")
        assert "b/1 beside a/1" in " ".join(tab.run("document.getElementById('experiments').textContent").split())
        assert tab.run("document.querySelectorAll('#events li').length") > 2
        until(
            lambda: all(" fps" in card["figures"] and "– fps" not in card["figures"] for card in tab.run(CARDS)), LONG
        )
        for width in (400, 1400):
            tab.resize(width, 900)
            assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0, "nobody scrolls sideways"
        assert (tab.run("document.title"), tab.run("document.images.length")) == ("Lathe live", 3)
        assert tab.run("document.scripts.length") == 1
        assert tab.run("getComputedStyle(document.querySelector('.stage img')).imageOrientation") == "none"
        assert tab.complaints == []


def test_a_server_that_goes_is_said_to_be_gone_and_one_that_comes_is_taken_up(
    repository: Repository, tmp_path: Path, tab: Tab, spot_jpeg: bytes
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ("--live", "blurred", "--http", address)
    gone = "!document.getElementById('gone').hidden && document.getElementById('gone').textContent"
    pictures = "document.querySelectorAll('.stage img').length"
    with start_server(repository.root, tmp_path / "first.log", *flags) as server:
        with filming(server, {"gate": spot_jpeg}):
            tab.open(f"http://{address}/live")
            until(lambda: tab.run(pictures) == 1, LONG)
        server.stop()
        until(lambda: "The server does not answer" in (tab.run(gone) or ""), LONG)
        assert tab.run("document.getElementById('status').textContent") == "not connected"
    with (
        start_server(repository.root, tmp_path / "second.log", *flags) as server,
        filming(server, {"another": spot_jpeg}),
    ):
        until(lambda: tab.run(gone) is False, LONG)
        until(lambda: tab.run("document.querySelector('.name')?.textContent") == "another", LONG)
        assert tab.run("document.getElementById('status').textContent") == "live"


def test_nobody_is_asked_while_it_is_paused(repository: Repository, tmp_path: Path, tab: Tab, spot_jpeg: bytes) -> None:
    with start_server(repository.root, tmp_path / "log", "--live", "blurred") as server:
        with filming(server, {"gate": spot_jpeg}):
            tab.open(f"http://{server.http}/live")
            until(lambda: tab.run("document.querySelectorAll('.stage img').length") == 1, LONG)
            tab.run("document.getElementById('pause').click()")
            asked = "performance.getEntriesByName(location.origin + '/live/state').length"
            before = tab.run(asked)
            tab.run("new Promise(done => setTimeout(done, 2500))")
            assert tab.run(asked) - before <= 1, "one may have been under way"
        tab.run("document.getElementById('pause').click()")
        until(lambda: tab.run(asked) > before + 1, LONG)
