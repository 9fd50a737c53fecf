"""What every type is turned to JSON and back with, and the JSON that needs no turning.

A codec is strict both ways: what it does not write it does not read, and reading what it wrote gives an equal value.
"""

import math
from typing import Any

from sluice_client.tasks.faults import Faults, fault, shown, within

ANY_TEXT = "text"
"""The kind of every text. Kinds of texts that follow a format begin with it: `text:date`."""
EVERYTHING = frozenset({"null", "boolean", "integer", "number", ANY_TEXT, "list", "object"})
MAX_DIGITS = 4300
"""Longer integers are not read by Python's own parser (sys.set_int_max_str_digits)."""


class Codec:
    """Turns values of one type to JSON (`encode`) and back (`decode`).

    Both append to `faults` what does not fit, with `at` as the pointer to it; what they return then is of no use.
    """

    noun = "a value"
    """What is expected, for messages."""
    kinds = EVERYTHING
    """What its JSON can be, for telling the members of a union apart."""
    plain = False
    """Its JSON is equal to the value."""

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        raise NotImplementedError

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        raise NotImplementedError

    def miss(self, value: Any, at: str, faults: Faults) -> None:
        fault(faults, at, f"expected {self.noun}, got {shown(value)}")


class Null(Codec):
    noun = "null"
    kinds = frozenset({"null"})
    plain = True

    def encode(self, value: Any, at: str, faults: Faults) -> None:
        if value is not None:
            self.miss(value, at, faults)

    decode = encode


class Boolean(Codec):
    noun = "a boolean"
    kinds = frozenset({"boolean"})
    plain = True

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, bool):
            self.miss(value, at, faults)
        return value

    decode = encode


class Integer(Codec):
    """Integers of any size, and never a boolean."""

    noun = "an integer"
    kinds = frozenset({"integer"})
    plain = True

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            self.miss(value, at, faults)
        elif value.bit_length() > 3 * MAX_DIGITS and abs(value) >= 10**MAX_DIGITS:
            fault(faults, at, f"has more than {MAX_DIGITS} digits")
        else:
            return int(value)
        return None

    decode = encode


class Number(Codec):
    noun = "a number"
    kinds = frozenset({"integer", "number"})
    plain = True

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.miss(value, at, faults)
            return None
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            fault(faults, at, "expected a finite number: JSON has no NaN and no infinity")
        elif number != value:
            fault(faults, at, "is an integer that a float cannot hold exactly")
        return number

    decode = encode


class Text(Codec):
    noun = "a string"
    kinds = frozenset({ANY_TEXT})
    plain = True

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, str):
            self.miss(value, at, faults)
        else:
            check_text(value, at, faults)
        return value

    decode = encode


class Json(Codec):
    """Any JSON, for `Any` and for what has no annotation. Tuples and sets are refused: they would come back as lists."""

    noun = "JSON"
    plain = True

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if isinstance(value, list):
            for index, item in enumerate(value):
                self.encode(item, within(at, index), faults)
        elif isinstance(value, dict):
            for name, member in value.items():
                if isinstance(name, str):
                    check_text(name, within(at, name), faults)
                    self.encode(member, within(at, name), faults)
                else:
                    fault(faults, at, f"has a key that is {shown(name)}; in JSON, keys are strings")
        elif isinstance(value, str):
            check_text(value, at, faults)
        elif isinstance(value, float):
            NUMBER.encode(value, at, faults)
        elif isinstance(value, int) and not isinstance(value, bool):
            INTEGER.encode(value, at, faults)
        elif value is not None and not isinstance(value, bool):
            fault(faults, at, f"{shown(value)} cannot become JSON without an annotation that says how")
        return value

    decode = encode


def check_text(value: str, at: str, faults: Faults) -> None:
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        fault(faults, at, "has a lone surrogate, which is no Unicode text")


NULL, BOOLEAN, INTEGER, NUMBER, TEXT, JSON = Null(), Boolean(), Integer(), Number(), Text(), Json()
