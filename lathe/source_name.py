"""What a camera or a video may be called where others can read it."""

from __future__ import annotations

import re


def describe(source: str) -> str:
    """The source without user name, password and query, for messages.

    Where it cannot be told what is a password, more goes than the password.
    """
    scheme, mark, rest = source.partition("://")
    if not mark:
        return source.rpartition("@")[2] if ":" in source.partition("@")[0] else source
    bare = re.split("[?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in bare:  # a query with an @, or a password with an unescaped ? or #
        bare = "…"
    return f"{scheme}{mark}{bare.rpartition('@')[2]}"
