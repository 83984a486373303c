"""How a variant was made, in curves and tables: `making.json` beside its card, read strictly into types.

Keys that are not known here are passed over, so that newer files can be read; a known key of the wrong
form is an error. A null among numbers is a figure that was not finite, and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lathe.errors import BadVariant

Pair = tuple[float, float]


@dataclass(frozen=True)
class Channels:
    """A layer's channels under pruning.

    Attributes:
        losses: (share of its channels gone, loss then), for this layer alone.
    """

    width: int
    kept: int
    losses: Sequence[Pair]


@dataclass(frozen=True)
class LayerTrial:
    """One layer quantized alone: the error that it brings, and what it saves; None where not measured."""

    error: float
    seconds_saved: float | None


@dataclass(frozen=True)
class Standing:
    """Attributes:
    agreement: with the reference, on the recipe's evaluation pictures; of embedding networks the mean cosine.
    speedup: of the network against the reference.
    """

    size_bytes: int
    agreement: float | None
    speedup: float | None


@dataclass(frozen=True)
class Step:
    """Attributes:
    kind: `prune`, `distill` or `quantize`.
    curve: (pictures seen, loss).
    rounds: named numbers, a round each.
    after: what the graph takes and keeps once it is done; None where that was not measured.
    """

    name: str
    kind: str
    sentences: Sequence[str]
    curve: Sequence[Pair]
    rounds: Sequence[Mapping[str, float]]
    channels: Mapping[str, Channels]
    layers: Mapping[str, LayerTrial]
    after: Standing | None


@dataclass(frozen=True)
class Layer:
    """One operator of the published graph, with the shape of its output."""

    name: str
    operator: str
    shape: Sequence[int]
    macs: int
    parameters: int
    precision: str
    sparsity: float


@dataclass(frozen=True)
class Making:
    """Attributes:
    hygiene_speedup: of the reference's clean graph against the exported one; None where not measured.
    """

    steps: Sequence[Step]
    layers: Sequence[Layer]
    hygiene_speedup: float | None = None


def parse_making(content: Mapping[str, Any], name: str) -> Making:
    """Args:
        name: of the version, for messages.

    Raises:
        BadVariant: a key of the wrong form; the message says where.
    """
    top = _Part(content, f"making.json of {name}")
    return Making(
        tuple(_step(step) for step in top.parts("steps")),
        tuple(_layer(layer) for layer in top.parts("layers")),
        top.optional_number("hygiene_speedup"),
    )


def _step(step: _Part) -> Step:
    return Step(
        name=step.text("name"),
        kind=step.text("kind"),
        sentences=step.texts("sentences"),
        curve=step.pairs("curve"),
        rounds=[one.numbers() for one in step.parts("rounds")],
        channels={name: _channels(one) for name, one in step.named_parts("channels").items()},
        layers={
            name: LayerTrial(error, one.optional_number("seconds_saved"))
            for name, one in step.named_parts("layers").items()
            if (error := one.optional_number("error")) is not None
        },
        after=_standing(step) if step.has("size_bytes") else None,
    )


def _standing(step: _Part) -> Standing:
    likeness = step.optional_number("cosine" if step.has("cosine") else "agreement")
    return Standing(step.whole("size_bytes"), likeness, step.optional_number("speedup"))


def _channels(part: _Part) -> Channels:
    return Channels(part.whole("width"), part.whole("kept"), part.pairs("losses"))


def _layer(part: _Part) -> Layer:
    return Layer(
        name=part.text("name"),
        operator=part.text("operator"),
        shape=part.wholes("shape"),
        macs=part.whole("macs"),
        parameters=part.whole("parameters"),
        precision=part.text("precision"),
        sparsity=part.optional_number("sparsity") or 0.0,
    )


class _Part:
    """A JSON object that knows where it stands, so that what is wrong with it can be told."""

    def __init__(self, content: object, place: str) -> None:
        self._place = place
        if not isinstance(content, Mapping):
            raise self._wrong("an object")
        self._content = content

    def has(self, key: str) -> bool:
        return key in self._content

    def text(self, key: str) -> str:
        value = self._content.get(key)
        if not isinstance(value, str):
            raise self._wrong("text", key)
        return value

    def texts(self, key: str) -> list[str]:
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self._wrong("a list of texts", key)
        return values

    def whole(self, key: str) -> int:
        value = self._content.get(key)
        if not _is_whole(value):
            raise self._wrong("a whole number from 0 up", key)
        return int(value)  # type: ignore[arg-type]

    def wholes(self, key: str) -> list[int]:
        """Below zero too: a free dimension is -1."""
        values = self._list(key)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise self._wrong("a list of whole numbers", key)
        return values

    def optional_number(self, key: str) -> float | None:
        value = self._content.get(key)
        number = _number(value)
        if value is not None and number is None:
            raise self._wrong("a number", key)
        return number

    def pairs(self, key: str) -> list[Pair]:
        values = self._list(key)
        if not all(isinstance(value, list) and len(value) == 2 for value in values):
            raise self._wrong("a list of pairs of numbers", key)
        numbers = [(_number(one), _number(other)) for one, other in values]
        for pair, value in zip(numbers, values, strict=True):
            if any(number is None and raw is not None for number, raw in zip(pair, value, strict=True)):
                raise self._wrong("a list of pairs of numbers", key)
        return [(one, other) for one, other in numbers if one is not None and other is not None]

    def numbers(self) -> dict[str, float]:
        """Its numbers by name; what is no number is passed over, as unknown keys are."""
        found = {str(key): _number(value) for key, value in self._content.items()}
        return {key: value for key, value in found.items() if value is not None}

    def parts(self, key: str) -> list[_Part]:
        return [_Part(value, f"{self._place}, {key} {n}") for n, value in enumerate(self._list(key), 1)]

    def named_parts(self, key: str) -> dict[str, _Part]:
        value = self._content.get(key, {})
        if not isinstance(value, Mapping):
            raise self._wrong("an object", key)
        return {name: _Part(child, f"{self._place}, {key} {name}") for name, child in value.items()}

    def _list(self, key: str) -> list[Any]:
        value = self._content.get(key, [])
        if not isinstance(value, list):
            raise self._wrong("a list", key)
        return value

    def _wrong(self, wanted: str, key: str = "") -> BadVariant:
        return BadVariant(f"{self._place}: {f'{key} ' if key else ''}is not {wanted}")


def _is_whole(value: object) -> bool:
    number = _number(value)
    return number is not None and number >= 0 and number == int(number)


def _number(value: object) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None
