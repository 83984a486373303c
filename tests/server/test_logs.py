"""The log: for eyes and for programs, with the call that a line is about, and without what must not be in it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from lathe.repository import Repository
from lathe.v1 import inference_pb2
from lathe_server.access.tokens import Identity
from lathe_server.facts import without_secrets
from lathe_server.logs import formatter
from lathe_server.origin import Origin, current
from tests.calls import channel, config, frame, inference, outcomes, refusal, stream, until
from tests.conftest import start_server

CAMERA = "rtsp://admin:hunter2@gate-3/live"
TOKEN = "lathe_0123456789abcdefghijKLMNOP"


def record(message: str, *, exc_info: Any = None, **facts: object) -> logging.LogRecord:
    made = logging.LogRecord("lathe.test", logging.WARNING, "", 0, message, (), exc_info)
    vars(made).update(facts)
    return made


def broken(words: str) -> Any:
    secret = f"{words} of a variable"
    try:
        raise RuntimeError(words)
    except RuntimeError:
        assert secret
        return sys.exc_info()


@pytest.mark.fault(88)
@pytest.mark.parametrize("style", ["console", "json"])
def test_whatever_is_said_makes_one_line(style: str) -> None:
    line = formatter(style).format(record("one\ntwo\r\x85\u2028three", model="four\nfive"))
    assert len(line.splitlines()) == 1


@pytest.mark.fault(88)
def test_the_lines_of_a_traceback_are_set_in_and_show_no_variables() -> None:
    lines = formatter("console").format(record("it broke", exc_info=broken("first\nsecond\x1b[2J"))).splitlines()
    assert lines[0].endswith("it broke [lathe.test]")
    assert lines[1] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-1] == r"    second\x1b[2J"
    assert "of a variable" not in "\n".join(lines).replace('secret = f"{words} of a variable"', "")


@pytest.mark.fault(87)
@pytest.mark.parametrize("style", ["console", "json"])
def test_secrets_that_strayed_into_a_text_are_taken_out(style: str) -> None:
    told = record(f"{CAMERA} came with {TOKEN}", exc_info=broken(f"authorization: Bearer {TOKEN}"), stream=CAMERA)
    line = formatter(style).format(told)
    assert "gate-3" in line
    assert not [secret for secret in ("hunter2", "admin", TOKEN[6:]) if secret in line]


@pytest.mark.fault(87)
@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:p@ss@gate-3/x",
        "rtsp://admin:pa/ss@gate-3/x",
        "http://gate-3/x?user=admin&key=p@ss",
        "rtsp://admin:p?s@s@gate-3/x",
    ],
)
def test_a_password_is_taken_out_wherever_it_stands(url: str) -> None:
    left = without_secrets(f"camera {url} went away")
    assert not [secret for secret in ("ss", "s@s", "admin") if secret in left]
    assert left.endswith(" went away")


@pytest.mark.fault(59, 87)
def test_the_level_is_that_of_our_own_lines_and_never_hides_who_changed_what() -> None:
    script = """
import logging
from lathe_server import logs
logs.set_up("json", LEVEL)
for name in ("lathe_server.server", "lathe.audit", "botocore.auth"):
    logging.getLogger(name).debug("a detail of %s", name)
    logging.getLogger(name).info("a fact of %s", name)
logging.getLogger("elsewhere").info("%s %s", "too few")
"""

    def told(level: str) -> list[str]:
        command = [sys.executable, "-c", script.replace("LEVEL", repr(level))]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        return [json.loads(line)["message"] for line in said.splitlines() if line.startswith("{")]

    ours, audit, theirs = "lathe_server.server", "lathe.audit", "botocore.auth"
    facts = [f"a fact of {name}" for name in (ours, audit, theirs)]
    assert told("debug") == [f"a detail of {ours}", *facts]
    assert told("info") == facts
    assert told("error") == [f"a fact of {audit}"]


def test_a_line_names_the_call_and_who_makes_it() -> None:
    before = current.set(Origin([("x-request-id", "gate-3/17")], Identity("cameras", "infer")))
    try:
        told = json.loads(formatter("json").format(record("it went wrong", variant="int8")))
    finally:
        current.reset(before)
    assert {key: told[key] for key in ("level", "logger", "message", "variant", "request_id", "identity")} == {
        "level": "warning",
        "logger": "lathe.test",
        "message": "it went wrong",
        "variant": "int8",
        "request_id": "gate-3/17",
        "identity": "cameras",
    }
    assert "request_id" not in json.loads(formatter("json").format(record("nobody called")))


@pytest.mark.parametrize("told", ["", "with space", "x" * 129, "line\nbreak"])
def test_a_call_without_a_sane_name_gets_one(told: str) -> None:
    assert uuid.UUID(Origin([("x-request-id", told)]).request_id)


def test_an_error_names_its_call_as_the_caller_did(shared_server: Any) -> None:
    request = inference_pb2.DetectRequest(model="nobody")
    with channel(shared_server.grpc) as opened:
        error = refusal(lambda: inference(opened).Detect(request, metadata=(("x-request-id", "gate-3/17"),)))
    assert isinstance(error, grpc.Call)
    info = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
    assert info.request_id == "gate-3/17"


@pytest.mark.fault(87)
def test_with_every_detail_there_is_a_line_a_frame_and_one_for_the_stream(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    log = tmp_path / "log"
    flags = ("--log-format", "json", "--log-level", "debug")
    with start_server(repository.root, log, *flags) as server, channel(server.grpc) as opened:
        messages = [config(stream_id=CAMERA, keep_all=True), *(frame(index, spot_jpeg) for index in range(3))]
        assert outcomes(stream(opened, messages)) == ["answered"] * 3
        until(lambda: "a stream has ended" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    frames = [line for line in lines if line["logger"] == "lathe.frames"]
    assert sorted((line["message"], line["variant"], line["frame"]) for line in frames) == [
        ("frame answered", "a", index) for index in range(3)
    ]
    ended = next(line for line in lines if line["message"] == "a stream has ended")
    assert (ended["model"], ended["stream"], ended["frames"]) == ("spots", "rtsp://gate-3/live", 3)
    assert (ended["logger"], ended["status"]) == ("lathe.streams", "OK")
    assert {line["request_id"] for line in frames} == {ended["request_id"]}
    assert "hunter2" not in log.read_text()
