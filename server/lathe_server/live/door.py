"""Who may see the live page: a browser on this machine, not sent by another page, with a token where there are some."""

from __future__ import annotations

import base64
import binascii

from lathe.connection import is_loopback
from lathe.errors import LatheError, Unauthenticated
from lathe_server.access.gate import Gate
from lathe_server.http import Reply, Request

_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
_STATUS = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429}


def turned_away(request: Request, gate: Gate, *, asks_for_certificate: bool) -> Reply | None:
    """The reply to one who may not see it; None lets in.

    Args:
        asks_for_certificate: the server asks its callers for one.
    """
    if not request.is_from_here or any(name in request.headers for name in _FORWARDED):
        return _refusal("this page is for browsers on the same machine")
    if not names_this_machine(request.headers.get(b"host", b"").decode("latin-1")):
        return _refusal("this page is called localhost or by a loopback address")  # a name may be made to lead here
    if not _is_own_request(request):
        return _refusal("this page is not for others to build in")
    if asks_for_certificate and not request.has_certificate:
        return _refusal("a certificate is asked for")
    try:
        gate.admit(bearer(request.headers.get(b"authorization", b"").decode("latin-1")), "control", is_here=True)
    except LatheError as error:
        asks = [("www-authenticate", 'Basic realm="Lathe: any name, and a token", charset="UTF-8"')]
        refusal = _refusal(error.message, _STATUS.get(error.status, 403))
        return Reply(refusal.status, refusal.body, headers=asks if isinstance(error, Unauthenticated) else ())
    return None


def names_this_machine(host: str) -> bool:
    """Whether a Host header is a loopback name, with a port or without.

    >>> [names_this_machine(host) for host in ("localhost", "localhost:80", "127.0.0.1:1", "[::1]:1", "[::1]")]
    [True, True, True, True, True]
    >>> [names_this_machine(host) for host in ("", "evil.org:80", "localhost.evil.org", "127.0.0.1.evil.org", "gate")]
    [False, False, False, False, False]
    """
    return is_loopback(host) or is_loopback(f"{host}:")


def bearer(authorization: str) -> str:
    """What browsers send, as other clients do: the password of Basic is the token.

    >>> bearer("Basic " + base64.b64encode(b"me:lathe_abc").decode()), bearer("Bearer lathe_abc"), bearer("Basic %")
    ('Bearer lathe_abc', 'Bearer lathe_abc', '')
    """
    scheme, _, told = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        _, colon, token = base64.b64decode(told, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return ""
    return f"Bearer {token}" if colon else ""


def _is_own_request(request: Request) -> bool:
    """Not what another site's page asks for; a link on it may lead here."""
    site = request.headers.get(b"sec-fetch-site", b"none")
    return site in (b"same-origin", b"none") or request.headers.get(b"sec-fetch-dest") == b"document"


def _refusal(text: str, status: int = 403) -> Reply:
    return Reply(status, f"{text}\n".encode())
