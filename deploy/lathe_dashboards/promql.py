"""The few forms that the queries have."""

from __future__ import annotations

from collections.abc import Iterable

SERVER = 'job=~"$job",instance=~"$instance"'
MODEL = SERVER + ',model=~"$model"'
OF_VARIANTS = MODEL + ',variant!=""'
"""Without the frames that reached no variant."""
VARIANT = ("model", "variant", "version")
OF_ONE_SERVER = ("job", "instance", *VARIANT)
BY_VARIANT = "{{variant}}/{{version}}"
ANSWERED = 'outcome="answered"'
JUDGED = "lathe_stage_seconds_count", 'stage="infer"'
"""By variant, the answered frames that it judged; a pipeline's frame is one of each of its variants."""


def series(name: str, more: str = "", where: str = MODEL) -> str:
    """Those of the chosen servers and models.

    >>> series("lathe_streams", where='job="x"')
    'lathe_streams{job="x"}'
    """
    return f"{name}{{{where}{',' * bool(more)}{more}}}"


def total(expr: str, by: Iterable[str] = ()) -> str:
    """
    >>> total("up", ["job"]), total("up")
    ('sum by (job) (up)', 'sum(up)')
    """
    labels = ", ".join(by)
    return f"sum by ({labels}) ({expr})" if labels else f"sum({expr})"


def rate(name: str, more: str = "", by: Iterable[str] = (), where: str = MODEL) -> str:
    """A counter's growth in a second, summed."""
    return total(f"rate({series(name, more, where)}[$__rate_interval])", by)


def quantile(share: float, histogram: str, by: Iterable[str] = (), more: str = "", where: str = MODEL) -> str:
    """Not there where nothing was observed, which is NaN: that compares with nothing.

    Args:
        histogram: its name, without the `_bucket`.
    """
    return f"(histogram_quantile({share:g}, {rate(f'{histogram}_bucket', more, (*by, 'le'), where)}) >= 0)"


def ratio(above: str, below: str) -> str:
    """A quotient, which is not there where its divisor is 0: no NaN is drawn."""
    return f"{above} / ({below} > 0)"


def per_frame(counter: str, by: Iterable[str] = ()) -> str:
    """What an answered frame took of a counter that all servers have."""
    by = tuple(by)
    return ratio(rate(counter, by=by), rate(*JUDGED, by))


def per_frame_where_told(counter: str, by: Iterable[str] = (), label: str = "") -> str:
    """What an answered frame took of a counter that not all servers have, by the frames of those that have it.

    Args:
        by: the labels that counter and frames both have.
        label: that only the counter has, whose values are told apart: each by the frames of servers that have that one.
    """
    own = (label,) * bool(label)
    telling = f"group by ({', '.join((*OF_ONE_SERVER, *own))}) (rate({series(counter)}[$__rate_interval]))"
    answered = rate(*JUDGED, OF_ONE_SERVER)
    frames = f"{answered} * on ({', '.join(OF_ONE_SERVER)}) group_right () {telling}"
    return ratio(rate(counter, by=(*by, *own)), total(frames, (*by, *own)))
