"""Routes as messages, as words, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from lathe.repository import VariantRef
from lathe.v1 import control_pb2, variant_version_pb2
from lathe_server.router import Route, Rule, RunningExperiment

Named: TypeAlias = control_pb2.RouteWeight | variant_version_pb2.VariantVersion


def named_ref(model: str, named: Named) -> VariantRef:
    return VariantRef(model, named.variant, named.version)


def is_latest(named: Named) -> bool:
    return isinstance(named, control_pb2.RouteWeight) and named.latest


def to_route(
    said: control_pb2.SetRouteRequest | control_pb2.Route,
    model: str,
    revision: int,
    find: Callable[[Named], VariantRef],
    server_name: str = "",
) -> Route:
    """A route that is asked for, or one that is kept.

    Args:
        find: the version that is meant.
        server_name: of this server, which knows its experiments by it.

    Raises:
        InvalidInput: it makes no route.
    """
    beside: dict[str, Any] = {"latest": frozenset(one.variant for one in said.weights if one.latest)}
    if said.HasField("shadow"):
        beside |= {"shadow": find(said.shadow.variant), "shadow_share": said.shadow.share}
    if isinstance(said, control_pb2.Route) and said.HasField("experiment"):
        told = said.experiment
        is_here = told.owner == server_name
        beside["experiment"] = RunningExperiment(told.id, told.owner, find(told.candidate), is_here=is_here)
    return Route(
        model,
        revision,
        tuple((find(one), one.weight) for one in said.weights),
        tuple(find(one) for one in said.degrade.variants),
        said.degrade.after_seconds,
        rules=tuple(Rule(find(one.variant), one.prefix, one.header, one.value) for one in said.rules),
        labels=tuple((one.name, find(one.variant)) for one in said.labels),
        **beside,
    )


def to_message(route: Route) -> control_pb2.Route:
    """What serves; who set it, when and why stands in the repository only."""
    message = control_pb2.Route(model=route.model, revision=route.revision)
    for ref, weight in route.weights:
        latest = ref.variant in route.latest
        message.weights.add(variant=ref.variant, version=ref.version, weight=weight, latest=latest)
    if route.degrade:
        message.degrade.variants.extend(to_name(ref) for ref in route.degrade)
        message.degrade.after_seconds = route.degrade_after_seconds
    for rule in route.rules:
        message.rules.add(prefix=rule.prefix, header=rule.header, value=rule.value, variant=to_name(rule.ref))
    for name, ref in route.labels:
        message.labels.add(name=name, variant=to_name(ref))
    if route.shadow:
        message.shadow.variant.CopyFrom(to_name(route.shadow))
        message.shadow.share = route.shadow_share
    if route.experiment:
        message.experiment.id, message.experiment.owner = route.experiment.id, route.experiment.owner
        message.experiment.candidate.CopyFrom(to_name(route.experiment.candidate))
    return message


def to_name(ref: VariantRef) -> variant_version_pb2.VariantVersion:
    return variant_version_pb2.VariantVersion(variant=ref.variant, version=ref.version)


def words(route: Route) -> str:
    shares = ", ".join(
        f"{ref.variant}/{ref.version}={weight}{' (latest)' if ref.variant in route.latest else ''}"
        for ref, weight in route.weights
    )
    words = [shares]
    for rule in route.rules:
        who = f"{rule.header}: {rule.value}" if rule.header else f"{rule.prefix}…"
        words.append(f"{who} to {rule.ref.variant}/{rule.ref.version}")
    words += [f"@{name} is {ref.variant}/{ref.version}" for name, ref in route.labels]
    if route.degrade:
        words.append("degrades to " + ", ".join(f"{ref.variant}/{ref.version}" for ref in route.degrade))
    if route.shadow:
        words.append(f"{route.shadow_share:.1%} in the shadow to {route.shadow.variant}/{route.shadow.version}")
    if route.experiment:
        words.append(f"experiment {route.experiment.id} on {route.experiment.owner}")
    return "; ".join(words)
