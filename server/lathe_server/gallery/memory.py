"""What a gallery searches: the templates of one embedding space, whose they are, and when they came."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lathe.errors import Refused
from lathe_server.gallery.record import Record
from lathe_server.gallery.search import Index


class Memory:
    """For one thread at a time.

    Args:
        index: makes one of so many dimensions.

    Attributes:
        enrolled_at: by record, Unix time in seconds.
        templates: of each subject, the oldest first; nobody has none.
    """

    def __init__(self, space: str, dimensions: int, index: Callable[[int], Index]) -> None:
        self.space = space
        self.index = index(dimensions)
        self.enrolled_at: dict[str, int] = {}
        self.templates: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self.enrolled_at)

    def make_room(self) -> None:
        """For one more, so that `add` finds it.

        Raises:
            MemoryError: there is none; all is as it was.
        """
        self.index.make_room()

    def add(self, record: Record) -> None:
        """
        Args:
            record: of this space.
        """
        self.index.add(record.id, record.subject, record.vector)
        self.enrolled_at[record.id] = record.enrolled_at
        self.templates.setdefault(record.subject, []).append(record.id)

    def remove(self, record: str) -> None:
        subject = self.index.subject(record)
        self.index.remove(record)
        del self.enrolled_at[record]
        self.templates[subject].remove(record)
        if not self.templates[subject]:
            del self.templates[subject]

    def clear(self) -> None:
        self.index.clear()
        self.enrolled_at.clear()
        self.templates.clear()


def remembered(records: Iterable[Record], index: Callable[[int], Index]) -> Memory | None:
    """All of them; nothing of none.

    Raises:
        Refused: they lie in several spaces.
        MemoryError: there is no room.
    """
    memory: Memory | None = None
    for record in records:
        if memory is None:
            memory = Memory(record.space, len(record.vector), index)
        if record.space != memory.space or len(record.vector) != memory.index.dimensions:
            raise Refused("the gallery's records lie in several embedding spaces; put back a copy of its file")
        memory.add(record)
    return memory
