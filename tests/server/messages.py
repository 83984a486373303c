"""Messages of any type, made from their descriptors: well-formed, odd, near to good ones, and damaged on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

T = TypeVar("T")

MAX_BYTES = 65_536
MAX_DEPTH = 4
MOST_REPEATED = 3
MOST_CHANGES = 3

ODD_TEXTS = (
    "\0",
    "a\0b",
    "line\nline",
    "\r\n",
    "\x1b[31m",
    "\u202etxet",
    "../..",
    "a/b",
    "@",
    "-1",
    "1" * 5000,
    "0" * 20 + "1",
    "00000000001" + "1" * 5000,
    "é" * 300,
    "x" * 20_000,
)
_WHOLE_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
UNKNOWN_FIELDS = (
    b"\xc0\x3e\x2a",  # 1000, a number
    b"\xba\x3e\x05hello",  # 999, bytes
    b"\xc1\x3e12345678",
    b"\xc5\x3e1234",
    b"\xc3\x3e" * 200 + b"\xc4\x3e" * 200,  # groups within groups
    b"\xc3\x3e",  # a group that does not end
    b"\xba\x3e\xff\xff\xff\xff\x0f",  # a length that goes beyond the message
    b"\x00\x01",  # a field without a number
    b"\x80" * 11,  # a number that does not end
)


@dataclass(frozen=True, eq=False)
class Words:
    """What means something to a server, so that messages get beyond its first checks.

    Attributes:
        texts: by the name of the field that they are good for.
        contents: of fields of bytes.
    """

    texts: Mapping[str, Sequence[str]]
    contents: Sequence[bytes]


class Messages:
    """Strategies of messages that use some words."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._all_texts = sorted({text for texts in words.texts.values() for text in texts})
        self._scalars: dict[str, SearchStrategy[Any]] = {}

    def of(self, kind: Descriptor) -> SearchStrategy[Message]:
        """Any instance of a type, its messages within messages to a bounded depth."""

        @st.composite
        def build(draw: DrawFn) -> Message:
            return self._built(draw, kind, MAX_DEPTH)

        return build()

    def near(self, good: Message) -> SearchStrategy[Message]:
        """A good message, and what a few changes anywhere in it make of it."""

        @st.composite
        def build(draw: DrawFn) -> Message:
            message = type(good)()
            message.CopyFrom(good)
            for _ in range(draw(st.integers(1, MOST_CHANGES))):
                within = [one for one in parts(message) if one.DESCRIPTOR.fields]
                if within:
                    self._change(draw, draw(st.sampled_from(within)))
            return message

        return build()

    def _built(self, draw: DrawFn, kind: Descriptor, depth: int) -> Message:
        message = GetMessageClass(kind)()
        if kind.fields:
            places = st.lists(st.integers(0, len(kind.fields) - 1), unique=True, max_size=len(kind.fields))
            for place in draw(places):
                self._put(draw, message, kind.fields[place], depth)
        return message

    def _change(self, draw: DrawFn, message: Message) -> None:
        fields: list[FieldDescriptor] = list(message.DESCRIPTOR.fields)
        field = draw(st.sampled_from(fields))
        if draw(st.booleans()):
            message.ClearField(field.name)
        self._put(draw, message, field, 1)

    def _put(self, draw: DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
        """Fills a field in; repeated ones get some more."""
        if field.message_type is None:
            self._put_scalar(draw, message, field)
        elif not depth:
            return
        elif field.message_type.GetOptions().map_entry:
            self._put_entries(draw, getattr(message, field.name), field.message_type, depth)
        elif field.is_repeated:
            for _ in range(draw(st.integers(0, MOST_REPEATED))):
                getattr(message, field.name).append(self._built(draw, field.message_type, depth - 1))
        else:
            getattr(message, field.name).CopyFrom(self._built(draw, field.message_type, depth - 1))

    def _put_scalar(self, draw: DrawFn, message: Message, field: FieldDescriptor) -> None:
        one = self._scalar(field)
        if field.is_repeated:
            value = draw(st.lists(one, max_size=MOST_REPEATED))
            getattr(message, field.name).extend(value * draw(st.sampled_from((1, 1, 1, 16, 300))))
        else:
            setattr(message, field.name, draw(one))

    def _put_entries(self, draw: DrawFn, entries: Any, kind: Descriptor, depth: int) -> None:
        key_field, value_field = kind.fields_by_name["key"], kind.fields_by_name["value"]
        for key in draw(st.lists(self._scalar(key_field), max_size=MOST_REPEATED)):
            if value_field.message_type:
                entries[key].CopyFrom(self._built(draw, value_field.message_type, depth - 1))
            else:
                entries[key] = draw(self._scalar(value_field))

    def _scalar(self, field: FieldDescriptor) -> SearchStrategy[Any]:
        if field.full_name not in self._scalars:
            self._scalars[field.full_name] = self._new_scalar(field)
        return self._scalars[field.full_name]

    def _new_scalar(self, field: FieldDescriptor) -> SearchStrategy[Any]:
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        if field.enum_type:
            known = st.sampled_from([value.number for value in field.enum_type.values])
            return mixed({known: 2, st.integers(-(2**31), 2**31 - 1): 1})
        if kind == FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(width=32)
        if kind == FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats(0, 1) | st.floats()
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return self._contents() if field.type == FieldDescriptor.TYPE_BYTES else self._texts(field.name)
        low, high = _WHOLE_NUMBERS[kind]
        return st.integers(0, 3) | st.integers(low, high) | st.sampled_from((low, high))

    def _texts(self, name: str) -> SearchStrategy[str]:
        fitting, others = (
            st.sampled_from(self._words.texts.get(name, self._all_texts)),
            st.sampled_from(self._all_texts),
        )
        return mixed({fitting: 3, others: 1, st.sampled_from(ODD_TEXTS): 1, st.text(max_size=40): 1})

    def _contents(self) -> SearchStrategy[bytes]:
        good = st.sampled_from(self._words.contents)
        return mixed({good: 2, damaged(good): 1, st.binary(max_size=200): 1})


def mixed(shares: Mapping[SearchStrategy[T], int]) -> SearchStrategy[T]:
    """One of some strategies, drawn as often as its share says; `one_of` would take each once."""
    bag = [strategy for strategy, share in shares.items() for _ in range(share)]
    return st.integers(0, len(bag) - 1).flatmap(bag.__getitem__)


def parts(message: Message) -> Iterator[Message]:
    """A message and all messages within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        is_map = field.message_type.GetOptions().map_entry
        if is_map and field.message_type.fields_by_name["value"].message_type is None:
            continue
        within = value.values() if is_map else value if field.is_repeated else [value]
        for one in within:
            yield from parts(one)


def wire(messages: SearchStrategy[Message]) -> SearchStrategy[bytes]:
    """The bytes of messages; those of one in five are damaged."""
    whole = messages.map(lambda one: one.SerializeToString(deterministic=True)[:MAX_BYTES])
    return mixed({whole: 4, damaged(whole): 1})


def damaged(whole: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Cut off, with flipped bits, joined with a part of another, with unknown fields, twice, or of noise alone."""
    ways: Sequence[Callable[[DrawFn, bytes], bytes]] = (
        lambda draw, content: content[: draw(st.integers(0, len(content)))],
        _flipped,
        lambda draw, content: content[: draw(st.integers(0, len(content)))] + _tail(draw, draw(whole)),
        lambda draw, content: content + b"".join(draw(st.lists(st.sampled_from(UNKNOWN_FIELDS), max_size=3))),
        lambda draw, content: content * 2,
        lambda draw, content: draw(st.binary(max_size=300)),
    )

    @st.composite
    def build(draw: DrawFn) -> bytes:
        way = ways[draw(st.integers(0, len(ways) - 1))]
        return way(draw, draw(whole))[:MAX_BYTES]

    return build()


def _flipped(draw: DrawFn, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 8)) if content else 0):
        changed[draw(st.integers(0, len(changed) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


def _tail(draw: DrawFn, content: bytes) -> bytes:
    return content[draw(st.integers(0, len(content))) :]
