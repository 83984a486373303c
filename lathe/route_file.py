"""A route as a file: what should answer for a model, to be kept beside other configuration and applied again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lathe.control_calls import LATEST, Header
from lathe.v1 import control_pb2


@dataclass(frozen=True)
class Weight:
    """Attributes:
    variant: its name, or name/version; without a version the newest is meant, whenever the file is applied, and with
        name@latest whenever a newer one is published.
    """

    variant: str
    weight: int


@dataclass(frozen=True)
class Degrade:
    """Attributes:
    to: cheaper variants, the dearest first.
    """

    to: tuple[str, ...]
    after_seconds: float = 0.1


@dataclass(frozen=True)
class Shadow:
    """Attributes:
    share: of the frames, above 0 to 1.
    """

    variant: str
    share: float = 0.1


@dataclass(frozen=True)
class Rule:
    """Streams that are answered by the variant whatever the weights say.

    Attributes:
        prefix: their names begin so.
        header: or they, and calls, have one of this name, in lower case, with this value.
    """

    variant: str
    prefix: str = ""
    header: str = ""
    value: str = ""

    def __post_init__(self) -> None:
        if bool(self.prefix) == bool(self.header) or bool(self.header) != bool(self.value):
            raise ValueError("a rule has either a prefix, or a header and its value")

    @property
    def fits(self) -> str | Header:
        return Header(self.header, self.value) if self.header else self.prefix


@dataclass(frozen=True)
class Label:
    """Attributes:
    name: another one of the variant; a request that pins it with @ before it means the variant.
    """

    name: str
    variant: str


@dataclass(frozen=True)
class RouteFile:
    """The file's top level."""

    model: str
    weights: tuple[Weight, ...]
    reason: str = ""
    degrade: Degrade | None = None
    shadow: Shadow | None = None
    rules: tuple[Rule, ...] = ()
    labels: tuple[Label, ...] = ()

    def holds(self, route: control_pb2.Route, newest: Mapping[str, int]) -> bool:
        """Whether a route says the same.

        Args:
            newest: version of each variant.
        """

        def named(name: str) -> tuple[str, int]:
            variant, _, version = name.partition("/")
            return variant, int(version) if version.isdecimal() else newest.get(variant, 0)

        weights = [
            (*named(one.variant.removesuffix(LATEST)), one.weight, one.variant.endswith(LATEST)) for one in self.weights
        ]
        degrade = ([named(name) for name in self.degrade.to], self.degrade.after_seconds) if self.degrade else ([], 0.0)
        labels = [(one.name, named(one.variant)) for one in self.labels]
        rules = [(one.prefix, one.header, one.value, named(one.variant)) for one in self.rules]
        shadow = (named(self.shadow.variant), self.shadow.share) if self.shadow else (("", 0), 0.0)
        return (
            weights == [(one.variant, one.version, one.weight, one.latest) for one in route.weights]
            and degrade == ([(one.variant, one.version) for one in route.degrade.variants], route.degrade.after_seconds)
            and labels == [(one.name, (one.variant.variant, one.variant.version)) for one in route.labels]
            and rules
            == [(one.prefix, one.header, one.value, (one.variant.variant, one.variant.version)) for one in route.rules]
            and shadow == ((route.shadow.variant.variant, route.shadow.variant.version), route.shadow.share)
        )
