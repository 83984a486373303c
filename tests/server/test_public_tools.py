"""What everybody has at hand: curl, and gRPC by reflection, without a line of Lathe's."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RunningServer

BUF = Path(sys.executable).with_name("buf")


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed")
def test_methods_are_found_and_called_by_reflection(
    shared_server: RunningServer, spot_jpeg: bytes, tmp_path: Path
) -> None:
    buf = (str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge")
    url = f"http://{shared_server.grpc}"
    assert "lathe.v1.InferenceService/Detect\n" in said(*buf, "--list-methods", url)
    request = tmp_path / "request.json"
    picture = base64.b64encode(spot_jpeg).decode()
    request.write_text(json.dumps({"model": "spots", "frame": {"encoded": picture}}))
    answer = json.loads(said(*buf, "-d", f"@{request}", f"{url}/lathe.v1.InferenceService/Detect"))
    assert answer["result"]["outcome"] == "OUTCOME_ANSWERED"
    assert len(answer["result"]["detections"]["score"]) == 1


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_a_picture_is_judged_by_curl(shared_server: RunningServer, spot_jpeg: bytes, tmp_path: Path) -> None:
    """As docs/open-inference.md has it."""
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(spot_jpeg)
    image = '{"name":"image","shape":[1],"datatype":"BYTES","parameters":{"content_type":"base64"},"data":["%s"]}'
    ask = f'printf \'{{"inputs":[{image}]}}\' "$(base64 -w0 {picture})" | '
    ask += f"curl -s -d @- {shared_server.http}/v2/models/spots/infer"
    outputs = {one["name"]: one for one in json.loads(said("sh", "-c", ask))["outputs"]}
    assert outputs["score"]["shape"] == [1]
    assert "spots" in said("curl", "-s", f"{shared_server.http}/v2/models/spots")
