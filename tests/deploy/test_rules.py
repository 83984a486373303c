"""Recording rules and alerts, by promtool and by the server's own metrics; their tests are deploy/prometheus/tests."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.deploy.served import RULES, names_in, rules, served

TESTS = sorted((RULES.parent / "tests").glob("*.yml"))
RUNBOOK = ROOT / "docs/alerts.md"


def promtool(*arguments: str | Path) -> None:
    """Runs it, and fails with what it says."""
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading's text."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_rules_are_well_formed() -> None:
    promtool("check", "rules", RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_record_and_alert_as_they_should(path: Path) -> None:
    promtool("test", "rules", path)


ALLOWED = "(1 - job:lathe_objective_share:max)"


@pytest.mark.parametrize(
    ("written", "instead", "shown_by"),
    [
        ("14.4 *", "14.2 *", "objective"),
        ("14.4 *", "14.6 *", "objective"),
        ("clamp_max(6 *", "clamp_max(6.2 *", "objective"),
        (f"clamp_max(14.4 * {ALLOWED}, 0.9)", f"14.4 * {ALLOWED}", "outage"),
        (f"clamp_max(6 * {ALLOWED}, 0.9)", f"6 * {ALLOWED}", "outage"),
        (f"clamp_max(3 * {ALLOWED}, 0.9)", f"3 * {ALLOWED}", "outage"),
        (f"clamp_max({ALLOWED}, 0.9)", ALLOWED, "outage"),
        (", version, currency) (\n", ", version) (\n", "service"),
        ("increase5m >= 100", "increase5m >= 1", "objective"),
        ("increase30m >= 100", "increase30m >= 1", "objective_days"),
        ("(last_over_time(lathe_objective_share[10m]))", "(0 * lathe_objective_share + 0.99)", "objective"),
        ("last_over_time(lathe_objective_share[10m])", "lathe_objective_share", "objective"),
        ('{stream!="other"}', "", "service"),
        ("time() - 86400", "time() - 186400", "forgotten"),
        ("avg_over_time(lathe_memory_short[5m]) > 0.2", "max_over_time(lathe_memory_short[5m]) > 0.2", "service"),
        ('verdict=~"rollback|invalid"', 'verdict=~".+"', "service"),
        ("0.5 * lathe_objective_seconds", "0.05 + 0 * lathe_objective_seconds", "service"),
    ],
)
def test_a_rule_that_is_changed_fails_its_tests(tmp_path: Path, written: str, instead: str, shown_by: str) -> None:
    text = RULES.read_text("utf-8")
    assert written in text
    (tmp_path / "rules.yml").write_text(text.replace(written, instead), "utf-8")
    shutil.copytree(RULES.parent / "tests", tmp_path / "tests")
    promtool("check", "rules", tmp_path / "rules.yml")
    with pytest.raises(AssertionError, match="FAILED"):
        promtool("test", "rules", tmp_path / f"tests/{shown_by}.yml")


def test_rules_ask_for_what_a_server_tells_or_they_themselves_record() -> None:
    known = served() | rules("record").keys() | {"up"}
    asked = {name: names_in(rule["expr"]) for kind in ("record", "alert") for name, rule in rules(kind).items()}
    assert {name: unknown for name, names in asked.items() if (unknown := names - known)} == {}
    assert all(asked.values())


def test_what_is_recorded_is_named_by_level_metric_and_operations() -> None:
    assert [
        name
        for name in rules("record")
        if not re.fullmatch(r"(job|job_\w+):lathe_\w+:[a-z]+(_[a-z]+\d+[mhd]|\d+[mhd])?", name)
    ] == []


def test_each_alert_says_how_urgent_it_is_what_it_is_and_where_to_read_on() -> None:
    headings = {anchor(line.lstrip("# ")) for line in RUNBOOK.read_text("utf-8").splitlines() if line.startswith("#")}
    for name, rule in rules("alert").items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}, name
        page, _, where = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / page, where) == (RUNBOOK, name.lower())
        assert where in headings


@pytest.mark.parametrize("name", rules("alert"))
def test_each_alert_is_shown_to_fire_and_to_stay_quiet(name: str) -> None:
    text = "\n".join(path.read_text("utf-8") for path in TESTS)
    blocks = re.split(r"\n      - (?=expr:|eval_time:)", text)
    own = [block for block in blocks if name in block]
    assert [block for block in own if "exp_" in block], "nothing shows that it fires"
    assert [block for block in own if "exp_" not in block], "nothing shows that it stays quiet"


def test_no_query_makes_up_what_is_not_there() -> None:
    assert "or vector" not in RULES.read_text("utf-8")
