"""Grafana's dashboards as code: what they ask is here, their JSON in deploy/grafana/dashboards is made from it."""
