"""Bounds that more than one room needs."""

MAX_PIXELS = 7680 * 4320
"""Largest picture that is decoded: 8K video. A header that claims more is refused unread."""
