"""Whether the other side of a connection is there: a server that is frozen, or cut off without a word, tells nobody."""

from __future__ import annotations

from typing import Literal

QUIET_BEATS, ANSWER_BEATS = 2, 3
"""A server that owes answers and says nothing for so long is asked, and after so long without a word it is gone."""
AGAIN_BEATS = 10
"""From one question that was answered to the next, where nothing else is said. Lathe's servers take one every five
seconds; others hang up after some of them."""


class Pulse:
    """Counts in beats, which are about a second, and not by a clock: who was held up has heard nothing meanwhile.

    Attributes:
        was_heard: anything has come since the last beat.
        was_answered: what has come is the answer to a question.

    >>> pulse = Pulse()
    >>> [pulse.beat(is_owed=True) for _ in range(6)]
    ['', 'ask', '', '', 'gone', 'gone']
    """

    def __init__(self) -> None:
        self.was_heard = self.was_answered = False
        self._quiet = 0
        self._ask_at = QUIET_BEATS

    def beat(self, *, is_owed: bool) -> Literal["", "ask", "gone"]:
        """What to do now.

        Args:
            is_owed: answers are waited for; otherwise there is nothing that it should say.
        """
        if self.was_heard or not is_owed:
            self._ask_at = AGAIN_BEATS if self.was_answered else QUIET_BEATS
            self._quiet = 0
            self.was_heard = self.was_answered = False
            return ""
        self._quiet += 1
        if self._quiet >= self._ask_at + ANSWER_BEATS:
            return "gone"
        return "ask" if self._quiet == self._ask_at else ""
