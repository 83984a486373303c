"""How the protocol's names of models mean Lathe's models, variants and versions."""

from __future__ import annotations

from dataclasses import dataclass

from lathe.card import check_name
from lathe.errors import InvalidInput
from lathe_server.pipeline import LABEL

_MAX_VERSION = 2**32 - 1
_MAX_DIGITS = len(str(_MAX_VERSION))
"""Python itself refuses to read numbers of thousands of digits."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a call is for.

    Attributes:
        pinned: empty follows the model's route; else a variant, variant/version, or @label.
    """

    model: str
    pinned: str = ""

    @property
    def variant(self) -> str:
        """Without its version; empty where the route decides."""
        return self.pinned.partition("/")[0]

    @property
    def version(self) -> int:
        """0 where none is named."""
        return int(self.pinned.partition("/")[2] or 0)


def target(name: str, version: str = "") -> Target:
    """What a name and a version mean.

    Args:
        name: MODEL, MODEL/VARIANT or MODEL/@LABEL.
        version: of the variant, a whole number; empty is the newest in memory.

    Raises:
        InvalidInput: it is no such name, or the version goes with no variant.

    >>> target("face"), target("face/int8", "3"), target("face/@stable")
    (Target(model='face', pinned=''), Target(model='face', pinned='int8/3'), Target(model='face', pinned='@stable'))
    """
    model, separator, pinned = name.partition("/")
    check_name(model, "model")
    if separator:
        check_name(pinned.removeprefix(LABEL), "variant")
    if not version:
        return Target(model, pinned)
    is_number = version.isascii() and version.isdecimal() and len(version) <= _MAX_DIGITS
    if not (is_number and 0 < int(version) <= _MAX_VERSION):
        raise InvalidInput("a version is a whole number from 1 up")
    if not pinned or pinned.startswith(LABEL):
        raise InvalidInput(f"a version goes with a variant: name the model {model}/VARIANT")
    return Target(model, f"{pinned}/{int(version)}")
