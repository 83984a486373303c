"""lathe repo: look at a repository without a server, check it, clear it out."""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path
from typing import Any

from lathe.errors import InvalidInput, NotFound


def add_command(commands: Any) -> None:
    parser = commands.add_parser("repo", help="list, verify and clear out a repository")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listed = verbs.add_parser("ls", help="every version, and the route of each model")
    listed.set_defaults(run=list_versions)
    verified = verbs.add_parser(
        "verify", help="check every file against its card; exit code 1 where something is wrong"
    )
    verified.set_defaults(run=verify)
    verified.add_argument("--signed-by", type=Path, metavar="FILE", help="and its signature, with this public key")
    published = verbs.add_parser(
        "publish", help="publish an ONNX file as it is: a network of tensors, for the Open Inference Protocol"
    )
    published.set_defaults(run=publish)
    copied = verbs.add_parser("copy", help="publish versions in another repository, each under the next number there")
    copied.set_defaults(run=copy)
    seeded = verbs.add_parser(
        "seed",
        help="copy versions and pipelines into another folder that has them not, as they are named here; no routes",
    )
    seeded.set_defaults(run=seed_versions)
    signed = verbs.add_parser("sign", help="vouch for versions, all their files, with a private key")
    signed.set_defaults(run=sign_versions)
    cleared = verbs.add_parser("gc", help="remove old versions that none of a model's three newest routes names")
    cleared.add_argument("--keep", type=int, default=2, help="newest versions of each variant (default %(default)s)")
    cleared.add_argument("--dry-run", action="store_true", help="only say which")
    cleared.set_defaults(run=clear_out)
    told = verbs.add_parser("log", help="what the servers of a repository have written down: loads, swaps, refusals")
    told.set_defaults(run=tell)
    piped = verbs.add_parser(
        "pipeline", help="publish a pipeline: a name under which servers detect faces, align and embed them"
    )
    piped.set_defaults(run=write_pipeline)
    for verb in (listed, verified, cleared, told, published, copied, seeded, signed, piped):
        verb.add_argument("repository", help="folder, or an object store such as s3://bucket/models")
    piped.add_argument("name")
    piped.add_argument("--detector", metavar="MODEL", help="finds faces, with five landmarks each")
    piped.add_argument("--embedder", metavar="MODEL", help="embeds them")
    piped.add_argument(
        "--largest", type=int, default=4, help="faces of a frame that are embedded (default %(default)s)"
    )
    piped.add_argument(
        "--min-side",
        type=float,
        default=32.0,
        metavar="PIXELS",
        help="smaller faces are not embedded (default %(default)s)",
    )
    piped.add_argument("--remove", action="store_true", help="take it away")
    told.add_argument("model", nargs="?", default="")
    published.add_argument("file", type=Path)
    published.add_argument("name", metavar="MODEL/VARIANT")
    published.add_argument(
        "--shape",
        nargs="+",
        default=[],
        metavar="INPUT=1,3,224,224",
        help="of inputs with free dimensions, to try the network with (default: 1 for each)",
    )
    copied.add_argument("to", help="folder or object store")
    seeded.add_argument("to", help="folder")
    for verb in (copied, signed):
        verb.add_argument("versions", nargs="+", metavar="MODEL/VARIANT[/VERSION]", help="without a number the newest")
    signed.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="PEM, on the curve P-256, P-384 or P-521"
    )
    signed.add_argument("--password-file", type=Path, metavar="FILE", help="where the key has one")


