"""Protocols by name: presets of the options that decide which frames are compared, at which size, by which metrics.

A protocol is a TOML file of options, in this folder or of the user. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any

from vaectl.errors import UsageError
from vaectl.options import parse
from vaectl.options.common import expand_user
from vaectl.options.file import read_config
from vaectl.options.protocol import PROTOCOLS, ProtocolOptions

FOLDER = Path(__file__).parent


def read_protocol(name: str) -> dict[str, Any]:
    """Return the options that a protocol sets, from its name or its file.

    Raises UsageError for an unknown name; and for an unreadable file, an unknown option or a wrong value in it, in one
    line that names the file and the option.
    """
    if name in PROTOCOLS:
        file = FOLDER / f"{name}.toml"
    elif name.endswith((".toml", ".json")) or "/" in name:
        file = expand_user(name)
    else:
        nearest = get_close_matches(name.lower(), PROTOCOLS, n=1)
        remedy = f"choose from {', '.join(PROTOCOLS)}, or give a .toml file"
        raise UsageError(f"no protocol is called {name!r}", f"did you mean {nearest[0]}?" if nearest else remedy)
    values = read_config(file, ProtocolOptions)
    try:
        parse(ProtocolOptions, values, str)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    return values


def options_of_protocol(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the protocol in the `given` options sets; none without a protocol."""
    protocol = given.get("protocol")
    return read_protocol(protocol) if isinstance(protocol, str) and protocol else {}  # `parse` rejects other types


def frames_in_words(clips: Mapping[str, Any], of: str = "") -> str:
    """Describe which frames are compared: `clips` are the plain values of a protocol, also of an earlier version.

    `of` follows the number, for example " frames".
    """
    of = " frame" if of == " frames" and clips["num_frames"] == 1 else of
    words = f"{'every window of ' if clips.get('all_windows') else ''}{clips['num_frames']}{of}"
    if rate := clips.get("frame_rate"):
        words += f", at about {float(Fraction(rate)):.5g} frames/s (slower clips at their own rate)"
    return words + (f" (one in {clips['sample_rate']})" if clips["sample_rate"] > 1 else "")


def name_in_words(protocol: Mapping[str, Any]) -> str:
    """Return the name of the protocol that a provenance states, what options changed it, and its hash; "" if none."""
    if not protocol.get("name"):
        return ""
    changed = ", ".join(f"`{option}`" for option in protocol["changed"])
    return f"{protocol['name']}{f', changed by {changed}' if changed else ''} ({protocol['hash'][:8]})"
