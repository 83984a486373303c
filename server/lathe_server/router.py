"""Which variant answers which stream: a pure function of the route, the stream's name and how far it is degraded."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from time import monotonic
from typing import Protocol

from lathe.errors import InvalidInput, NotFound, Refused
from lathe.pipeline_file import PipelineSpec
from lathe.repository import VariantRef
from lathe_server.degrade import Degrader
from lathe_server.origin import Headers

log = logging.getLogger(__name__)

MAX_WEIGHT = 1_000_000
MAX_LEVELS = 8
MAX_RULES = 64
MAX_WORD = 256


@lru_cache(maxsize=4096)
def _place(stream_id: str) -> int:
    """A stream's place on the line, times 2^64; kept, because each of its frames asks."""
    return int.from_bytes(hashlib.sha256(stream_id.encode()).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class RunningExperiment:
    """Attributes:
    owner: name of the server that gives frames to the candidate.
    is_here: this one.
    """

    id: str
    owner: str
    candidate: VariantRef
    is_here: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """Who answers a stream whatever the weights say, where its name or one of its headers fits.

    Attributes:
        prefix: of the stream's name; empty where the rule looks at a header.
        header: its name, in lower case.
        value: the whole of it.
    """

    ref: VariantRef
    prefix: str = ""
    header: str = ""
    value: str = ""

    def __post_init__(self) -> None:
        if bool(self.prefix) == bool(self.header) or bool(self.header) != bool(self.value):
            raise InvalidInput("a rule has either the beginning of a stream's name, or a header and its value")
        if any(len(word) > MAX_WORD or not word.isprintable() for word in (self.prefix, self.header, self.value)):
            raise InvalidInput(f"a rule's words are at most {MAX_WORD} printable characters")
        if self.header != self.header.lower() or self.header.endswith("-bin"):
            raise InvalidInput("the header of a rule is in lower case, and one of text: not …-bin")

    def fits(self, stream_id: str, headers: Headers) -> bool:
        if self.header:
            return any(name == self.header and value == self.value for name, value in headers)
        return stream_id.startswith(self.prefix)


class Choice(Protocol):
    """What decides who answers: a route, or an experiment on it."""

    def pick(self, stream_id: str, headers: Headers = ()) -> VariantRef:
        """The variant that answers a stream now."""

    def shadow_of(self, ref: VariantRef) -> tuple[VariantRef, float] | None:
        """Which variant also judges the frames that one answered, and which share of them."""


@dataclass(frozen=True, slots=True)
class Route:
    """Relative whole-number weights over the variants of one model; replaced whole, never changed.

    Attributes:
        revision: 0 where nobody has set a route.
        shadow: also judges a share of the answered frames.
        experiment: the one that runs.
        rules: the first that fits a stream decides, before the weights.
        labels: other names of variants, by which requests may pin them.
        latest: names of weighted variants whose newer versions take their place.
        degrade: what streams move to under too much load, one after the other.
        degrade_after_seconds: they do when they wait longer for their turn.
    """

    model: str
    revision: int
    weights: tuple[tuple[VariantRef, int], ...]
    degrade: tuple[VariantRef, ...] = ()
    degrade_after_seconds: float = 0.0
    shadow: VariantRef | None = None
    shadow_share: float = 0.0
    experiment: RunningExperiment | None = None
    latest: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    labels: tuple[tuple[str, VariantRef], ...] = ()

    def __post_init__(self) -> None:
        if any(not 0 <= weight <= MAX_WEIGHT for _, weight in self.weights):
            raise InvalidInput(f"a weight is a whole number from 0 to {MAX_WEIGHT}")
        if not any(weight for _, weight in self.weights):
            raise InvalidInput("at least one variant of a route needs a weight above 0")
        if len({(ref.variant, ref.version) for ref, _ in self.weights}) < len(self.weights):
            raise InvalidInput("a route names each variant once")
        if len(set(self.degrade)) < len(self.degrade) or len(self.degrade) > MAX_LEVELS:
            raise InvalidInput(f"a route degrades to at most {MAX_LEVELS} variants, each named once")
        if self.degrade and not 0 < self.degrade_after_seconds < math.inf:
            raise InvalidInput("degrading needs the seconds that a stream may wait, above 0")
        if len(self.rules) > MAX_RULES:
            raise InvalidInput(f"a route has at most {MAX_RULES} rules")
        if len({name for name, _ in self.labels}) < len(self.labels) or len(self.labels) > MAX_RULES:
            raise InvalidInput(f"a route has at most {MAX_RULES} labels, each once")
        if self.shadow and not 0 < self.shadow_share <= 1:
            raise InvalidInput("a shadow sees a share of the frames, above 0 and at most 1")

    def pick(self, stream_id: str, headers: Headers = ()) -> VariantRef:
        """The stream's variant: always the same one while the weights are.

        The stream's place is the first 8 bytes of SHA-256 of its UTF-8 name, big-endian, over 2^64; the
        weights, in the route's order, divide the line from 0 to 1. So a client can foretell it, and
        shifting weight between neighbours moves only the streams that must move.
        """
        if self.rules and (ruled := self.ruled(stream_id, headers)):
            return ruled
        if len(self.weights) == 1:
            return self.weights[0][0]
        place = _place(stream_id) * sum(weight for _, weight in self.weights) >> 64
        for ref, weight in self.weights:
            if place < weight:
                return ref
            place -= weight
        raise AssertionError("the place is below the total")

    def labelled(self, name: str) -> VariantRef:
        """The variant that a label means.

        Raises:
            NotFound: there is no such label.
        """
        for label, ref in self.labels:
            if label == name:
                return ref
        raise NotFound(f"the route of {self.model} has no label {name}")

    def ruled(self, stream_id: str, headers: Headers = ()) -> VariantRef | None:
        """The variant that the first fitting rule names."""
        return next((rule.ref for rule in self.rules if rule.fits(stream_id, headers)), None)

    def degraded(self, ref: VariantRef, level: int) -> VariantRef:
        """What a stream of a variant gets at a level: that level's variant, unless its own is no dearer.

        >>> a, b, c = (VariantRef("m", name, 1) for name in "abc")
        >>> route = Route("m", 1, ((a, 1), (b, 1)), (b, c), 0.1)
        >>> [[route.degraded(ref, level).variant for level in range(3)] for ref in (a, b)]
        [['a', 'b', 'c'], ['b', 'b', 'c']]
        """
        if not level or (ref in self.degrade and self.degrade.index(ref) >= level):
            return ref
        return self.degrade[level - 1]

    def needs(self) -> list[VariantRef]:
        """Every variant that may have to judge, those with weight first."""
        others = [self.shadow, self.experiment.candidate if self.experiment and self.experiment.is_here else None]
        weighted = (ref for ref, weight in self.weights if weight)
        named = [*(rule.ref for rule in self.rules), *(ref for _, ref in self.labels)]
        return list(dict.fromkeys([*weighted, *named, *self.degrade, *filter(None, others)]))

    def shadow_of(self, ref: VariantRef) -> tuple[VariantRef, float] | None:
        """Which variant also judges the frames that one answered, and which share of them."""
        return (self.shadow, self.shadow_share) if self.shadow and self.shadow != ref else None

    def without(self, ref: VariantRef) -> Route:
        """The same, with nothing of a variant on it.

        Raises:
            Refused: nobody would be left to answer.
        """
        weights = tuple((own, weight) for own, weight in self.weights if own != ref)
        if not any(weight for _, weight in weights):
            raise Refused(f"{ref} is the only one on the route of {self.model}; set another route instead")
        return replace(
            self,
            weights=weights,
            degrade=tuple(own for own in self.degrade if own != ref),
            shadow=None if self.shadow == ref else self.shadow,
            rules=tuple(rule for rule in self.rules if rule.ref != ref),
            labels=tuple((name, own) for name, own in self.labels if own != ref),
        )

    def weight_of(self, ref: VariantRef) -> int:
        return sum(weight for own, weight in self.weights if own == ref)


class Router:
    """The routes that hold, by model, and how far each is degraded. Read and replaced on the event loop only.

    Args:
        workers: threads that judge frames.

    Attributes:
        pipelines: by name; replaced whole.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._routes: dict[str, Route] = {}
        self._experiments: dict[str, Choice] = {}
        self._degraders: dict[str, Degrader] = {}
        self.pipelines: Mapping[str, PipelineSpec] = {}

    def replace(self, route: Route) -> None:
        """A new route starts with nothing degraded, and without an experiment's choices."""
        self._routes[route.model] = route
        self._experiments.pop(route.model, None)
        self._degraders.pop(route.model, None)
        if route.degrade:
            levels, set_point = len(route.degrade), route.degrade_after_seconds
            self._degraders[route.model] = Degrader(levels, set_point, self._workers, monotonic())

    def pipeline(self, name: str) -> PipelineSpec | None:
        """None where it is the name of a model, or of nothing."""
        return self.pipelines.get(name)

    def choose_by(self, model: str, choice: Choice | None) -> None:
        """From now on an experiment decides who answers; None gives that back to the route."""
        if choice:
            self._experiments[model] = choice
        else:
            self._experiments.pop(model, None)

    def choice(self, model: str) -> Choice | None:
        """Who decides; None where the model is not served."""
        return self._experiments.get(model) or self._routes.get(model)

    def level(self, model: str) -> int:
        """0 where nothing is degraded."""
        degrader = self._degraders.get(model)
        return degrader.level if degrader else 0

    def degraded(self, ref: VariantRef, level: int) -> VariantRef:
        """What a stream of a variant gets at a level of its model."""
        route = self._routes.get(ref.model)
        return route.degraded(ref, level) if route else ref

    def turn(self, model: str, waited: float, now: float, *, embeds: bool = False) -> None:
        """A stream of a model, or of a pipeline and so of its models, got its turn after so many seconds.

        Args:
            embeds: what the pipeline detects, too.
        """
        spec = self.pipelines.get(model)
        self._turn(spec.detector if spec else model, waited, now)
        if spec and embeds:
            self._turn(spec.embedder, waited, now)

    def _turn(self, model: str, waited: float, now: float) -> None:
        if degrader := self._degraders.get(model):
            before = degrader.level
            degrader.turn(waited, now)
            if degrader.level != before:
                route = self._routes[model]
                to = route.degrade[degrader.level - 1].variant if degrader.level else "what its route says"
                log.warning("streams of %s move from level %d to %d: %s", model, before, degrader.level, to)

    def worked(self, model: str, seconds: float, cpu_seconds: float | None, level: int | None) -> None:
        """A frame took so many seconds of a worker, as `Degrader.worked`; its level is None where it was pinned."""
        for name, degrader in self._degraders.items():
            degrader.worked(seconds, cpu_seconds, level if name == model else None)

    def route(self, model: str) -> Route | None:
        return self._routes.get(model)

    def models(self) -> Sequence[str]:
        return list(self._routes)

    def routed(self) -> list[VariantRef]:
        """Every variant that some route gives frames to."""
        return [ref for route in self._routes.values() for ref, weight in route.weights if weight]

    def wanted(self) -> list[VariantRef]:
        """Every variant that some route needs."""
        return [ref for route in self._routes.values() for ref in route.needs()]
