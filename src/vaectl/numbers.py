"""Parse numbers in text from users and files, within bounds.

A short text can describe a number that fills all memory (`1e999999999`), so the format is checked first. Imports only
the standard library.
"""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"\s*[+-]?\d{1,20}(?:/\d{1,20}|(?:\.\d{0,20})?(?:[eE][+-]?\d{1,2})?)\s*", re.ASCII)
INTEGER_LIMIT = 2**31 - 1
"""Upper bound of counts without another bound."""


def read_fraction(text: str) -> Fraction:
    """Parse `30`, `29.97`, `3e-2` or `30000/1001`: up to 20 digits for each part, and exponents of up to two digits.

    Raises ValueError for any other text, and for a denominator of 0.
    """
    if not _FORM.fullmatch(text):
        raise ValueError("not a number of at most 20 digits")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError("divides by zero") from None
