"""lathe gallery: enrol faces, ask whose they are, and look after the gallery's key."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.errors import NotFound

if TYPE_CHECKING:
    from lathe.v1 import card_pb2

NO_MATCH = 3
"""Exit code: asked and answered, and it is not the person, or nobody."""


def add_command(commands: Any) -> None:
    parser = commands.add_parser("gallery", help="enrol faces at a server, and ask whose a face is")
    parser.add_argument("--server", default="127.0.0.1:8500", metavar="HOST:PORT", help="(default %(default)s)")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    enrolling = verbs.add_parser("enroll", help="add pictures of a person, one face each")
    enrolling.add_argument("subject", help="names the person; better a number than a name")
    enrolling.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    enrolling.set_defaults(run=enroll)
    verifying = verbs.add_parser("verify", help=f"is it this person's face? Exit code 0: yes, {NO_MATCH}: no")
    verifying.add_argument("subject")
    verifying.set_defaults(run=verify)
    identifying = verbs.add_parser(
        "identify", help=f"whose face may it be? Exit code 0: somebody's, {NO_MATCH}: nobody's"
    )
    identifying.add_argument("--limit", type=int, default=1, metavar="N", help="most people (default %(default)s)")
    identifying.set_defaults(run=identify)
    for verb in (verifying, identifying):
        verb.add_argument("picture", type=Path)
        verb.add_argument(
            "--fmr", type=float, default=0.0, help="share of comparisons of two people that may match (the server's)"
        )
    for verb in (enrolling, verifying, identifying):
        verb.add_argument("--largest", action="store_true", help="of several faces in a picture the largest is meant")
    deleting = verbs.add_parser("delete", help="delete a person's records, or one of them, for good")
    deleting.add_argument("subject")
    deleting.add_argument("--record", default="", help="only this one")
    deleting.set_defaults(run=delete)
    exporting = verbs.add_parser("export", help="what is kept of a person, or of all, a JSON line each")
    exporting.add_argument("subject", nargs="?", default="")
    exporting.add_argument("--vectors", action="store_true", help="with them, which are biometric data")
    exporting.set_defaults(run=export)
    moving = verbs.add_parser("re-enroll", help="embed all kept faces anew, so that another variant can take over")
    moving.add_argument("variant", metavar="VARIANT[/VERSION]", help="of the embedding network, in memory")
    moving.set_defaults(run=re_enroll)
    describing = verbs.add_parser("describe", help="how many are enrolled, and in which embedding space")
    describing.set_defaults(run=describe)
    making = verbs.add_parser("key", help="make a key, in a new file that only its owner may read")
    making.add_argument("file", type=Path)
    making.set_defaults(run=make_key)
    changing = verbs.add_parser("rekey", help="seal a gallery with another key, while no server has it open")
    changing.add_argument("file", type=Path)
    changing.add_argument("--key", default="", metavar="FILE", help="the present key (LATHE_GALLERY_KEY_HEX)")
    changing.add_argument("--new-key", required=True, metavar="FILE")
    changing.set_defaults(run=rekey)


def enroll(options: argparse.Namespace) -> None:
    from lathe.client import Client, ServerError

    with Client(options.server) as client:
        for path in options.pictures:
            try:
                made = client.gallery.enroll(options.subject, _content(path), largest=options.largest)
            except ServerError as error:
                raise ServerError(error.code, f"{path}: {error.message}") from error
            print(f"{made.record} {path}: {options.subject} has {made.templates} templates")


def verify(options: argparse.Namespace) -> int:
    from lathe.client import Client

    picture = _content(options.picture)
    with Client(options.server) as client:
        found = client.gallery.verify(options.subject, picture, fmr=options.fmr, largest=options.largest)
    print(f"match, similarity {found.similarity:.3f}" if found.match else "no match")
    print(_threshold(found.threshold, found.comparisons))
    return 0 if found.match else NO_MATCH


def identify(options: argparse.Namespace) -> int:
    from lathe.client import Client

    picture = _content(options.picture)
    with Client(options.server) as client:
        found = client.gallery.identify(picture, fmr=options.fmr, limit=options.limit, largest=options.largest)
    for candidate in found.candidates:
        print(f"{candidate.subject}, similarity {candidate.similarity:.3f}, record {candidate.record}")
    if not found.candidates:
        print("nobody")
    print(_threshold(found.threshold, found.comparisons))
    print(f"a stranger's face matches {found.expected_false_matches:.2g} templates on average")
    return 0 if found.candidates else NO_MATCH


def delete(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(options.server) as client:
        print(f"{client.gallery.delete(options.subject, options.record)} records are deleted")


def export(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(options.server) as client:
        for record in client.gallery.export(options.subject, vectors=options.vectors):
            told = {
                "record": record.record,
                "subject": record.subject,
                "space": record.space,
                "enrolled_at": record.enrolled_at.ToJsonString(),
            }
            print(json.dumps(told | ({"vector": list(record.vector)} if options.vectors else {})))


def re_enroll(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(options.server) as client:
        done = client.gallery.re_enroll(options.variant)
    print(f"{done.records} records are in the embedding space {done.space}")


def describe(options: argparse.Namespace) -> None:
    from lathe.client import Client

    with Client(options.server) as client:
        told = client.gallery.describe()
    print(f"{told.people} people with {told.records} records, of {told.max_records} that there may be")
    print(f"pipeline {told.model}, embedding space {told.space or 'of whoever is enrolled first'}")
    print(f"decides at a false match rate of {told.fmr:g}, where a call names none")
    print(f"records go after {told.retention_days:g} days" if told.retention_days else "records stay until deleted")
    print("faces are kept for re-enrolment" if told.keeps_faces else "no faces are kept")


def make_key(options: argparse.Namespace) -> None:
    from lathe_server.gallery.sealing import write_key

    write_key(options.file)
    print(f"{options.file} holds a fresh key; whoever loses it loses the gallery, so keep a copy elsewhere")


def rekey(options: argparse.Namespace) -> None:
    from lathe_server.gallery.sealing import read_key
    from lathe_server.gallery.store import Store

    if not options.file.is_file():
        raise NotFound(f"there is no gallery {options.file}")
    key, fresh = read_key(options.key), read_key(options.new_key)
    store = Store(options.file, key, may_be_new=False)
    try:
        store.rekey(fresh)
    finally:
        store.close()
    print(f"{options.file} opens with the new key only")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"the picture {path} cannot be read", detail=str(error)) from error


def _threshold(threshold: card_pb2.MatchThreshold, comparisons: int) -> str:
    return (
        f"from {threshold.min_similarity:.3f} on, the false match rate {threshold.fmr:g} of one comparison; "
        f"{comparisons} were made"
    )
