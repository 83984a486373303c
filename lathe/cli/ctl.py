"""lathe ctl: look at the variants and change the route."""

from __future__ import annotations

import argparse
import getpass
from typing import Any

from lathe.errors import InvalidInput


def add_command(commands: Any) -> None:
    parser = commands.add_parser("ctl", help="list variants, read and change routes")
    parser.add_argument(
        "--control",
        default="127.0.0.1:8502",
        metavar="HOST:PORT",
        help="the server's control port (default %(default)s)",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    variants = verbs.add_parser("variants", help="newest version of every variant, and its state")
    variants.add_argument("model", nargs="?", default="")
    variants.set_defaults(run=list_variants)
    route = verbs.add_parser("route", help="print the route of a model, or set it")
    route.add_argument("model")
    route.add_argument(
        "weights",
        nargs="*",
        metavar="VARIANT[/VERSION|@latest]=WEIGHT",
        help="relative whole numbers; @latest follows newer versions as they are published",
    )
    swap = verbs.add_parser("swap", help="send all of a model's frames to one variant, whatever its route was")
    swap.add_argument("model")
    swap.add_argument("variant", metavar="VARIANT[/VERSION]")
    back = verbs.add_parser("rollback", help="go back to the route before the present one, as a new revision")
    back.add_argument("model")
    back.set_defaults(run=rollback)
    loading = verbs.add_parser("load", help="bring a variant into memory without giving it frames, and keep it there")
    unloading = verbs.add_parser("unload", help="take a variant out of memory after its last frame")
    unloading.add_argument("--force", action="store_true", help="off the route, too, where something else is left")
    for verb, run in ((loading, load), (unloading, unload)):
        verb.add_argument("model")
        verb.add_argument("variant", metavar="VARIANT[/VERSION]")
        verb.set_defaults(run=run)
    watching = verbs.add_parser("watch", help="what happens to the models, a line each, until it is interrupted")
    watching.add_argument("model", nargs="?", default="")
    watching.set_defaults(run=watch)
    for verb in (route, swap, back):
        verb.add_argument("--expect", type=int, default=0, metavar="REVISION", help="fail unless this revision holds")
        verb.add_argument("--reason", default="", help="kept with the revision")
    for verb in (route, swap):
        verb.add_argument(
            "--degrade",
            nargs="+",
            default=[],
            metavar="VARIANT[/VERSION]",
            help="cheaper variants, the dearest first, that streams move to under too much load, and back",
        )
        verb.add_argument(
            "--degrade-after",
            type=float,
            default=0.1,
            metavar="SECONDS",
            help="they do when they wait longer for their turn (default %(default)s)",
        )
        verb.add_argument(
            "--shadow", default="", metavar="VARIANT[/VERSION]", help="also judges some of the frames, to be compared"
        )
        verb.add_argument(
            "--shadow-share", type=float, default=0.1, metavar="SHARE", help="of the frames (default %(default)s)"
        )
        verb.add_argument(
            "--rule",
            nargs="+",
            default=[],
            metavar="PREFIX=VARIANT[/VERSION]",
            help="streams whose names begin so are answered by that variant, whatever the weights say",
        )
        verb.add_argument(
            "--header-rule",
            nargs="+",
            default=[],
            metavar="NAME:VALUE=VARIANT[/VERSION]",
            help="streams and calls with that header are answered by that variant; looked at before --rule",
        )
        verb.add_argument(
            "--label",
            nargs="+",
            default=[],
            metavar="NAME=VARIANT[/VERSION]",
            help="another name of a variant; a request that pins @NAME means it",
        )
    route.set_defaults(run=show_or_set_route)
    swap.set_defaults(run=set_route, weights=None)


def list_variants(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from lathe.client import Client
    from lathe.v1 import control_pb2

    with Client(control=options.control) as client:
        statuses = client.variants(options.model)
    table = Table(caption="ms and speed: the network alone, at its serving size, as measured when it was made")
    for heading in ("model", "variant", "state", "weight", "MB", "ms", "speed", "runs on, or why not"):
        table.add_column(heading, no_wrap=heading in ("model", "variant"))  # names are to be typed
    for status in statuses:
        card = status.card
        latency = card.latency[0] if card.latency else None
        table.add_row(
            card.model,
            f"{card.variant}/{card.version}",
            control_pb2.ServableState.Name(status.state).removeprefix("SERVABLE_STATE_").lower(),
            str(status.weight),
            f"{card.size_bytes / 1e6:.2f}",
            f"{latency.stages.infer * 1e3:.2f}" if latency else "",
            f"{latency.speedup:.2f}×" if latency else "",
            status.runtime or status.reason,
        )
    Console().print(table)


def show_or_set_route(options: argparse.Namespace) -> None:
    from lathe.client import Client

    if options.weights:
        set_route(options)
        return
    if options.degrade or options.shadow or options.rule or options.header_rule or options.label:
        raise InvalidInput(
            "--degrade, --shadow, --rule, --header-rule and --label go with the weights: a route is replaced whole"
        )
    with Client(control=options.control) as client:
        print_route(client.route(options.model))


def set_route(options: argparse.Namespace) -> None:
    from lathe.client import Client

    weights = {options.variant: 1} if options.weights is None else parse_weights(options.weights)
    with Client(control=options.control) as client:
        route = client.set_route(
            options.model,
            weights,
            expected_revision=options.expect,
            author=getpass.getuser(),
            reason=options.reason,
            degrade=options.degrade,
            degrade_after_seconds=options.degrade_after,
            shadow=options.shadow,
            shadow_share=options.shadow_share,
            rules=parse_header_rules(options.header_rule) | parse_names(options.rule),
            labels=parse_names(options.label),
        )
    print_route(route)


def rollback(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(control=options.control) as client:
        print_route(
            client.rollback(
                options.model, expected_revision=options.expect, author=getpass.getuser(), reason=options.reason
            )
        )


def load(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(control=options.control) as client:
        print(f"{options.model}/{client.load(options.model, options.variant)} is in memory")


def unload(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(control=options.control) as client:
        name = client.unload(options.model, options.variant, force=options.force, author=getpass.getuser())
        print(f"{options.model}/{name} is gone from memory")


def watch(options: argparse.Namespace) -> None:
    from lathe.client import Client
    from lathe.journal import line

    with Client(control=options.control) as client:
        for event in client.events(options.model):
            print(line(event), flush=True)


def parse_weights(words: list[str]) -> dict[str, int]:
    """`["fp32=3", "int8=1"]` as a table.

    Raises:
        InvalidInput: a word that is not VARIANT[/VERSION]=WEIGHT.
    """
    weights: dict[str, int] = {}
    for word in words:
        name, _, weight = word.partition("=")
        if not weight.isdecimal():
            raise InvalidInput(f"{word} is not VARIANT=WEIGHT with a whole number")
        weights[name] = int(weight)
    return weights


def parse_names(words: list[str]) -> dict[str, str]:
    """`["lobby-=int8"]` as a table.

    Raises:
        InvalidInput: a word that is not NAME=VARIANT.
    """
    names = {}
    for word in words:
        name, _, variant = word.rpartition("=")
        if not (name and variant):
            raise InvalidInput(f"{word} is not NAME=VARIANT")
        names[name] = variant
    return names


def parse_header_rules(words: list[str]) -> dict[Any, str]:
    """`["x-site:gate=int8"]` as a table.

    Raises:
        InvalidInput: a word that is not NAME:VALUE=VARIANT.
    """
    from lathe.control_calls import Header

    rules = {}
    for word, variant in parse_names(words).items():
        name, _, value = word.partition(":")
        if not (name and value):
            raise InvalidInput(f"{word} is not NAME:VALUE")
        rules[Header(name, value)] = variant
    return rules


def print_route(route: Any) -> None:
    shares = " ".join(
        f"{weight.variant}/{weight.version}={weight.weight}{' (follows the latest)' if weight.latest else ''}"
        for weight in route.weights
    )
    print(f"{route.model} revision {route.revision}: {shares}")
    if route.degrade.variants:
        cheaper = " ".join(f"{one.variant}/{one.version}" for one in route.degrade.variants)
        print(f"degrades to {cheaper} when streams wait longer than {route.degrade.after_seconds:g} s")
    for label in route.labels:
        print(f"@{label.name} is {label.variant.variant}/{label.variant.version}")
    for rule in route.rules:
        who = f"whose header {rule.header} is {rule.value}" if rule.header else f"whose names begin with {rule.prefix}"
        print(f"streams {who}: {rule.variant.variant}/{rule.variant.version}")
    if route.HasField("shadow"):
        shadow = route.shadow.variant
        print(f"{route.shadow.share:.1%} of the frames also go to {shadow.variant}/{shadow.version}, in the shadow")
    if route.HasField("experiment"):
        candidate = route.experiment.candidate
        print(
            f"experiment {route.experiment.id} with {candidate.variant}/{candidate.version}"
            f" runs on {route.experiment.owner}"
        )
