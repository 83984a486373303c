"""The server's image without a container: what its Dockerfile installs is installed, and what it runs is run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lathe import Client
from tests.conftest import ROOT
from tests.dockerfile import Installed, Stage, carry_out, read_stages

DOCKERFILE = ROOT / "Dockerfile"
START_SECONDS = 1.5
STARTS = 3

MAIN_THEN_MODULES = """
import json, sys
from lathe.cli import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""
"""The server's process, which tells at its end what it had imported."""


@pytest.fixture(scope="module")
def image() -> Stage:
    return read_stages(DOCKERFILE)[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """What the image holds, in a folder of its own."""
    return carry_out(DOCKERFILE, tmp_path_factory.mktemp("image"))


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[str]
    seconds: float
    addresses: dict[str, str]

    def end(self) -> str:
        """SIGTERM; what the process printed after its line of addresses."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return output


@contextmanager
def started(environment: dict[str, str], command: list[str], log: Path) -> Iterator[Started]:
    """A server, from the moment that its process is asked for to its line of addresses."""
    with log.open("w") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        assert line.startswith("ready "), log.read_text()
        yield Started(process, seconds, dict(word.split("=", 1) for word in line.split()[1:]))
    finally:
        process.kill()
        process.communicate()


def on_free_ports(arguments: list[str], repository: Path) -> list[str]:
    """The image's arguments for this machine: loopback only, any free port, and a repository to serve."""
    addressed = [re.sub(r"^[\d.]+:\d+$", "127.0.0.1:0", argument) for argument in arguments]
    return [str(repository) if argument == "/models" else argument for argument in addressed]


def command_of(image: Stage, repository: Path) -> list[str]:
    return image.words("ENTRYPOINT") + on_free_ports(image.words("CMD"), repository)


def answer(started: Started) -> str:
    """The variant that answers a frame."""
    with Client(started.addresses["grpc"]) as client:
        return client.detect("face", np.zeros((240, 320, 3), np.uint8)).variant


def test_the_container_is_locked_down(image: Stage) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.value("USER"))
    assert image.value("STOPSIGNAL") == "SIGTERM"
    assert image.value("VOLUME") == "/models"
    arguments = image.words("CMD")
    addresses = {flag: arguments[arguments.index(flag) + 1] for flag in ("--grpc", "--http", "--control")}
    assert addresses["--control"].startswith("127.0.0.1:"), "who reaches the control port changes what serves"
    assert image.value("EXPOSE").split() == [addresses[flag].partition(":")[2] for flag in ("--grpc", "--http")]
    assert f"127.0.0.1:{addresses['--http'].partition(':')[2]}/readyz" in image.health_check()[-1]


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    build = read_stages(DOCKERFILE)[0]
    copied = {source for value in build.values("COPY") for source in value.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied


def test_the_image_holds_pinned_runtime_packages_and_no_torch(installed: Installed) -> None:
    (site,) = installed.root.glob("opt/lathe/lib/python*/site-packages")
    versions = {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version
        for found in distributions(path=[str(site)])
    }
    assert {"lathe", "onnxruntime", "grpcio"} <= versions.keys()
    assert not {"torch", "onnx", "pytest", "mypy", "pip", "setuptools"} & versions.keys()
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert {name: pin for name, pin in pins.items() if name in versions} == {
        name: version for name, version in versions.items() if name in pins
    }


def test_the_entry_point_is_ready_in_time_and_answers_with_int8(
    installed: Installed, image: Stage, face_repository: Path, tmp_path: Path
) -> None:
    seconds = []
    for number in range(STARTS):  # other work on the machine slows one start, seldom all
        log = tmp_path / f"{number}.log"
        with started(installed.environment(), command_of(image, face_repository), log) as server:
            seconds.append(server.seconds)
            assert answer(server) == "int8"
            server.end()
        assert not re.search(r"warn|\[[WEF]:onnxruntime", log.read_text(), re.IGNORECASE), log.read_text()
    assert min(seconds) < START_SECONDS, f"ready after {', '.join(f'{value:.2f}' for value in seconds)} s"


def test_the_health_check_tells_ready_from_gone(
    installed: Installed, image: Stage, face_repository: Path, tmp_path: Path
) -> None:
    with started(installed.environment(), command_of(image, face_repository), tmp_path / "log") as server:
        *command, script = image.health_check()
        script = re.sub(r"127\.0\.0\.1:\d+", server.addresses["http"], script)
        healthy = installed.run(*command, script)
        assert healthy.returncode == 0, healthy.stderr
        server.end()
        assert installed.run(*command, script).returncode != 0


@pytest.mark.parametrize("torch_is_installed", [False, True])
def test_a_server_never_imports_torch(
    torch_is_installed: bool, installed: Installed, image: Stage, face_repository: Path, tmp_path: Path
) -> None:
    python, environment = "python", installed.environment()
    if torch_is_installed:  # where the tests run; there an import would succeed
        assert find_spec("torch")
        python = sys.executable
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LATHE_")}
    command = [python, "-c", MAIN_THEN_MODULES, *command_of(image, face_repository)[1:]]
    with started(environment, command, tmp_path / "log") as server:
        assert answer(server) == "int8"
        modules = json.loads(server.end())
    packages = {name.partition(".")[0] for name in modules}
    assert {"lathe_server", "onnxruntime"} <= packages
    assert not packages & {"torch", "onnx", "lathe_compression"}


def test_compression_says_which_extra_brings_what_is_missing(installed: Installed) -> None:
    done = installed.run("lathe", "compress", str(ROOT / "recipes/face.toml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r'lathe: this needs (torch|onnx): install Lathe with its extra "compression"\n', done.stderr)


def test_evaluation_needs_no_torch(
    installed: Installed, face_repository: Path, spot_jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / "spot.jpg").write_bytes(spot_jpeg)
    done = installed.run("lathe", "evaluate", str(face_repository / "face/int8"), "--data", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["latency_ms"]