def list_versions(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from lathe.errors import LatheError
    from lathe.housekeeping import versions
    from lathe.mirror import open_repository

    repository = open_repository(options.repository)
    table = Table()
    for heading in ("version", "made", "MB", "on the route"):
        table.add_column(heading, no_wrap=heading == "version")
    shares: dict[str, str] = {}
    for model in repository.newest_revisions():
        try:
            route = repository.route(model)
        except LatheError:
            continue  # `verify` tells
        if route:
            cheaper = {f"{model}/{one.variant}/{one.version}": "to degrade to" for one in route.degrade.variants}
            shares |= cheaper | {f"{model}/{one.variant}/{one.version}": str(one.weight) for one in route.weights}
    for ref in versions(repository):
        try:
            card = repository.card(ref)
        except LatheError as error:
            table.add_row(str(ref), error.message, "", "")
            continue
        made = card.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M")
        table.add_row(str(ref), made, f"{card.size_bytes / 1e6:.2f}", shares.get(str(ref), ""))
    Console().print(table)
    for name in repository.pipelines():
        try:
            spec = repository.pipeline(name)
        except LatheError:
            continue  # `verify` tells
        print(f"pipeline {name}: {spec}")


def tell(options: argparse.Namespace) -> None:
    from lathe.errors import LatheError
    from lathe.journal import all_events, line
    from lathe.mirror import open_repository

    repository = open_repository(options.repository)
    for server, event in all_events(repository.root):
        if options.model not in ("", event.model):
            continue
        who = ""
        if event.revision:
            try:
                route = repository.route(event.model, event.revision)
            except LatheError:
                route = None  # `verify` tells
            said = [" ".join(words.split()) for words in (route.author, route.reason)] if route else []
            who = f" ({', '.join(filter(None, said))})" if any(said) else ""
        print(f"{line(event)}{who} [{server}]")


def verify(options: argparse.Namespace) -> int:
    from lathe.housekeeping import problems, versions
    from lathe.mirror import open_repository
    from lathe.signatures import Verifier

    repository = open_repository(options.repository)
    verifier = Verifier(options.signed_by) if options.signed_by else None
    found = list(problems(repository, verifier))
    for problem in found:
        print(f"{problem.where}: {problem.what}")
    print(f"{len(list(versions(repository)))} versions, {len(found)} problems")
    return 1 if found else 0


def publish(options: argparse.Namespace) -> None:
    from lathe.card import check_name
    from lathe.mirror import open_repository
    from lathe_server.tensor_card import tensor_card

    model, _, variant = options.name.partition("/")
    check_name(model, "model")
    check_name(variant, "variant")
    try:
        content = options.file.read_bytes()
    except OSError as error:
        raise NotFound(f"{options.file} cannot be read", detail=str(error)) from error
    if "://" not in options.repository:
        Path(options.repository).mkdir(parents=True, exist_ok=True)
    repository = open_repository(options.repository)
    card = tensor_card(model, variant, content, dict(map(parse_shape, options.shape)), options.file.name)
    print(repository.publish(card, content))


def write_pipeline(options: argparse.Namespace) -> None:
    from lathe.mirror import open_repository
    from lathe.pipeline_file import PipelineSpec

    repository = open_repository(options.repository)
    if options.remove:
        repository.remove_pipeline(options.name)
        print(f"removed {options.name}")
        return
    if not (options.detector and options.embedder):
        raise InvalidInput("a pipeline needs --detector MODEL and --embedder MODEL")
    spec = PipelineSpec(options.detector, options.embedder, options.largest, options.min_side)
    for model in (spec.detector, spec.embedder):
        if not repository.variants(model):
            raise NotFound(f"there is no model {model}; there are {', '.join(repository.models())}")
    repository.write_pipeline(options.name, spec)
    print(f"pipeline {options.name}: {spec}")


def parse_shape(word: str) -> tuple[str, list[int]]:
    """
    Raises:
        InvalidInput: it is not INPUT=1,3,224,224.

    >>> parse_shape("pixels=1,3")
    ('pixels', [1, 3])
    """
    name, _, sides = word.rpartition("=")
    if not name or not all(side.isdecimal() for side in sides.split(",")):
        raise InvalidInput(f"{word} is not INPUT=1,3,224,224")
    return name, [int(side) for side in sides.split(",")]


def copy(options: argparse.Namespace) -> None:
    from lathe.mirror import open_repository

    source, target = open_repository(options.repository), open_repository(options.to)
    for name in options.versions:
        ref = source.named(name)
        source.fetch(ref)
        card, model, making, pictures = (
            source.card(ref),
            source.model_bytes(ref),
            source.making(ref),
            source.used_pictures(ref),
        )
        print(f"{ref} is {target.publish(card, model, making, pictures)} there")


def seed_versions(options: argparse.Namespace) -> int:
    from lathe.errors import LatheError
    from lathe.mirror import open_repository
    from lathe.seeding import seed, seed_pipelines

    if "://" in options.to:
        raise InvalidInput("only a folder can be seeded; for an object store there is `lathe repo copy`")
    damaged = 0
    source, target = open_repository(options.repository), open_repository(options.to)
    for what, outcome in chain(seed(source, target), seed_pipelines(source, target)):
        if isinstance(outcome, LatheError):
            damaged += 1
            print(f"{what}: not copied: {outcome.message}")
        else:
            print(f"{what}: {outcome}")
    return 1 if damaged else 0


def sign_versions(options: argparse.Namespace) -> None:
    from lathe.mirror import open_repository
    from lathe.signatures import sign

    repository = open_repository(options.repository)
    password = options.password_file.read_bytes().rstrip(b"\r\n") if options.password_file else b""
    for name in options.versions:
        ref = repository.named(name)
        repository.fetch(ref)
        repository.model_bytes(ref)  # nobody vouches for a file that is not the card's
        repository.add_signature(ref, sign(repository.folder(ref), options.key, password))
        print(f"signed {ref}")


def clear_out(options: argparse.Namespace) -> None:
    from lathe.housekeeping import unneeded
    from lathe.mirror import open_repository

    if options.keep < 1:
        raise InvalidInput("--keep must be at least 1")
    repository = open_repository(options.repository)
    for ref in unneeded(repository, options.keep):
        if not options.dry_run:
            repository.remove(ref)
        print(f"{'would remove' if options.dry_run else 'removed'} {ref}")
