"""Ways in which bytes are damaged, each drawn from a random number generator."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

__all__ = ["damaged"]

#: Numbers at which code goes wrong, as a header stores them.
_NUMBERS = [
    *(struct.pack("<b", value) for value in (0, 1, -1, 127, -128)),
    *(struct.pack("<h", value) for value in (0, 1, -1, 2, 7, 8, 16, 64, 512, 32767, -32768)),
    *(struct.pack("<i", value) for value in (0, 1, -1, 348, 540, 2**31 - 1, -(2**31))),
    *(struct.pack("<q", value) for value in (0, 1, -1, 2**62, 2**63 - 1, -(2**63))),
    *(struct.pack("<f", value) for value in (0.0, -0.0, 1.0, 1e-45, 1e38, 352.0, 1e10, -1.0)),
    *(struct.pack("<f", value) for value in (float("nan"), float("inf"), float("-inf"))),
    *(struct.pack("<d", value) for value in (1e308, float("nan"), float("inf"), 5e-324)),
]

Damage = Callable[[random.Random, bytearray, int], None]


def damaged(chance: random.Random, whole: bytes, focus: int | None = None) -> bytes:
    """Return the bytes with one to three damages.

    Args:
        chance: what draws them.
        whole: the bytes.
        focus: of ten damages, nine lie in so many bytes at the start; None for anywhere.
    """
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        end = len(data) if focus is None or chance.random() < 0.1 else min(focus, len(data))
        chance.choice(_DAMAGES)(chance, data, chance.randrange(end) if end else 0)
    return bytes(data)


def _flip(chance: random.Random, data: bytearray, at: int) -> None:
    if data:
        data[at] ^= 1 << chance.randrange(8)


def _overwrite(chance: random.Random, data: bytearray, at: int) -> None:
    number = chance.choice(_NUMBERS)
    at -= at % min(len(number), 4)  # fields of headers are aligned
    if chance.random() < 0.3:
        number = number[::-1]
    data[at : at + len(number)] = number[: max(0, len(data) - at)]


def _overwrite_span(chance: random.Random, data: bytearray, at: int) -> None:
    size = min(_length(chance), len(data) - at)
    data[at : at + size] = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size)))


def _cut(chance: random.Random, data: bytearray, at: int) -> None:
    del data[at:]


def _leave_out(chance: random.Random, data: bytearray, at: int) -> None:
    del data[at : at + _length(chance)]


def _put_in(chance: random.Random, data: bytearray, at: int) -> None:
    size = _length(chance)
    data[at:at] = chance.choice((bytes(size), b"\r\n", chance.randbytes(size)))


def _repeat(chance: random.Random, data: bytearray, at: int) -> None:
    data[at:at] = data[at : at + _length(chance)]


def _move(chance: random.Random, data: bytearray, at: int) -> None:
    size = _length(chance)
    piece = bytes(data[at : at + size])
    del data[at : at + size]
    to = chance.randrange(len(data) + 1)
    data[to:to] = piece


def _put_behind(chance: random.Random, data: bytearray, at: int) -> None:
    data += chance.choice((b"\r\n", b"\n", bytes(_length(chance)), bytes(data[at:])))


def _length(chance: random.Random) -> int:
    return chance.choice((1, 2, 4, 8, 16, 100))


#: The most frequent ones several times.
_DAMAGES: tuple[Damage, ...] = (
    *(_flip, _flip, _flip, _overwrite, _overwrite, _overwrite, _overwrite),
    *(_overwrite_span, _cut, _leave_out, _put_in, _repeat, _move, _put_behind),
)
