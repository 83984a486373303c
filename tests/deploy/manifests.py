"""What deploy/ says: the compose file with its variables filled in, Kubernetes' manifests as kustomize builds them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from lathe_server.settings import Settings, load_settings
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
FOLDERS = sorted(path.parent.name for path in KUBERNETES.glob("*/kustomization.yaml"))
"""Each of them is applied by `kubectl apply -k`."""

Document = dict[str, Any]

_VARIABLE = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")


def tool(name: str) -> str:
    """A command that a package of the extra `dev` brings."""
    return str(Path(sys.executable).with_name(name))


def filled_in(value: Any) -> Any:
    """Variables replaced by their defaults, as compose does where the environment has none."""
    if isinstance(value, dict):
        return {key: filled_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item) for item in value]
    return _VARIABLE.sub(lambda found: found["default"], value) if isinstance(value, str) else value


KUBECTL = shutil.which(tool("kubectl"))


@cache
def compose() -> Document:
    found: Document = filled_in(yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8")))
    return found


@cache
def kustomized(folder: str) -> tuple[Document, ...]:
    """The resources that `kubectl apply -k` would send."""
    if not KUBECTL:
        pytest.skip("kubectl is not installed (a package of the extra `dev`)")
    home = {**os.environ, "KUBECONFIG": os.devnull}
    done = subprocess.run(
        [KUBECTL, "kustomize", str(KUBERNETES / folder)], env=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    return tuple(yaml.safe_load_all(done.stdout))


def resource(folder: str, kind: str, name: str = "") -> Document:
    """The only one of that kind, or of that kind and name."""
    (found,) = (
        document
        for document in kustomized(folder)
        if document["kind"] == kind and name in ("", document["metadata"]["name"])
    )
    return found


def pod_of(folder: str) -> Document:
    """The specification of the pods of `folder`, whose first container is the server."""
    if folder == "kserve":
        runtime, service = resource(folder, "ServingRuntime"), resource(folder, "InferenceService")
        grace = service["spec"]["predictor"]["terminationGracePeriodSeconds"]
        return {
            "containers": runtime["spec"]["containers"],
            "volumes": runtime["spec"]["volumes"],
            "terminationGracePeriodSeconds": grace,
        }
    spec: Document = resource(folder, "Deployment")["spec"]["template"]["spec"]
    return spec


def environment_of(folder: str) -> dict[str, str]:
    """What the server's container gets, but for secrets."""
    container = pod_of(folder)["containers"][0]
    told = {one["name"]: one["value"] for one in container.get("env", ())}
    for source in container.get("envFrom", ()):
        if reference := source.get("configMapRef"):
            told |= resource(folder, "ConfigMap", reference["name"])["data"]
    return told


def settings_of(arguments: list[str], environment: dict[str, str]) -> Settings:
    """As the server reads them.

    Raises:
        InvalidInput: an unknown flag, or a value that makes no sense.
    """
    import argparse

    from lathe_server.settings import add_flags

    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("repository")
    add_flags(parser)
    return load_settings(parser.parse_args(arguments), environment)


def errors_of(document: Document, schema: str) -> list[str]:
    """What a schema in tests/deploy/schemas has against it."""
    table = json.loads((SCHEMAS / f"{schema}.json").read_text("utf-8"))
    found = (best_match([error]) for error in Draft202012Validator(table).iter_errors(document))  # the deepest
    return [f"{error.json_path}: {error.message}" for error in found]


def port_of(address: str) -> int:
    """
    >>> port_of("0.0.0.0:8500")
    8500
    """
    return int(address.rpartition(":")[2])
