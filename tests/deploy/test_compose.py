"""compose.yaml agrees with its schema, with the image, and with what it mounts."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatchcase

import pytest
import yaml

from lathe.cli.stream import add_command
from lathe_server.settings import unknown_variables
from tests.conftest import ROOT
from tests.deploy.manifests import DEPLOY, Document, compose, port_of, settings_of, tool
from tests.dockerfile import read_stages
from tests.project import PROJECT

IMAGE = read_stages(ROOT / "Dockerfile")[-1]
SERVICES: dict[str, Document] = compose()["services"]
OWN = {name: service for name, service in SERVICES.items() if service["image"].startswith("lathe:")}
"""Those of this project's image."""


def schema_check(text: str) -> subprocess.CompletedProcess[str]:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "--default-filetype", "yaml", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_it_keeps_to_the_schema() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    done = schema_check(text)
    assert done.returncode == 0, done.stdout
    assert schema_check(text.replace("stop_grace_period", "stop_grace_periot")).returncode == 1


def test_there_are_the_services() -> None:
    assert set(SERVICES) == {"models", "lathe", "prometheus", "grafana", "cameras"}
    assert SERVICES["cameras"]["profiles"] == ["cameras"]
    assert not any("profiles" in service for name, service in SERVICES.items() if name != "cameras")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "devices", "pid"} & service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    repository, _, tag = SERVICES[name]["image"].partition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    if name in OWN:
        assert (repository, tag) == ("lathe", PROJECT["project"]["version"])


def test_one_service_builds_the_image_and_the_others_wait_for_it() -> None:
    """Builds run at the same time, and those of one tag would get in each other's way."""
    (builder,) = (name for name, service in SERVICES.items() if "build" in service)
    assert builder == "lathe"
    build = OWN[builder]["build"]
    assert (DEPLOY / build["context"] / "Dockerfile").is_file()
    assert build["args"].keys() == {"EXTRAS"}  # an ARG of the first stage
    assert "EXTRAS=" in read_stages(ROOT / "Dockerfile")[0].values("ARG")
    others = {name: service for name, service in OWN.items() if name != builder}
    assert others.keys() == {"models", "cameras"}
    assert {service["pull_policy"] for service in others.values()} == {"never"}  # no registry has it


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    for mount in SERVICES[name].get("volumes", ()):
        if mount["type"] == "volume":
            assert mount["source"] in compose()["volumes"]
        else:
            assert (DEPLOY / mount["source"]).exists(), mount["source"]
            assert mount["read_only"] is True
            assert mount["bind"] == {"create_host_path": False}  # a missing folder is said, not made


def test_the_server_is_the_image_as_it_is() -> None:
    lathe = SERVICES["lathe"]
    assert not {"entrypoint", "command", "healthcheck"} & lathe.keys()
    assert [port.rpartition(":")[2] for port in lathe["ports"]] == IMAGE.value("EXPOSE").split()
    assert [mount["target"] for mount in lathe["volumes"]] == [IMAGE.value("VOLUME")]
    assert lathe["depends_on"] == {"models": {"condition": "service_completed_successfully"}}


def test_the_server_knows_its_settings() -> None:
    environment = SERVICES["lathe"]["environment"]
    assert unknown_variables(environment) == []
    settings = settings_of(IMAGE.words("CMD"), environment)
    patterns = settings.stream_labels.split(",")
    name = SERVICES["cameras"]["command"][SERVICES["cameras"]["command"].index("--stream-id") + 1]
    for stream in (name, f"{name}-1"):  # as one camera is called, and the first of several
        assert any(fnmatchcase(stream, pattern) for pattern in patterns)
    by_country = environment | {"LATHE_CARBON_COUNTRY": "DEU"}
    assert "LATHE_CARBON_COUNTRY" in environment
    assert settings_of(IMAGE.words("CMD"), by_country).carbon_country == "DEU"
    assert settings.price_per_core_hour > 0
    grace = float(SERVICES["lathe"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.drain_seconds + 2


def test_whatever_is_written_has_a_place() -> None:
    """Roots are read-only: caches and temporary files go to memory, data to volumes."""
    assert SERVICES["lathe"]["tmpfs"][0].startswith("/tmp:")
    (cache,) = (word for word in IMAGE.value("ENV").split() if word.startswith("LATHE_CACHE="))
    assert cache.startswith("LATHE_CACHE=/tmp/")
    command = SERVICES["prometheus"]["command"]
    (data,) = (word.partition("=")[2] for word in command if word.startswith("--storage.tsdb.path="))
    assert {"type": "volume", "source": "prometheus", "target": data} in SERVICES["prometheus"]["volumes"]
    assert {"type": "volume", "source": "grafana", "target": "/var/lib/grafana"} in SERVICES["grafana"]["volumes"]


def test_prometheus_scrapes_the_port_that_the_server_opens() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in configuration["scrape_configs"]}
    http = port_of(settings_of(IMAGE.words("CMD"), {}).http)
    assert jobs["lathe"] == [f"lathe:{http}"]
    (own,) = (port.partition(":")[2] for port in SERVICES["prometheus"]["ports"])
    assert jobs["prometheus"] == [f"localhost:{port_of(own)}"]
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


def test_grafana_asks_this_prometheus_and_lets_nobody_change_anything() -> None:
    (source,) = (DEPLOY / "grafana/provisioning/datasources").glob("*.y*ml")
    (prometheus,) = yaml.safe_load(source.read_text("utf-8"))["datasources"]
    assert prometheus["url"] == "http://prometheus:9090"
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))["global"]["scrape_interval"]
    assert prometheus["jsonData"]["timeInterval"] == scrape
    (provider,) = (DEPLOY / "grafana/provisioning/dashboards").glob("*.y*ml")
    (folder,) = yaml.safe_load(provider.read_text("utf-8"))["providers"]
    assert folder["options"]["path"] in [mount["target"] for mount in SERVICES["grafana"]["volumes"]]
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_cameras_call_the_server_with_flags_that_there_are() -> None:
    import argparse

    cameras = SERVICES["cameras"]
    assert cameras["entrypoint"] == ["lathe", "stream"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_command(parser.add_subparsers())
    options = parser.parse_args([*cameras["entrypoint"][1:], *cameras["command"]])
    assert options.server == f"lathe:{port_of(settings_of(IMAGE.words('CMD'), {}).grpc)}"
    assert options.source in [mount["target"] for mount in cameras["volumes"]]
    assert (options.live, options.loop, options.cameras) == (True, True, 4)
    assert cameras["depends_on"] == {"lathe": {"condition": "service_healthy"}}
    assert cameras["healthcheck"] == {"disable": True}
