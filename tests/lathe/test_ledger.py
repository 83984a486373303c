"""What becomes of a stream's frames over its calls, decided without any call."""

from __future__ import annotations

import grpc
import pytest

from lathe.ledger import Ledger, Live, Recording, goes_on
from lathe.v1 import inference_pb2

ANSWERED, DRAINING = inference_pb2.OUTCOME_ANSWERED, inference_pb2.OUTCOME_DROPPED_DRAINING
SUPERSEDED = inference_pb2.OUTCOME_DROPPED_SUPERSEDED
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def played(ledger: Ledger, script: str) -> str:
    """Plays letters on a ledger, and tells what came of it.

    d draws a frame; s sends all there is, told as the indices on the wire; a answers the next frame, told as `=index`,
    or as `~` where that is nobody's result; q drops it because the server is going; o opens a call, c cuts it;
    l settles what is lost, told as `-index`.
    """
    told = []
    for letter in script.replace(" ", ""):
        if letter == "d":
            ledger.draw(inference_pb2.DetectStreamRequest(frame={"index": ledger.drawn}))
        elif letter == "s":
            while (message := ledger.send()) is not None:
                told += [str(message.frame.index)]
        elif letter in "aq":
            index = ledger.settled
            told += [f"={index}" if ledger.settle(DRAINING if letter == "q" else ANSWERED) else "~"]
        elif letter == "o":
            ledger.open()
        elif letter == "c":
            ledger.cut()
        elif letter == "l":
            while ledger.lost:
                told += [f"-{ledger.settle_lost()}"]
    return " ".join(told)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("o dsa dsa", "0 =0 1 =1"),
        ("o ddd s a s", "0 1 2 =0"),
        ("o dddd s aa c o s aa", "0 1 2 3 =0 =1 2 3 =2 =3"),
        ("o dd s c s o s aa", "0 1 0 1 =0 =1"),
        ("o d s c ddd s o s aaaa", "0 0 1 2 3 =0 =1 =2 =3"),
        ("o d s a c l d o s a", "0 =0 1 =1"),
        ("o ddd s c aa o s a", "0 1 2 =0 =1 2 =2"),
        ("o dd s c o s c o s aa", "0 1 0 1 0 1 =0 =1"),
        ("o ddd s a q a c o s aa", "0 1 2 =0 ~ ~ 1 2 =1 =2"),
        ("o dd s qq o s aa", "0 1 ~ ~ 0 1 =0 =1"),
        ("o dd s c a o s a a", "0 1 =0 1 =1 ~"),
    ],
    ids=[
        "one by one",
        "ahead",
        "what was unanswered goes again",
        "nothing is sent while there is no call",
        "what was drawn meanwhile follows",
        "nothing is lost",
        "answers that came before the end are taken",
        "cut again before an answer",
        "what comes behind a frame that is owed goes with it",
        "owed frames go again",
        "a result too many is nobody's",
    ],
)
def test_a_recording_loses_no_frame(script: str, told: str) -> None:
    assert played(Recording(4), script) == told


def test_a_recording_without_a_next_call_takes_the_servers_word() -> None:
    assert played(Recording(4, again=False), "o dd s qq") == "0 1 =0 =1"


def test_a_recording_is_drawn_so_far_ahead_and_no_further() -> None:
    ledger = Recording(4)
    assert played(ledger, "o dddd s") == "0 1 2 3"
    assert ledger.is_full
    played(ledger, "c")
    assert ledger.is_full
    played(ledger, "os a")
    assert not ledger.is_full


def test_a_recording_is_owed_what_the_server_passed_over_until_the_next_call() -> None:
    ledger = Recording(4)
    played(ledger, "o d s q")
    assert ledger.is_owed
    played(ledger, "c")
    assert ledger.is_owed
    played(ledger, "o s a")
    assert not ledger.is_owed
    assert not ledger.waits


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("o dsa dsa", "0 =0 1 =1"),
        ("o ds ds ds c l", "0 1 2 -0 -1 -2"),
        ("o ds c d l d l d l", "0 -0 -1 -2"),
        ("o ds c dddl o l s a", "0 -0 -1 -2 3 =3"),
        ("o ds c ddd o l s a", "0 -0 -1 -2 3 =3"),
        ("o ds c l o ds a", "0 -0 1 =1"),
        ("o ds ds c a l o ds a", "0 1 =0 -1 2 =2"),
        ("o ds c dd a l", "0 =0 -1"),
        ("o ds c dl o s c dl o s a", "0 -0 1 -1 2 =2"),
        ("o ds qds q c dl o s a", "0 =0 1 =1 2 =2"),
        ("o l ds a a", "0 =0 ~"),
    ],
    ids=[
        "one by one",
        "what was unanswered is lost",
        "the newest waits",
        "the newest goes on the next call",
        "what is lost is settled before the next call's answers",
        "nothing waits",
        "answers that came before the end are taken",
        "an answer that comes while frames become stale",
        "cut again before an answer",
        "the server's word is taken",
        "a result too many is nobody's",
    ],
)
def test_a_live_stream_settles_what_is_stale_and_sends_the_newest(script: str, told: str) -> None:
    assert played(Live(), script) == told


def test_a_live_stream_is_never_full_and_holds_one_frame_at_most() -> None:
    ledger = Live()
    played(ledger, "o ds c" + "d" * 1000)
    assert not ledger.is_full
    assert (ledger.lost, ledger.drawn) == (1000, 1001)
    ledger.open()
    message = ledger.send()
    assert message is not None
    assert message.frame.index == 1000
    assert ledger.send() is None


@pytest.mark.parametrize("ledger", [Recording(4), Live()], ids=["recording", "live"])
def test_only_a_frame_that_is_not_sent_waits_for_a_call(ledger: Ledger) -> None:
    assert not ledger.waits
    played(ledger, "d")
    assert ledger.waits
    played(ledger, "o s a")
    assert not ledger.waits


@pytest.mark.parametrize(
    ("code", "has_begun", "is_answered", "is_owed", "expected"),
    [
        (UNAVAILABLE, True, True, False, True),
        (UNAVAILABLE, True, False, False, True),
        (UNAVAILABLE, False, False, False, False),
        (EXHAUSTED, True, False, False, True),
        (EXHAUSTED, True, True, False, False),
        (EXHAUSTED, False, False, False, False),
        (OK, True, True, False, False),
        (OK, True, True, True, True),
        (grpc.StatusCode.INTERNAL, True, True, True, False),
        (grpc.StatusCode.NOT_FOUND, True, False, False, False),
        (grpc.StatusCode.UNAUTHENTICATED, True, False, False, False),
        (grpc.StatusCode.CANCELLED, True, True, False, True),
    ],
)
def test_a_stream_goes_on_where_that_can_help(
    code: grpc.StatusCode, has_begun: bool, is_answered: bool, is_owed: bool, expected: bool
) -> None:
    assert goes_on(code, has_begun=has_begun, is_answered=is_answered, is_owed=is_owed) is expected
