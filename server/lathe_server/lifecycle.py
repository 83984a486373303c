"""The life of a variant in memory, and what has to happen next: a function of what is wanted and of what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lathe.repository import VariantRef

State = Literal["loading", "checking", "warming", "ready", "draining", "failed"]
STATES: tuple[State, ...] = ("loading", "checking", "warming", "ready", "draining", "failed")

NEXT: Mapping[State | None, frozenset[State | None]] = MappingProxyType(
    {
        None: frozenset({"loading"}),
        "loading": frozenset({"checking", "warming", "ready", "failed"}),
        "checking": frozenset({"warming", "ready", "failed"}),
        "warming": frozenset({"ready", "failed"}),
        "ready": frozenset({"draining"}),
        "draining": frozenset({None}),
        "failed": frozenset({"loading"}),
    }
)
"""Which states may follow which; a load need not tell each. None is a variant that is not in memory: found in the
repository, or gone.

loading: tried in a process of its own where that is due, read, compared with its digest.
checking: held against its contract, its card's golden answers, and the time that its card tells of.
warming: judges a few frames for nobody.
ready: is lent to frames.
draining: no longer lent; waits for the last of those that have it.
failed: was refused, and says why; memory holds nothing of it.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order."""

    load: tuple[VariantRef, ...] = ()
    unload: tuple[VariantRef, ...] = ()


def plan(wanted: Iterable[VariantRef], actual: Mapping[VariantRef, State]) -> Plan:
    """Brings memory to hold what is wanted and nothing else.

    What is on its way in is loaded by whoever asked first, so loading it again only waits for that; what is on its way
    out has to be gone before it comes back. A load that nobody wants any more ends by itself, and is unloaded by the
    plan after it.

    Args:
        wanted: in the order in which to load.

    >>> a, b, c = (VariantRef("m", name, 1) for name in "abc")
    >>> todo = plan([c, a, c], {a: "ready", b: "ready"})
    >>> [str(ref) for ref in todo.load], [str(ref) for ref in todo.unload]
    (['m/c/1'], ['m/b/1'])
    """
    needed = dict.fromkeys(wanted)
    return Plan(
        load=tuple(ref for ref in needed if actual.get(ref) != "ready"),
        unload=tuple(ref for ref, state in actual.items() if state == "ready" and ref not in needed),
    )
