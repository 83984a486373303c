"""Which variant answers which stream: a pure function of the route and the stream's name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lathe.errors import InvalidInput
from lathe.repository import VariantRef

MAX_WEIGHT = 1_000_000


@dataclass(frozen=True, slots=True)
class Route:
    """Relative whole-number weights over the variants of one model; replaced whole, never changed.

    Attributes:
        revision: 0 where nobody has set a route.
    """

    model: str
    revision: int
    weights: tuple[tuple[VariantRef, int], ...]

    def __post_init__(self) -> None:
        if any(not 0 <= weight <= MAX_WEIGHT for _, weight in self.weights):
            raise InvalidInput(f"a weight is a whole number from 0 to {MAX_WEIGHT}")
        if not any(weight for _, weight in self.weights):
            raise InvalidInput("at least one variant of a route needs a weight above 0")
        if len({(ref.variant, ref.version) for ref, _ in self.weights}) < len(self.weights):
            raise InvalidInput("a route names each variant once")

    def pick(self, stream_id: str) -> VariantRef:
        """The stream's variant: always the same one while the weights are.

        The stream's place is the first 8 bytes of SHA-256 of its UTF-8 name, big-endian, over 2^64; the
        weights, in the route's order, divide the line from 0 to 1. So a client can foretell it, and
        shifting weight between neighbours moves only the streams that must move.
        """
        total = sum(weight for _, weight in self.weights)
        place = int.from_bytes(hashlib.sha256(stream_id.encode()).digest()[:8], "big") * total >> 64
        for ref, weight in self.weights:
            if place < weight:
                return ref
            place -= weight
        raise AssertionError("the place is below the total")

    def weight_of(self, ref: VariantRef) -> int:
        return sum(weight for own, weight in self.weights if own == ref)


class Router:
    """The routes that hold, by model. Read and replaced on the event loop only."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}

    def replace(self, route: Route) -> None:
        self._routes[route.model] = route

    def route(self, model: str) -> Route | None:
        return self._routes.get(model)

    def models(self) -> Sequence[str]:
        return list(self._routes)

    def wanted(self) -> set[VariantRef]:
        """Every variant that some route gives weight."""
        return {ref for route in self._routes.values() for ref, weight in route.weights if weight}
