"""How the log is written: one line for each thing that happened, for eyes or for programs.

Everything else speaks to the standard library's loggers, with facts as `extra`. A line that a call has brought about
names the call and who makes it; secrets that strayed into a text are taken out; and no text makes a line of its own.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TypeAlias

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from lathe_server.facts import facts_of_call, without_secrets
from lathe_server.origin import current
from lathe_server.settings import JSON_LINES

_Facts: TypeAlias = MutableMapping[str, Any]
_LINE_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def set_up(style: str, level: str) -> None:
    """From now on all loggers write to standard error.

    Args:
        style, level: as the settings have them.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(style, colors=sys.stderr.isatty()))
    handler.addFilter(_is_for_operators)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger().setLevel(max(logging.INFO, logging.getLevelName(level.upper())))  # others' details hold secrets
    for ours in ("lathe", "lathe_server"):
        logging.getLogger(ours).setLevel(level.upper())
    logging.getLogger("lathe.audit").setLevel(logging.INFO)  # whatever else is left out


def formatter(style: str, *, colors: bool = False) -> logging.Formatter:
    return ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            _with_the_call,
        ],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,  # the words only, and not what variables held
            _without_secrets,
            *(_for_programs() if style == JSON_LINES else _for_eyes(colors)),
        ],
    )


def _for_programs() -> list[Processor]:
    return [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()]


def _for_eyes(colors: bool) -> list[Processor]:
    plain = structlog.dev.plain_traceback
    return [_on_one_line, structlog.dev.ConsoleRenderer(pad_event_to=0, colors=colors, exception_formatter=plain)]


def _with_the_call(logger: Any, method: str, facts: _Facts) -> _Facts:
    for name, value in facts_of_call(current.get()).items():
        facts.setdefault(name, value)
    return facts


def _without_secrets(logger: Any, method: str, facts: _Facts) -> _Facts:
    return {name: without_secrets(value) if isinstance(value, str) else value for name, value in facts.items()}


def _on_one_line(logger: Any, method: str, facts: _Facts) -> _Facts:
    """All but a traceback, whose lines are set in."""
    for name, value in facts.items():
        if name == "exception":
            facts[name] = "\n".join(f"    {_printable(line)}" for line in value.splitlines())
        elif isinstance(value, str):
            facts[name] = _printable(value)
    return facts


def _printable(text: str) -> str:
    return _LINE_BREAKING.sub(lambda found: repr(found[0])[1:-1], text)


def _is_for_operators(record: logging.LogRecord) -> bool:
    """gRPC writes down headers that it cannot decode, and there may be tokens among them; and, with a traceback, that a
    caller has left while its answer was sent."""
    message = str(record.msg)
    return "Invalid encoding" not in message and "ExecuteBatchError raised in core" not in message
