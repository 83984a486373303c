"""However many scrape at once, the work is done once, and nobody gets figures from before he asked."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Gauge

from lathe_server.exposition import Exposition, Text

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Watched:
    """An exposition of how often it was made."""

    def __init__(self) -> None:
        self.made = 0
        self.has_begun = asyncio.Event()
        self.cpu_seconds: list[float] = []
        registry = CollectorRegistry()
        self._number = Gauge("number", "Of this text", registry=registry)
        self.exposition = Exposition(registry, self._refresh, self.cpu_seconds.append)

    def _refresh(self) -> None:
        self.made += 1
        self.has_begun.set()
        self._number.set(self.made)


@pytest.mark.fault(83)
def test_a_hundred_who_ask_at_once_get_one_text() -> None:
    async def ask() -> list[Text]:
        return await asyncio.gather(*(watched.exposition.text("") for _ in range(100)))

    watched = Watched()
    texts = asyncio.run(ask())
    assert watched.made == 1
    assert {text.content for text in texts} == {b"# HELP number Of this text\n# TYPE number gauge\nnumber 1.0\n"}
    assert len(watched.cpu_seconds) == 1


def test_who_asks_while_a_text_is_made_gets_the_next() -> None:
    async def ask() -> list[Text]:
        first = asyncio.create_task(watched.exposition.text(""))
        await watched.has_begun.wait()
        later = [asyncio.create_task(watched.exposition.text("")) for _ in range(3)]
        return await asyncio.gather(first, *later)

    watched = Watched()
    numbers = [text.content.split()[-1] for text in asyncio.run(ask())]
    assert numbers == [b"1.0", b"2.0", b"2.0", b"2.0"]


def test_who_leaves_takes_nothing_from_the_others() -> None:
    async def ask() -> Text:
        leaves = asyncio.create_task(watched.exposition.text(""))
        stays = asyncio.create_task(watched.exposition.text(""))
        await asyncio.sleep(0)
        leaves.cancel()
        return await stays

    watched = Watched()
    assert asyncio.run(ask()).content.endswith(b"number 1.0\n")


@pytest.mark.fault(83)
def test_formats_that_nobody_serves_are_no_texts_of_their_own() -> None:
    async def ask() -> list[Text]:
        made_up = [f"application/openmetrics-text;version=1.0.{number}" for number in range(50)]
        senseless = ["application/openmetrics-text;version=abc", "text/plain;version=x;q=y", "*/*", ",;="]
        return await asyncio.gather(*(watched.exposition.text(accept) for accept in made_up + senseless))

    watched = Watched()
    texts = asyncio.run(ask())
    assert watched.made == 2
    assert {text.content_type.partition(";")[0] for text in texts} == {"application/openmetrics-text", "text/plain"}


def test_each_format_has_its_own_text() -> None:
    async def ask() -> list[Text]:
        return await asyncio.gather(watched.exposition.text(""), watched.exposition.text(OPEN_METRICS))

    watched = Watched()
    plain, opened = asyncio.run(ask())
    assert plain.content_type.startswith("text/plain")
    assert opened.content_type.startswith("application/openmetrics-text")
    assert opened.content.endswith(b"# EOF\n")
