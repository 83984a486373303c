"""`lathe demo --biometric`: known people are enrolled and found again, the embedding network changes, a person goes.

A real server with a gallery of its own: the shipped models, a fresh key that lies in no file, and real faces. What is
enrolled is gone when the demo ends.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lathe.client import AsyncClient
from lathe.demo.biometric_findings import BiometricFindings, Judged, show
from lathe.demo.face_sheet import sheet
from lathe.demo.gallery_acts import Deletion, Planned, Unplanned, delete, swap_planned, swap_unplanned
from lathe.demo.portraits import Cast, cast, load_portraits
from lathe.demo.searches import Searches, search_all
from lathe.demo.two_spaces import DETECTOR, EMBEDDER, TwoSpaces, choose
from lathe.demo.workspace import fresh_folder, orderly_end, passing_folder
from lathe.pipeline_file import PipelineSpec
from lathe.progress import Progress
from lathe.repository import Repository
from lathe.scrape import scrape
from lathe.server_process import ServerProcess
from lathe.v1 import card_pb2

PIPELINE = "face-id"
FMR = 0.001
"""At which the gallery decides."""


@dataclass(frozen=True)
class BiometricDemo:
    """Attributes:
    shipped: repository with a face detector and an embedding network in two spaces; it is copied, never changed.
    output: folder of what is made: figures, picture, log; its `models` and `gallery` are made anew.
    """

    shipped: Path
    output: Path

    def run(self) -> int:
        """Returns the exit code: 1 where a bar is missed.

        Raises:
            LatheError: a step failed; the message says which thing to mend.
        """
        progress, console = Progress(), Console()
        spaces = choose(self.shipped, FMR)
        with progress.step("portraits: read"):
            people = cast(load_portraits(), spaces.made(), spaces.seen())
        self.output.mkdir(parents=True, exist_ok=True)
        models = self._copy(spaces)
        with orderly_end(), passing_folder(self.output / "gallery") as gallery:
            flags = ["--gallery", str(gallery / "people.gallery"), "--gallery-keep-faces", "on"]
            flags += ["--gallery-model", PIPELINE, "--gallery-fmr", str(FMR)]
            key = {"LATHE_GALLERY_KEY_HEX": secrets.token_hex(32)}
            with ServerProcess(models, self.output / "server.log", flags, key) as server:
                acts = asyncio.run(_play(server, spaces, people, gallery, progress))
                exit_code = server.stop()
        findings = BiometricFindings(spaces.detector, people, *acts, exit_code)
        show(findings, console)
        (self.output / "report.json").write_text(json.dumps(findings.as_json(), indent=2) + "\n", "utf-8")
        picture = self.output / "people.jpg"
        picture.write_bytes(sheet(people, findings.before, findings.after))
        console.print(f"\npicture: {picture}\nfigures: {self.output / 'report.json'}", highlight=False, soft_wrap=True)
        return 0 if all(bar.is_met for bar in findings.bars()) else 1

    def _copy(self, spaces: TwoSpaces) -> Path:
        models = fresh_folder(self.output / "models")
        for ref in (spaces.detector, spaces.before, spaces.after):
            shutil.copytree(spaces.repository.folder(ref), models / str(ref))
        Repository(models).write_pipeline(PIPELINE, PipelineSpec(DETECTOR, EMBEDDER, largest=1))
        return models


async def _play(
    server: ServerProcess, spaces: TwoSpaces, people: Cast, gallery: Path, progress: Progress
) -> tuple[Judged, Judged, Unplanned, Planned, Deletion]:
    known = people.enrolled[0]
    before, after = spaces.cards
    async with server.async_client() as client:
        for ref in (spaces.detector, spaces.before):
            await client.set_route(ref.model, {ref.variant: 1}, author="demo", reason="the demo begins")
        with progress.bar(f"enrol {len(people.enrolled)} people", len(people.enrolled)) as advance:
            for one in people.enrolled:
                await client.gallery.enroll(one.person, one.pixels)
                advance()
        judged = await _judge(client, server, before, people, progress)
        with progress.step(f"swap to {after.variant} without a plan"):
            unplanned = await swap_unplanned(client, spaces.after, known)
        with progress.step(f"swap to {after.variant} with a plan: load, re-enrol, swap"):
            planned = await swap_planned(client, spaces.after, known)
        judged_again = await _judge(client, server, after, people, progress)
        person = _best_known(judged_again.searches)
        with progress.step(f"delete {person}"):
            probes = [one for one in people.probes if one.person == person]
            deletion = await delete(client, person, probes, gallery)
    return judged, judged_again, unplanned, planned, deletion


async def _judge(
    client: AsyncClient, server: ServerProcess, card: card_pb2.Card, people: Cast, progress: Progress
) -> Judged:
    enrolled: Sequence[str] = [one.person for one in people.enrolled]
    loosest = max(one.fmr for one in card.embedding.thresholds)
    before = await asyncio.to_thread(scrape, server.http)
    with progress.bar(f"identify by {card.variant}: {len(people.probes)} pictures", len(people.probes)) as advance:
        searches = await search_all(client.gallery, enrolled, people.probes, FMR, loosest, advance)
    after = await asyncio.to_thread(scrape, server.http)
    spent, faces = (
        after.total(name, model=card.model, variant=card.variant, stage="infer")
        - before.total(name, model=card.model, variant=card.variant, stage="infer")
        for name in ("lathe_stage_seconds_sum", "lathe_stage_seconds_count")
    )
    return Judged(card, FMR, searches, spent / faces if faces else None)


def _best_known(searches: Searches) -> str:
    """Who was found with the most pictures: of her there is the most to lose."""
    found = dict.fromkeys(searches.people, 0)
    for one in searches.done:
        found[one.probe.person] += one.probe.person in one.matches
    return max(found, key=lambda person: found[person])
