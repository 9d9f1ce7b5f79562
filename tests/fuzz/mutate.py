"""Ways to spoil bytes, JSON and TOML, each drawn from a `random.Random`: the same seed gives the same damage."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**64), 10**30, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf")),
    *(
        "",
        "x",
        "0",
        "-1",
        "1e999999999",
        "9" * 30,
        "nan",
        "../../x",
        "/dev/zero",
        "a\x1b[31m\nb",
        "\0",
        "ü",
        "n" * 5000,
    ),
    *([], {}, [None], [[]], {"a": 1}, {"": {}}, [1, "x", None], list(range(300))),
)
"""Values that a reader may not have thought of."""


def spoil_bytes(content: bytes, rng: Random) -> bytes:
    """One to three changes: bits, runs, cuts, insertions, what is there twice, an end that lacks."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(_WAYS)(content, rng)
    return content


def _flip(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_at_start(content: bytes, rng: Random) -> bytes:
    return _flip(content[:64], rng) + content[64:]


def _overwrite(content: bytes, rng: Random) -> bytes:
    start, size = _span(content, rng)
    filler = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return content[:start] + filler + content[start + size :]


def _remove(content: bytes, rng: Random) -> bytes:
    start, size = _span(content, rng)
    return content[:start] + content[start + size :]


def _insert(content: bytes, rng: Random) -> bytes:
    start, size = _span(content, rng)
    return content[:start] + rng.randbytes(size) + content[start:]


def _repeat(content: bytes, rng: Random) -> bytes:
    start, size = _span(content, rng)
    return content[: start + size] + content[start:]


def _cut(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _number(content: bytes, rng: Random) -> bytes:
    """A number of four or eight bytes becomes one at an edge."""
    form = rng.choice(("<I", ">I", "<Q", ">Q"))
    value = rng.choice((0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1))
    size = struct.calcsize(form)
    start = rng.randrange(max(1, len(content) - size))
    return content[:start] + struct.pack(form, value) + content[start + size :]


def _span(content: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content) - start, rng.choice((1, 2, 4, 16, 100, 4096)))


_WAYS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(_flip, _flip, _flip_at_start, _overwrite, _remove, _insert, _repeat, _cut, _number, _number),
)


def spoil_value(value: Any, rng: Random) -> Any:
    """The same value with one part of it exchanged, removed, or put in twice."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        way = rng.random()
        if way < 0.1:
            return {name: part for name, part in value.items() if name != key}
        if way < 0.2:
            return value | {rng.choice(("", "extra", "_x", "\x1b", key + "x")): rng.choice(ODD)}
        return value | {key: spoil_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:place] + value[place + 1 :]
        return [*value[:place], spoil_value(value[place], rng), *value[place + rng.choice((0, 1)) :]]
    if type(value) is int and rng.random() < 0.3:
        return value * rng.choice((-1, 2, 10**6, 10**12))
    return rng.choice(ODD)


def spoil_json(content: bytes, rng: Random) -> bytes:
    """JSON with another value somewhere, or with its text spoilt."""
    try:
        value = json.loads(content)
    except ValueError:  # spoilt before
        return spoil_text(content, rng)
    if rng.random() < 0.25:
        return spoil_text(content, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = spoil_value(value, rng)
    return json.dumps(value).encode()


def spoil_text(content: bytes, rng: Random) -> bytes:
    """Text as JSON, TOML or lines of JSON, spoilt as text or as bytes."""
    odd = (b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"1e999999999", b"\xff\xfe", b"\n" * 1000, b'"', b"\\u0000")
    if rng.random() < 0.5:
        return spoil_bytes(content, rng)
    start, size = _span(content, rng)
    return content[:start] + rng.choice(odd) + content[start + size :]


def spoil_safetensors(content: bytes, rng: Random) -> bytes:
    """Its head spoilt as JSON, with a length that fits; or anything."""
    if rng.random() < 0.3:
        return spoil_bytes(content, rng)
    (size,) = struct.unpack_from("<Q", content)
    head = spoil_json(content[8 : 8 + size], rng)
    return struct.pack("<Q", len(head)) + head + content[8 + size :]
