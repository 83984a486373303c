"""Prometheus' rules as the resource that the Prometheus operator reads."""

from __future__ import annotations

from textwrap import indent

HEAD = """\
# Made from deploy/prometheus/rules.yml by `make dashboards`: change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: lathe
  labels:
    release: prometheus # what your Prometheus selects rules by, as in service-monitor.yaml
spec:
"""


def as_resource(rules: str) -> str:
    """A PrometheusRule with the text of a file of rules, comments and all."""
    return HEAD + indent(rules, "  ")
