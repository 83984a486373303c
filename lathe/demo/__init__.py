"""`lathe demo`: the whole way on real footage, in minutes.

Teacher → variants → evaluation → server → capacity → four cameras and a swap in mid-stream → report; and, where it is
asked for, an A/B test on the cameras' frames → verdict → promotion.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lathe.demo.capacity import measure_capacity
from lathe.demo.findings import Findings, show, write_report
from lathe.demo.footage import Footage, evaluation_frames, load_footage
from lathe.demo.live import four_cameras, watch_cameras
from lathe.demo.verdict import decide
from lathe.demo.workspace import fresh_folder
from lathe.errors import InvalidInput
from lathe.experiment_page import write
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.server_process import ServerProcess

if TYPE_CHECKING:
    from lathe_compression.evaluate import Evaluation


@dataclass(frozen=True)
class Demo:
    """Attributes:
    output: everything that is made goes there; its `models` are made anew.
    recipe: of the detector.
    sources: the user's own videos; the packages' where there are none.
    frames: the user's own pictures for evaluation; frames of the videos where there are none.
    data: labelled pictures for average precision.
    seconds: length of the live part.
    experiment: go on with an A/B test, to its verdict.
    """

    output: Path
    recipe: Path = Path("recipes/face.toml")
    sources: Sequence[Path] = ()
    frames: Path | None = None
    data: Path | None = None
    seconds: float = 20.0
    price_per_core_hour: float = 0.04
    experiment: bool = False

    def run(self) -> int:
        """Returns the exit code: 1 where a frame was lost.

        Raises:
            LatheError: a step failed; the message says which thing to mend.
        """
        if self.seconds < 4:
            raise InvalidInput("the live part needs at least 4 seconds")
        progress, console = Progress(), Console()
        self.output.mkdir(parents=True, exist_ok=True)
        with progress.step("footage: decode"):
            footage = load_footage(self.sources)
        frames = self.frames or evaluation_frames(footage, self.output / "frames")
        repository, refs = self._compress(progress)
        evaluations = self._evaluate(repository, refs, frames, progress)
        flags = ("--price-per-core-hour", str(self.price_per_core_hour))
        with ServerProcess(repository.root, self.output / "server.log", flags) as server:
            with progress.bar("capacity: each variant alone", len(refs)) as advance:
                capacities = asyncio.run(measure_capacity(server, refs, footage, advance))
            after = next((ref for ref in refs[1:] if repository.card(ref).recommended), refs[-1])
            live = asyncio.run(watch_cameras(server, refs[0], after, footage, self.seconds, console))
            if self.experiment:
                self._experiment(server, refs[0], after, footage, console)
            exit_code = server.stop()
        findings = Findings(
            cards=[repository.card(ref) for ref in refs],
            evaluations=evaluations,
            capacities=capacities,
            live=live,
            price_per_core_hour=self.price_per_core_hour,
            server_exit_code=exit_code,
        )
        show(findings, console)
        (self.output / "report.json").write_text(json.dumps(findings.as_json(), indent=2) + "\n", "utf-8")
        with progress.step("report: draw"):
            write_report(findings, repository, refs, footage, self.output / "report.html")
        console.print(
            f"\nreport: {self.output / 'report.html'}  figures: {self.output / 'report.json'}", highlight=False
        )
        return 1 if live.lost or exit_code else 0

    def _experiment(
        self,
        server: ServerProcess,
        before: VariantRef,
        after: VariantRef,
        footage: Sequence[Footage],
        console: Console,
    ) -> None:
        console.print(f"\nA/B test: {after.variant} beside {before.variant}", highlight=False)
        cameras = four_cameras(before.model, footage)
        experiment = asyncio.run(decide(server, before, after, cameras, console))
        console.print(f"its page: {write(experiment, self.output, 'experiment')}", highlight=False)

    def _compress(self, progress: Progress) -> tuple[Repository, list[VariantRef]]:
        from lathe_compression.compress import compress
        from lathe_compression.recipe import load_recipe

        recipe = load_recipe(self.recipe)
        models = fresh_folder(self.output / "models")
        refs = compress(recipe, models, progress)
        if len(refs) < 2:
            raise InvalidInput("the demo swaps from the recipe's first variant to another; it has only one")
        return Repository(models), refs

    def _evaluate(
        self, repository: Repository, refs: Sequence[VariantRef], frames: Path, progress: Progress
    ) -> dict[str, list[Evaluation]]:
        """Every variant but the reference, on bare frames and, where given, on labelled pictures."""
        from lathe_compression.evaluate import Protocol, evaluate

        data = [frames, *([self.data] if self.data else [])]
        return {ref.variant: [evaluate(repository, ref, one, Protocol(), progress) for one in data] for ref in refs[1:]}
