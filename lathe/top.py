"""Draws overviews for a terminal: the servers, their models and variants, and as many streams as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from lathe.experiment import TITLES, said_of
from lathe.figure_text import milli, percent, share, short
from lathe.overview import Estimate, ModelOverview, Overview, Totals, VariantOverview, trouble
from lathe.stream_table import Streams, names_and_figures
from lathe.v1 import experiment_pb2
from lathe.watch import Sight

WIDE = 120
"""Columns from which on there is room for what cards say."""
LINES_OF_STREAMS = 8
"""Where there are fewer, idle variants and most figures of experiments are left out."""
FEW, MANY = 2, 100
GOOD, DOUBTFUL, BAD, QUIET = "green", "yellow", "red", "dim"
_STATES = {"ready": GOOD, "failed": BAD, "": QUIET}
_MILLI = 1e3


@dataclass(frozen=True)
class View:
    """What a terminal shows.

    Args:
        every_seconds: between two looks.
        height: lines that there are; None for all that there is to tell.
    """

    sights: Sequence[Sight]
    every_seconds: float
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        several = len(self.sights) > 1
        above = [self._title(), *(_servers(self.sights) if several else _of_one(self.sights[0]))]
        options = options.update(height=None)

        def lines_of(parts: Sequence[RenderableType]) -> int:
            return sum(len(console.render_lines(part, options, pad=False)) for part in parts)

        def whole(figures: int, *, with_idle: bool) -> list[RenderableType]:
            return [
                *above,
                _objectives(self.sights, figures),
                _variants(self.sights, options.max_width, with_idle=with_idle),
            ]

        fixed = whole(MANY, with_idle=True)
        if self.height is not None and lines_of(fixed) > self.height - LINES_OF_STREAMS:
            fixed = whole(FEW, with_idle=False)
        yield from fixed
        streams = [
            (f"{number}" if several else "", stream)
            for number, sight in enumerate(self.sights, 1)
            for stream in (sight.overview.streams if sight.overview else ())
        ]
        streams.sort(key=lambda one: trouble(one[1]))
        if streams:
            yield Streams(streams, None if self.height is None else self.height - lines_of(fixed))

    def _title(self) -> RenderableType:
        title = Table.grid(expand=True)
        title.add_column(no_wrap=True)
        title.add_column(justify="right", no_wrap=True)
        names = self.sights[0].address if len(self.sights) == 1 else f"{len(self.sights)} servers"
        keys = "q ends" if self.height is not None else ""
        title.add_row(
            Text.assemble(("lathe top  ", "bold"), names),
            Text(f"the last {self.every_seconds:g} s  {keys}".strip(), QUIET),
        )
        return title


def _of_one(sight: Sight) -> list[RenderableType]:
    if sight.problem:
        return [Text(f"{sight.problem}; still trying", BAD)]
    if sight.overview is None:
        return [Text("waiting for the first figures", QUIET)]
    totals = sight.overview.totals
    facts = [_Facts(group) for group in (_traffic(totals), _machine(totals), _price(totals)) if group]
    return [*_restart(sight.overview), *facts]


def _restart(told: Overview) -> list[Text]:
    return [Text("the server began anew, and these figures with it", DOUBTFUL)] if told.has_restarted else []


def _traffic(totals: Totals) -> list[Text]:
    oldest = f", the oldest for {milli(totals.queue_age_seconds)} ms" if totals.queue_age_seconds else ""
    return [
        _fact(short(totals.answered_per_second), "frames/s"),
        _fact(str(totals.streams), "streams"),
        _fact(str(totals.waiting_frames), f"waiting{oldest}"),
        *(
            _fact(short(rate), f"dropped/s {reason.replace('_', ' ')}", DOUBTFUL)
            for reason, rate in totals.drops_per_second.items()
            if rate
        ),
        _fact(short(totals.rejected_per_second), "rejected/s", DOUBTFUL if totals.rejected_per_second else ""),
        _fact(short(totals.failed_per_second), "failed/s", BAD if totals.failed_per_second else ""),
    ]


def _machine(totals: Totals) -> list[Text]:
    facts = []
    if totals.utilisation is not None:
        facts.append(_fact(percent(totals.utilisation), f"of {totals.workers} workers busy"))
    if totals.gpu_utilisation is not None:
        facts.append(_fact(percent(totals.gpu_utilisation), "of the GPU busy"))
    facts += [
        _fact(short(totals.cores), "cores used"),
        _fact(_megabytes(totals), "MB"),
        _fact(milli(totals.loop_lag_p99_seconds), "ms loop lag p99"),
    ]
    return [*facts, Text("short of memory", BAD)] if totals.is_short_of_memory else facts


def _price(totals: Totals) -> list[Text]:
    facts = []
    if totals.currency:
        used, whole = short(totals.cost_usage_per_hour), short(totals.cost_allocation_per_hour)
        facts.append(_fact(f"{totals.currency} {used}", f"an hour used, of {whole}"))
    if totals.watts is not None:
        facts.append(_fact(short(totals.watts), f"W ({totals.energy_source})"))
    if totals.grams_per_hour is not None:
        facts.append(_fact(short(totals.grams_per_hour), "g CO₂ an hour"))
    return facts


def _megabytes(totals: Totals) -> str:
    return "–" if totals.memory_bytes is None else f"{totals.memory_bytes / 1e6:.0f}"


def _fact(figure: str, words: str, style: str = "") -> Text:
    return Text.assemble((figure, f"bold {style}".strip()), " ", (words, style or QUIET))


@dataclass(frozen=True)
class _Facts:
    """Side by side, none of them broken."""

    facts: Sequence[Text]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for fact in self.facts:
            if line and line.cell_len + 2 + fact.cell_len > options.max_width:
                yield line
                line = Text()
            line = Text("  ").join([line, fact]) if line else fact.copy()
        yield line


def _servers(sights: Sequence[Sight]) -> list[RenderableType]:
    """A line each, and one more for each that has trouble."""
    priced = sorted({sight.overview.totals.currency for sight in sights if sight.overview} - {""})
    headings = ["\nstreams", "frames\n/s", "drops\n/s", "failed\n/s", "\nwaiting", "\nbusy", "\nMB", "\nW"]
    headings += [f"{'+'.join(priced)}\n/h"] if priced else []
    table = names_and_figures([("\n#", "left"), ("\nserver", "left"), *((heading, "right") for heading in headings)])
    troubles: list[RenderableType] = []
    for number, sight in enumerate(sights, 1):
        if sight.overview is None:
            table.add_row(str(number), Text(sight.address, BAD if sight.problem else QUIET))
            if sight.problem:
                troubles.append(Text(f"{number} {sight.problem}; still trying", BAD))
            continue
        totals = sight.overview.totals
        troubles += [Text(f"{number} ").append_text(text) for text in _restart(sight.overview)]
        failing = totals.failed_per_second + totals.rejected_per_second
        table.add_row(
            str(number),
            sight.address,
            str(totals.streams),
            short(totals.answered_per_second),
            Text(short(totals.dropped_per_second), DOUBTFUL if totals.dropped_per_second else ""),
            Text(short(failing), BAD if failing else ""),
            str(totals.waiting_frames),
            "–" if totals.utilisation is None else percent(totals.utilisation),
            _megabytes(totals),
            short(totals.watts),
            *([short(totals.cost_usage_per_hour)] if priced else []),
        )
    return [table, *troubles]


def _objectives(sights: Sequence[Sight], most: int) -> RenderableType:
    """How each model keeps its objective, and what an experiment on it says.

    Args:
        most: figures of an experiment; the first is that in which the candidate has to be better.
    """
    lines = []
    for number, sight in enumerate(sights, 1):
        for model in sight.overview.models if sight.overview else ():
            line = Text.assemble(f"{number} " if len(sights) > 1 else "", (model.name, "bold"), "  ")
            line.append_text(_objective(model, sight.overview))
            if model.degrade_level:
                line.append(f"  degraded by {model.degrade_level}", DOUBTFUL)
            lines.append(line)
            if model.experiment is not None:
                said = [_said(estimate) for estimate in model.experiment] or ["no round has ended yet"]
                lines += [Text(f"  experiment: {words}") for words in said[:most]]
                if len(said) > most:
                    lines.append(Text(f"  and {len(said) - most} figures more, for which there is no room", QUIET))
    return Text("\n").join(lines)


def _objective(model: ModelOverview, told: Overview | None) -> Text:
    if told is None or told.objective_seconds is None or told.objective_share is None:
        return Text("")
    within = f"answered within {told.objective_seconds * _MILLI:g} ms, objective {share(told.objective_share)}"
    if model.share_met is None:
        return Text(f"no frames; {within}", QUIET)
    return Text(f"{share(model.share_met)} {within}", GOOD if model.share_met >= told.objective_share else BAD)


def _said(estimate: Estimate) -> str:
    if estimate.metric not in TITLES:  # of a newer server
        return f"{estimate.metric}: {estimate.value:g} ({estimate.low:g} to {estimate.high:g})"
    value, low, high = estimate.value, estimate.low, estimate.high
    return said_of(experiment_pb2.Estimate(metric=estimate.metric, value=value, low=low, high=high))


_Column = tuple[str, str, Callable[[VariantOverview], str | Text]]
"""Heading, side and content."""


def _columns(told: Sequence[Overview], width: int) -> list[_Column]:
    """Those for which somebody has figures, and which have room."""
    variants = [variant for one in told for model in one.models for variant in model.variants]
    currencies = sorted({one.totals.currency for one in told} - {""})
    columns: list[_Column] = [
        ("\nvariant", "left", lambda one: f"{one.model}/{one.variant}/{one.version}"),
        ("\nstate", "left", lambda one: Text(one.state or "unloaded", _STATES.get(one.state, DOUBTFUL))),
        ("\nweight", "right", lambda one: f"{one.weight:g}"),
        ("frames\n/s", "right", lambda one: short(one.frames_per_second)),
        ("p50\nms", "right", lambda one: milli(one.p50_seconds)),
        ("p99\nms", "right", lambda one: milli(one.p99_seconds)),
        ("CPU\nms", "right", lambda one: short(one.cpu_ms_per_frame)),
    ]
    if any(one.gpu_ms_per_frame is not None for one in variants):
        columns.append(("GPU\nms", "right", lambda one: short(one.gpu_ms_per_frame)))
    if currencies:
        columns.append((f"{'+'.join(currencies)}\n/M", "right", lambda one: short(one.cost_per_million)))
    if any(one.totals.energy_source for one in told):
        columns.append(("\nmJ", "right", lambda one: milli(one.joules_per_frame)))
    if any(one.totals.grams_per_hour is not None for one in told):
        columns.append(("g CO₂\n/M", "right", lambda one: short(one.grams_per_million)))
    if width >= WIDE and any(one.speedup for one in variants):
        columns.append(("\nspeed", "right", lambda one: f"{one.speedup:.2f}×" if one.speedup else "–"))
    if width >= WIDE and any(one.qualities for one in variants):
        columns.append(("\nquality", "left", _quality))
    return columns


def _quality(variant: VariantOverview) -> str:
    return ", ".join(f"{one.metric} {one.value:.3f}" for one in variant.qualities[:2]) or "–"


def _variants(sights: Sequence[Sight], width: int, *, with_idle: bool) -> RenderableType:
    told = [(number, sight.overview) for number, sight in enumerate(sights, 1) if sight.overview]
    columns = _columns([one for _, one in told], width)
    several = len(sights) > 1
    table = names_and_figures([("\n#", "left")] * several + [(heading, side) for heading, side, _ in columns])
    for number, one in told:
        for model in one.models:
            for variant in model.variants:
                is_idle = not (variant.state or variant.weight or variant.frames_per_second)
                if is_idle and not with_idle:
                    continue
                style = QUIET if is_idle else ""
                table.add_row(*[str(number)] * several, *(content(variant) for _, _, content in columns), style=style)
    return table if table.rows else Text()
