"""Types of one value whose JSON is a text in a fixed format, and types that have a fixed set of values."""

import enum
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from sluice_client.tasks.codecs import ANY_TEXT, BOOLEAN, INTEGER, NULL, NUMBER, TEXT, Codec
from sluice_client.tasks.faults import Faults, fault

_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_INSTANT = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?"
    r"([Zz]|([-+])(\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{6}))?)?)?",
    re.ASCII,
)
_LENGTH = re.compile(r"([-+]?)P(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,6}))?S)?)?", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class Formatted(Codec):
    """A type whose JSON is a text in a format."""

    def __init__(
        self,
        kind: str,
        noun: str,
        is_one: Callable[[Any], bool],
        write: Callable[[Any], str],
        read: Callable[[str], Any],
    ) -> None:
        self.kinds = frozenset({f"{ANY_TEXT}:{kind}"})
        self.noun = noun
        self._is_one, self._write, self._read = is_one, write, read

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if not self._is_one(value):
            self.miss(value, at, faults)
            return None
        return self._write(value)

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, str):
            self.miss(value, at, faults)
            return None
        try:
            return self._read(value)
        except (ValueError, ArithmeticError):
            fault(faults, at, f"expected {self.noun}")
            return None


def _read_date(text: str) -> date:
    return date(*map(int, _match(_DATE, text).groups()))


def _read_instant(text: str) -> datetime:
    found = _match(_INSTANT, text)
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    fraction, zone, sign, *offset = found.groups()[6:]
    micros = int((fraction or "0").ljust(6, "0")[:6])
    if zone is None:
        info = None
    elif sign is None:
        info = timezone.utc
    else:
        hours, minutes, seconds, parts = (int(part or 0) for part in offset)
        away = timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=parts)
        info = timezone(-away if sign == "-" else away)
    return datetime(year, month, day, hour, minute, second, micros, info)


def _write_length(length: timedelta) -> str:
    """Return an ISO 8601 duration in days and seconds."""
    sign, away = ("-", -length) if length < timedelta(0) else ("", length)
    seconds = f"{away.seconds}.{away.microseconds:06}" if away.microseconds else str(away.seconds)
    return f"{sign}P{away.days}DT{seconds}S"


def _read_length(text: str) -> timedelta:
    sign, days, hours, minutes, seconds, fraction = _match(_LENGTH, text).groups()
    if days is hours is minutes is seconds is None:
        raise ValueError("no part")
    micros = int((fraction or "0").ljust(6, "0"))
    length = timedelta(int(days or 0), int(seconds or 0), micros, 0, int(minutes or 0), int(hours or 0))
    return -length if sign == "-" else length


def _read_decimal(text: str) -> Decimal:
    return Decimal(_match(_DECIMAL, text).group())


def _read_uuid(text: str) -> UUID:
    return UUID(_match(_UUID, text).group())


def _match(pattern: "re.Pattern[str]", text: str) -> "re.Match[str]":
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return found


DATE = Formatted(
    "date",
    'a date such as "2026-11-21"',
    lambda value: isinstance(value, date) and not isinstance(value, datetime),
    date.isoformat,
    _read_date,
)
DATETIME = Formatted(
    "datetime",
    'an instant such as "2026-11-21T22:44:00Z"',
    lambda value: isinstance(value, datetime),
    datetime.isoformat,
    _read_instant,
)
TIMEDELTA = Formatted(
    "duration",
    'a duration such as "P1DT3600S"',
    lambda value: isinstance(value, timedelta),
    _write_length,
    _read_length,
)
DECIMAL = Formatted(
    "decimal",
    'a finite decimal number as a string, such as "9.99"',
    lambda value: isinstance(value, Decimal) and value.is_finite(),
    str,
    _read_decimal,
)
ID = Formatted("uuid", "a UUID", lambda value: isinstance(value, UUID), str, _read_uuid)
BY_TYPE: dict[Any, Codec] = {
    None: NULL,
    type(None): NULL,
    bool: BOOLEAN,
    int: INTEGER,
    float: NUMBER,
    str: TEXT,
    date: DATE,
    datetime: DATETIME,
    timedelta: TIMEDELTA,
    Decimal: DECIMAL,
    UUID: ID,
}
_VALUES: dict[type, Codec] = {type(None): NULL, bool: BOOLEAN, int: INTEGER, float: NUMBER, str: TEXT}


class OneOf(Codec):
    """A fixed set of values, each with the JSON it is written as: Literal and Enum.

    True and 1 are equal in Python and not in JSON, so values are looked up with their type.
    """

    def __init__(self, pairs: Sequence[tuple[Any, Any]], noun: str) -> None:
        """Raises ValueError if the JSON of one is not null, a boolean, a number or a text."""
        self.noun = noun
        self.json = [written for _, written in pairs]
        for written in self.json:
            if _codec_of_value(written) is None:
                raise ValueError(f"the value {written!r} cannot become JSON")
        self.kinds = frozenset().union(*(_VALUES[_basic(written)].kinds for written in self.json))
        self.plain = all(value is written or type(value) is type(written) for value, written in pairs)
        self._written = {(type(value), value): written for value, written in pairs}
        self._read = {(_basic(written), written): value for value, written in reversed(pairs)}

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        return self._find(self._written, (type(value), value), value, at, faults)

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        return self._find(self._read, (type(value), value), value, at, faults)

    def _find(self, among: dict[Any, Any], key: Any, value: Any, at: str, faults: Faults) -> Any:
        try:
            return among[key]
        except (KeyError, TypeError):  # TypeError: a list or an object cannot be looked up
            self.miss(value, at, faults)
            return None


class Flags(Codec):
    """An enum.Flag, whose values combine: written as their integer."""

    kinds = frozenset({"integer"})

    def __init__(self, cls: type[enum.Flag]) -> None:
        self._class = cls
        self.noun = f"flags of {cls.__name__}"

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, self._class):
            self.miss(value, at, faults)
            return None
        return int(value.value)

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        try:
            if type(value) is int:
                flags = self._class(value)
                # Python 3.11.2, for one, drops unknown bits without an error
                if flags.value == value:
                    return flags
        except ValueError:
            pass
        fault(faults, at, f"expected {self.noun} as an integer")
        return None


def literal(values: Sequence[Any]) -> Codec:
    pairs = [(value, value.value if isinstance(value, enum.Enum) else value) for value in values]
    return OneOf(pairs, "one of " + ", ".join(repr(written) for _, written in pairs))


def enumeration(cls: type[enum.Enum]) -> Codec:
    if issubclass(cls, enum.Flag):
        return Flags(cls)
    return OneOf(
        [(member, member.value) for member in cls], f"one of {', '.join(repr(member.value) for member in cls)}"
    )


def _basic(value: Any) -> type:
    """The JSON type of a value: an IntEnum's value may be of a class of its own."""
    return next((cls for cls in (bool, int, float, str) if isinstance(value, cls)), type(value))


def _codec_of_value(value: Any) -> Codec | None:
    codec = _VALUES.get(_basic(value))
    if codec is None:
        return None
    faults: Faults = []
    codec.encode(value, "", faults)
    return None if faults else codec
