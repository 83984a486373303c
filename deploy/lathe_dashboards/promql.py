"""The few forms that the queries have."""

from __future__ import annotations

from collections.abc import Iterable

SERVER = 'job=~"$job",instance=~"$instance"'
MODEL = SERVER + ',model=~"$model"'
OF_VARIANTS = MODEL + ',variant!=""'
"""Without the frames that reached no variant."""
VARIANT = ("model", "variant", "version")
BY_VARIANT = "{{variant}}/{{version}}"
ANSWERED = 'outcome="answered"'


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


def per_frame(counter: str, by: Iterable[str] = (), more: str = "") -> str:
    """What an answered frame took of a counter."""
    by = tuple(by)
    return ratio(rate(counter, more, by), rate("lathe_frames_total", ANSWERED, by))


def per_frame_and(label: str, counter: str, by: Iterable[str] = ()) -> str:
    """As `per_frame`, for each value of a label that frames do not have.

    Args:
        by: the labels that both have.
    """
    by = tuple(by)
    above, below = rate(counter, by=(*by, label)), rate("lathe_frames_total", ANSWERED, by)
    return f"{above} / on ({', '.join(by)}) group_left () ({below} > 0)"
