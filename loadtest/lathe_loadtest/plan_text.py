"""A plan as a table, as sentences, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from lathe_loadtest.plan import DECODE_SECONDS, PROCESS_FRAMES, Row
from lathe_loadtest.utilisation import Utilisation


def headings(quality_name: str, currency: str, cameras_wanted: int) -> list[str]:
    found = ["machine", "cores", "variant", *([quality_name] if quality_name else [])]
    found += ["CPU a frame, ms", "from", "cameras", "servers"]
    if currency:
        found.append(f"{currency} a camera-month")
    if cameras_wanted:
        found.append(f"machines for {cameras_wanted:,}")
        if currency:
            found.append(f"{currency} a month")
    return found


def cells(
    rows: Sequence[Row], qualities: Mapping[str, float], quality_name: str, currency: str, cameras_wanted: int
) -> list[list[str]]:
    """Under the headings of the same arguments."""
    found = []
    for one in rows:
        quality = qualities.get(one.need.variant, math.nan)
        line = [one.instance.name, f"{one.instance.cores}", one.need.variant]
        line += [f"{quality:.3f}" if math.isfinite(quality) else "–"] if quality_name else []
        line += [f"{one.need.cpu_seconds.value * 1e3:.2f}", one.need.source, _cameras(one), str(one.servers)]
        if currency:
            line.append(_money(one.camera_month))
        if cameras_wanted:
            line.append(str(one.machines) if one.machines else "–")
            if currency:
                line.append(_money(one.month))
        found.append(line)
    return found


def summary(rows: Sequence[Row], fps: float, currency: str) -> list[str]:
    """A sentence a machine, the variant that carries most first.

    The prices are of the file that was given.
    """
    found = []
    for name in dict.fromkeys(one.instance.name for one in rows):
        own = sorted((one for one in rows if one.instance.name == name), key=lambda one: -one.cameras)
        parts = []
        for number, one in enumerate(own):
            price = f", {_money(one.camera_month)} {currency} a camera-month" if one.camera_month is not None else ""
            count = f"carries {_count(one.cameras)} at {fps:g} fps" if not number else f"{one.cameras}"
            parts.append(f"{one.need.variant} {count}{price}")
        found.append(f"On {name} {'; '.join(parts)}.")
    return found


def assumptions(
    *,
    fps: float,
    utilisations: Mapping[str, Utilisation],
    overhead_seconds: float | None,
    overhead_is_measured: bool,
    hours_a_month: float | None,
    cpus: Sequence[str],
    this_cpu: str,
    has_speeds: bool,
) -> list[str]:
    """What the table rests on, a sentence each.

    Args:
        overhead_seconds: None where no row is from a card.
        hours_a_month: None without prices.
        cpus: on which was measured.
        this_cpu: of "this machine"; empty where a load test has measured it.
    """
    found = [
        f"Each camera sends {fps:g} frames a second at all hours, and every frame is judged.",
        *_used(utilisations),
    ]
    if overhead_seconds is not None:
        origin = (
            "by which the measured variants took longer than their cards say"
            if overhead_is_measured
            else "the most that Lathe's own benchmarks found for gRPC and the event loop: lathe load measures it"
        )
        found.append(
            f"Rows from cards: the card's time on one thread, with {DECODE_SECONDS * 1e3:g} ms at least to decode a "
            f"picture (a JPEG of 640×480; larger ones take longer), and {overhead_seconds * 1e3:.2f} ms, {origin}."
        )
    if overhead_seconds is not None and this_cpu and this_cpu not in cpus:
        found.append(f"This machine is {this_cpu}, and taken to be as fast as where was measured.")
    if len(cpus) == 1:
        found.append(f"Measured on {cpus[0]}; other processors differ.")
    elif cpus:
        found.append(f"Measured on different processors, so rows are not comparable: {'; '.join(cpus)}.")
    if has_speeds:
        found.append("The speed of other machines' cores is what the table of instances says.")
    else:
        found.append("A core of every machine is taken to be as fast as one of the measured machine.")
    found.append("More cores carry more in proportion; memory, the network and its price are not counted.")
    found.append(
        f"One server process takes {PROCESS_FRAMES:g} frames a second at most; more processes share a machine."
    )
    if hours_a_month is not None:
        found.append(f"A month has {hours_a_month:g} hours, prices are those of the given file, nothing is spare.")
    return found


def _used(utilisations: Mapping[str, Utilisation]) -> list[str]:
    """A sentence for each that is another."""
    found = []
    for one in dict.fromkeys(utilisations.values()):
        names = [name for name, other in utilisations.items() if other == one]
        of = "" if len(names) == len(utilisations) else f" with {', '.join(names)}"
        found.append(f"The server uses {one.share:.0%} of the cores{of}: {one.source}.")
    return found


def as_json(rows: Sequence[Row], said: Sequence[str], fps: float, currency: str) -> str:
    table = {
        "format": 1,
        "kind": "plan",
        "fps": fps,
        "currency": currency,
        "rows": [
            {
                "machine": one.instance.name,
                "cores": one.instance.cores,
                "speed": one.instance.speed,
                "variant": one.need.variant,
                "cpu_ms_per_frame": one.need.cpu_seconds.value * 1e3,
                "source": one.need.source,
                "utilisation": one.utilisation,
                "cameras": one.cameras,
                "fewest_cameras": one.fewest_cameras,
                "most_cameras": one.most_cameras,
                "servers": one.servers,
                "camera_month": one.camera_month,
                "machines": one.machines,
                "month": one.month,
            }
            for one in rows
        ],
        "assumptions": list(said),
    }
    return json.dumps(table, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _cameras(one: Row) -> str:
    if one.fewest_cameras == one.most_cameras:
        return str(one.cameras)
    return f"{one.cameras} ({one.fewest_cameras} to {one.most_cameras})"


def _count(cameras: int) -> str:
    return "no camera" if not cameras else f"{cameras} camera{'s' * (cameras > 1)}"


def _money(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"
