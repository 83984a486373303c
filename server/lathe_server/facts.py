"""What the log and traces say of a call and of a frame: names and numbers, and nothing of what is in the frame."""

from __future__ import annotations

import re

from lathe.repository import VariantRef
from lathe.source_name import describe
from lathe_server.frames import Frame
from lathe_server.origin import NOBODY, Origin

_URL = re.compile(r"\w+://\S+")
_SECRETS = (
    (re.compile(r"lathe_[\w-]{20,}"), "lathe_…"),  # a token
    (re.compile(r"(?i)(bearer )\S+"), r"\1…"),
)


def facts_of_call(origin: Origin) -> dict[str, str | int]:
    """Which it is, and who makes it."""
    if origin is NOBODY:
        return {}
    return {"request_id": origin.request_id, **({"identity": origin.caller.name} if origin.caller else {})}


def facts_of_frame(frame: Frame, ref: VariantRef | None) -> dict[str, str | int]:
    """
    Args:
        ref: who answered it, or would have; of a pipeline's frame the log says its model, too.
    """
    of_stream = {} if frame.is_call else {"stream": without_secrets(frame.stream_id)}
    of_ref = of_variant(ref)
    if ref and ref.model != frame.model:
        of_ref["variant"] = f"{ref.model}/{ref.variant}"
    return {"model": frame.model, **of_ref, **of_stream, "frame": frame.index, **facts_of_call(frame.origin)}


def of_variant(ref: VariantRef | None) -> dict[str, str | int]:
    return {"variant": ref.variant, "version": ref.version} if ref else {}


def without_secrets(text: str) -> str:
    """A text without what may have strayed into it, such as the password in a camera's URL.

    >>> without_secrets("rtsp://admin:hunter2@gate-3/live")
    'rtsp://gate-3/live'
    """
    text = _URL.sub(lambda found: describe(found[0]), text)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
