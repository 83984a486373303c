"""The call by which something came: its headers, who makes it, and the name under which log and caller speak of it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TypeAlias

from lathe_server.access.tokens import Identity

Headers: TypeAlias = Sequence[tuple[str, str | bytes]]
"""A call's metadata, names in lower case."""

REQUEST_ID = "x-request-id"
_SANE_ID = re.compile(r"[!-~]{1,128}")


class Origin:
    """One call.

    Attributes:
        headers: there may be tokens among them.
        caller: whose token it shows; None where no tokens are asked for.
        about: of a stream, what the log says of it at its end.
    """

    __slots__ = ("_request_id", "about", "caller", "headers")

    def __init__(self, headers: Headers = (), caller: Identity | None = None) -> None:
        self.headers = headers
        self.caller = caller
        self.about: dict[str, str | int] = {}
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """As its caller names it by `x-request-id`, or a name of ours, which is made when it is first asked for."""
        if not self._request_id:
            told = self.header(REQUEST_ID)
            self._request_id = told if _SANE_ID.fullmatch(told) else uuid.uuid4().hex
        return self._request_id

    def header(self, name: str) -> str:
        """The first of its values that is text; empty where there is none.

        >>> Origin([("a", "1"), ("a", "2")]).header("a")
        '1'
        """
        return next((value for key, value in self.headers if key == name and isinstance(value, str)), "")


NOBODY = Origin()
"""What no call has brought about."""
current: ContextVar[Origin] = ContextVar("origin", default=NOBODY)
"""The call that is being answered."""
