"""Numbers that come as text, from people and from files: each has a form and a bound.

A few characters of text can stand for a number that takes all memory to write down (`1e999999999`), so the form is
checked before anything is computed. Imports nothing but the standard library.
"""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"\s*[+-]?\d{1,20}(?:/\d{1,20}|(?:\.\d{0,20})?(?:[eE][+-]?\d{1,2})?)\s*", re.ASCII)
INTEGER_LIMIT = 2**31 - 1
"""The most that a count can be, where nothing else bounds it."""


def read_fraction(text: str) -> Fraction:
    """The number in `30`, `29.97`, `3e-2` or `30000/1001`: up to 20 digits each, and exponents of two.

    Raises ValueError for any other text, and for a denominator of 0.
    """
    if not _FORM.fullmatch(text):
        raise ValueError("not a number of at most 20 digits")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError("divides by zero") from None
