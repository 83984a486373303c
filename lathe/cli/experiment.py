"""lathe experiment: one variant beside another on live frames, until there is a verdict."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import Any

from lathe.errors import InvalidInput

NO_PROMOTION = 3
"""Exit code of a command that waited for a verdict, and got another one than `promote`."""


def add_command(commands: Any) -> None:
    parser = commands.add_parser("experiment", help="A/B tests on live frames, with a verdict")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    start = verbs.add_parser(
        "start",
        help="put a candidate beside the variant that serves",
        description=f"With --until verdict the exit code is 0 for promote and {NO_PROMOTION} for any other verdict.",
    )
    start.add_argument("model")
    start.add_argument("--a", required=True, metavar="VARIANT[/VERSION]", help="the baseline; it has to serve alone")
    start.add_argument("--b", required=True, metavar="VARIANT[/VERSION]", help="the candidate")
    start.add_argument("--until", choices=("started", "verdict"), default="started", help="return then")
    start.add_argument("--shadow-rounds", type=int, default=0, metavar="N", help="first ones without answers from B")
    start.set_defaults(run=start_experiment)
    show = verbs.add_parser("show", help="how far the newest one has come")
    show.set_defaults(run=show_experiment)
    stop = verbs.add_parser("stop", help="end it without a verdict; the baseline serves alone")
    stop.add_argument("--reason", default="")
    stop.add_argument("--promote", action="store_true", help="the candidate serves alone instead")
    stop.set_defaults(run=stop_experiment)
    for verb in (show, stop):
        verb.add_argument("model")
    report = verbs.add_parser("report", help="write the page of an experiment, and judge it once more")
    report.add_argument("model")
    report.add_argument("--id", default="", help="default: the newest")
    report.add_argument("--repository", type=Path, help="read it there instead of asking a server")
    report.set_defaults(run=report_experiment)
    for verb in (start, report):
        _add_output(verb)
    for verb in (start, show, stop, report):
        _add_control(verb)
    add_spec_flags(start)


def add_rollout(commands: Any) -> None:
    parser = commands.add_parser(
        "rollout",
        help="the whole way for a candidate: check, shadow, experiment, verdict, report",
        description="The candidate is loaded and checked, sees frames in the shadow, then answers some of them beside "
        "the variant that serves, until there is a verdict. "
        f"Exit code 0 for the verdict promote, {NO_PROMOTION} for any other.",
    )
    parser.add_argument("model")
    parser.add_argument("--candidate", required=True, metavar="VARIANT[/VERSION]", dest="b")
    parser.add_argument(
        "--shadow-rounds",
        type=int,
        default=8,
        metavar="N",
        help="as many as it takes to know the agreement before the candidate answers anybody (default %(default)s)",
    )
    parser.set_defaults(run=start_experiment, a="", until="verdict")
    _add_output(parser)
    _add_control(parser)
    add_spec_flags(parser)


def _add_control(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--control",
        default="127.0.0.1:8502",
        metavar="HOST:PORT",
        help="the server's control port (default %(default)s)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("work/experiments"),
        metavar="FOLDER",
        help="where <id>.html and <id>.json are written (default %(default)s)",
    )


def add_spec_flags(parser: argparse.ArgumentParser) -> None:
    """What decides how it is carried out and judged; what is not given takes the server's default."""
    parser.add_argument("--split", type=float, metavar="PERCENT", help="of the frames for B: 50, 33, 25, 20, 10 …")
    parser.add_argument("--unit", choices=("block", "stream"), help="what changes sides; default: by the open streams")
    parser.add_argument("--block-seconds", type=float)
    parser.add_argument("--shadow-share", type=float, metavar="SHARE", help="of the frames that both judge")
    parser.add_argument("--objective", metavar="METRIC", help="in which B has to be better")
    parser.add_argument("--minimum-effect", type=float, metavar="SHARE", help="by how much")
    parser.add_argument("--margin", nargs="+", default=[], metavar="METRIC=MARGIN", help="how much worse B may be")
    parser.add_argument("--minimum-agreement", type=float, metavar="F1", help="with A on the same frames")
    parser.add_argument("--no-agreement", action="store_true", help="do not judge it")
    parser.add_argument("--alpha", type=float, help="chance of a wrong verdict")
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--max-failed-share", type=float, help="B loses the frames at once above it")
    parser.add_argument("--max-latency-ratio", type=float, help="the same, for the 99th percentile against A's")
    parser.add_argument("--seed", help="decides who is B when")
    parser.add_argument("--promote", action="store_true", help="B takes the route where the verdict is promote")


