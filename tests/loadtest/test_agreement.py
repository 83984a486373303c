"""What the load test has seen, and what the server says of itself, as Prometheus would read it."""

from __future__ import annotations

import math
from bisect import bisect_left

from lathe.quantiles import bucket_quantile
from lathe.scrape import scrape
from lathe_loadtest.drive import drive
from lathe_loadtest.latencies import latencies_of
from lathe_loadtest.scenario import Cameras, Scenario
from lathe_loadtest.stage import Target
from tests.conftest import RunningServer


def test_frames_are_the_servers_and_percentiles_lie_in_the_buckets_of_its_histogram(server: RunningServer) -> None:
    kinds = (Cameras(count=6, fps=25.0, size_wh=(160, 120)), Cameras(name="hurried", fps=200.0, size_wh=(160, 120)))
    result = drive(Scenario("spots", kinds, seconds=3.0), Target(server.grpc, server.http, server.control))
    told = scrape(server.http)
    frames = {
        outcome: int(count) for (outcome,), count in told.totals("lathe_frames_total", "outcome").items() if count
    }
    assert frames == {name: count for name, count in result.outcomes.items() if count}
    buckets = {float(bound): count for (bound,), count in told.totals("lathe_age_seconds_bucket", "le").items()}
    assert buckets[math.inf] == frames["answered"]
    bounds, seen = sorted(buckets), latencies_of(result.cameras)
    for share in (0.5, 0.9, 0.99):
        servers = bucket_quantile(share, buckets)
        assert servers
        # The way back is the driver's alone, so it may see an answer one bucket later.
        assert 0 <= bisect_left(bounds, seen.percentile(share)) - bisect_left(bounds, servers) <= 1
