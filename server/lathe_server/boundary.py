"""Where errors leave the server: what a caller may know of one, and what the log keeps."""

from __future__ import annotations

import logging
import uuid

from lathe.errors import InternalError, LatheError

log = logging.getLogger(__name__)


def internal_error(error: BaseException, **facts: object) -> InternalError:
    """Logs an unexpected exception under a fresh id and returns what the caller may know of it.

    Args:
        facts: more for the log.
    """
    name = uuid.uuid4().hex[:12]
    log.error("internal error %s", name, exc_info=error, extra=facts)
    return InternalError(f"internal error {name}")


def for_caller(error: Exception) -> LatheError:
    """What a caller may know of an exception; the rest is logged."""
    if not isinstance(error, LatheError):
        return internal_error(error)
    if error.detail:
        log.warning(error.message, extra=detail_of(error))
    return error


def detail_of(error: LatheError) -> dict[str, str]:
    """What only the operator may see, for a line of the log that says the rest."""
    return {"detail": error.detail} if error.detail else {}