def start_experiment(options: argparse.Namespace) -> int:
    from lathe.client import Client
    from lathe.v1.experiment_pb2 import VERDICT_PROMOTE

    spec = _spec(options)
    with Client(control=options.control) as client:
        if not options.a:
            route = client.route(options.model)
            serving = [one for one in route.weights if one.weight]
            spec.baseline.variant, spec.baseline.version = serving[0].variant, serving[0].version
        begun = client.start_experiment(spec, author=getpass.getuser())
        print(f"experiment {begun.id} on {begun.spec.model} has begun")
        if options.until == "started":
            return 0
        ended = _until_verdict(client, begun)
    _print(ended)
    _write(ended, options.output)
    return 0 if ended.verdict == VERDICT_PROMOTE else NO_PROMOTION


def show_experiment(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(control=options.control) as client:
        _print(client.experiment(options.model))


def stop_experiment(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(control=options.control) as client:
        _print(client.stop_experiment(options.model, options.reason, promote=options.promote))


def report_experiment(options: argparse.Namespace) -> None:
    from lathe.client import Client
    from lathe.repository import Repository

    if options.repository:
        experiment = Repository(options.repository).experiment(options.model, options.id)
    else:
        with Client(control=options.control) as client:
            experiment = client.experiment(options.model, options.id)
    _print(experiment)
    _write(experiment, options.output)


def _spec(options: argparse.Namespace) -> Any:
    from lathe.control_calls import variant_and_version
    from lathe.v1 import experiment_pb2

    spec = experiment_pb2.ExperimentSpec(model=options.model, promote=options.promote)
    for side, name in ((spec.baseline, options.a), (spec.candidate, options.b)):
        if name:
            side.variant, side.version = variant_and_version(name)
    if options.split is not None:
        spec.blocks_per_round = _blocks(options.split)
    if options.unit:
        spec.unit = experiment_pb2.ExperimentUnit.Value(f"EXPERIMENT_UNIT_{options.unit.upper()}")
    if options.no_agreement:
        spec.minimum_agreement = -1.0
    elif options.minimum_agreement is not None:
        spec.minimum_agreement = options.minimum_agreement
    if options.shadow_rounds < 0:
        raise InvalidInput("--shadow-rounds is a whole number from 0 up")
    spec.shadow_rounds = options.shadow_rounds
    if options.minimum_agreement == 0:
        raise InvalidInput("--minimum-agreement is above 0; --no-agreement does not judge it")
    for name in (
        "block_seconds",
        "shadow_share",
        "objective",
        "minimum_effect",
        "alpha",
        "max_seconds",
        "max_failed_share",
        "max_latency_ratio",
        "seed",
    ):
        given = getattr(options, name)
        if given == 0:  # in the contract 0 stands for what is not given
            raise InvalidInput(f"--{name.replace('_', '-')} is above 0; left out it takes its default")
        if given is not None:
            setattr(spec, name, given)
    for word in options.margin:
        metric, _, margin = word.partition("=")
        try:
            spec.margins.add(metric=metric, margin=float(margin))
        except ValueError:
            raise InvalidInput(f"{word} is not METRIC=MARGIN with a number") from None
    return spec


def _blocks(percent: float) -> int:
    """Of a round, for the candidate's share of the frames.

    >>> [_blocks(percent) for percent in (50, 33, 25, 10)]
    [2, 3, 4, 10]
    """
    blocks = round(100 / percent) if 0 < percent <= 50 else 0
    if not blocks or abs(100 / blocks - percent) > 0.5:
        raise InvalidInput("B gets one block of a round, so its share in percent is 50, 33, 25, 20, 17, 14, … or less")
    return blocks


def _until_verdict(client: Any, begun: Any) -> Any:
    import time

    from lathe.errors import Unavailable
    from lathe.progress import Progress
    from lathe.v1.experiment_pb2 import EXPERIMENT_STATE_ENDED

    now, seen = begun, 0
    with Progress().step(f"experiment {begun.id}"):
        while now.state != EXPERIMENT_STATE_ENDED:
            time.sleep(min(1.0, begun.spec.block_seconds))
            try:
                now = client.experiment(begun.spec.model, begun.id)
            except Unavailable:
                continue  # a server that starts again goes on with it
            if len(now.rounds) > seen:
                seen = len(now.rounds)
                print(f"round {seen}, {now.rounds[-1].ended_seconds:.0f} s: {now.reason}", flush=True)
    return now


def _print(experiment: Any) -> None:
    from lathe.experiment import said_of, title, verdict_word

    print(f"{experiment.id}: {title(experiment.spec)}: {verdict_word(experiment)}")
    print(experiment.reason)
    for estimate in experiment.estimates:
        print(f"  {said_of(estimate)}")


def _write(experiment: Any, folder: Path) -> None:
    from lathe.experiment_page import write

    folder.mkdir(parents=True, exist_ok=True)
    print(f"report: {write(experiment, folder, experiment.id)}")
