"""What can go wrong, and what the caller can do about it.

    LatheError                 UNKNOWN              never raised itself
    ├── InvalidInput           INVALID_ARGUMENT     mend the request
    │   └── BadPicture         INVALID_ARGUMENT     send another picture
    ├── NotFound               NOT_FOUND            name something that exists
    ├── AlreadyExists          ALREADY_EXISTS       choose another name, address or number
    ├── Unauthenticated        UNAUTHENTICATED      say who you are, with a token that is good
    ├── PermissionDenied       PERMISSION_DENIED    ask as somebody who may, or from where it is allowed
    ├── Conflict               ABORTED              read the newest state and try again
    ├── Refused                FAILED_PRECONDITION  bring about the state that the message names
    │   └── BadVariant         FAILED_PRECONDITION  publish a variant that passes the named check
    ├── Overloaded             RESOURCE_EXHAUSTED   send less, or later
    ├── DiskFull               RESOURCE_EXHAUSTED   free some space and start again
    ├── TooLate                DEADLINE_EXCEEDED    allow more time
    ├── Unavailable            UNAVAILABLE          try again, perhaps elsewhere
    └── InternalError          INTERNAL             tell who runs it the id that it holds

A message may go over the wire and into a terminal: it never holds a path, a traceback, the
bytes of a frame, or the text of somebody else's exception. What only the operator may see goes
into `detail`, which is logged and never sent.
"""

from __future__ import annotations

from typing import ClassVar


class LatheError(Exception):
    """An error whose message is safe to show to the caller.

    Args:
        message: one line that says what is wrong and what would be right.
        detail: more for the operator's log; may name paths; never sent to a client.
    """

    status: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = " ".join(detail.split())  # foreign text with line breaks would forge lines of the log


class InvalidInput(LatheError):
    status = "INVALID_ARGUMENT"


class BadPicture(InvalidInput):
    """The picture cannot be decoded, or its header breaks a limit."""


class NotFound(LatheError):
    status = "NOT_FOUND"


class AlreadyExists(LatheError):
    status = "ALREADY_EXISTS"


class Unauthenticated(LatheError):
    status = "UNAUTHENTICATED"


class PermissionDenied(LatheError):
    status = "PERMISSION_DENIED"


class Conflict(LatheError):
    status = "ABORTED"


class Refused(LatheError):
    status = "FAILED_PRECONDITION"


class BadVariant(Refused):
    """A variant failed a check on its way into memory; what serves goes on serving."""


class Overloaded(LatheError):
    status = "RESOURCE_EXHAUSTED"


class DiskFull(LatheError):
    status = "RESOURCE_EXHAUSTED"


class TooLate(LatheError):
    status = "DEADLINE_EXCEEDED"


class Unavailable(LatheError):
    status = "UNAVAILABLE"


class InternalError(LatheError):
    """Something of ours broke: the caller gets an id, the log the rest."""

    status = "INTERNAL"
