"""Tables of TOML or JSON to dataclasses and back: strict, with the nearest key named when one is wrong."""

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, TypeVar

from dreamsr.errors import ConfigError

T = TypeVar("T")


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build dataclass `cls` from nested dicts; an unknown key or a wrong type is a ConfigError."""
    return _build(cls, data, "", cls)


def _build(cls: type[T], data: Mapping[str, Any], where: str, root: type) -> T:
    """`cls` from the table at `where` of a document that describes `root`."""
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in data.items():
        if key not in hints:
            raise ConfigError(f"unknown key {where + key!r}", _suggestion(where + key, hints, root))
        values[key] = _convert(hints[key], value, where + key, root)
    return cls(**values)


def to_dict(config: Any) -> dict[str, Any]:
    """The inverse of `from_dict`, ready for JSON."""
    return dataclasses.asdict(config)


def known_keys(cls: type, prefix: str = "") -> list[str]:
    """Dotted names of every key of `cls`."""
    keys = []
    for key, hint in typing.get_type_hints(cls).items():
        nested = [name for table in _tables(hint) for name in known_keys(table, f"{prefix}{key}.")]
        keys += nested or [prefix + key]
    return list(dict.fromkeys(keys))


def apply_overrides(cls: type, data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Lay `dotted.key=value` over nested dicts of `cls`; values as in TOML, bare words are text."""
    result = dict(data)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} is not an override", "write key=value, for example steps=5000")
        if key not in (known := known_keys(cls)):
            raise ConfigError(f"unknown key {key!r}", _nearest(key, known))
        path, given = key.split("."), _toml_value(value)
        text_wanted = str in _hints(cls, path) and not isinstance(given, str)
        result = _with(result, path, value if text_wanted else given)
    return result


def parse_field(cls: type, key: str, text: str) -> Any:
    """The value of field `key` of dataclass `cls` from text as in TOML, bare words being text."""
    known = typing.get_type_hints(cls)
    if key not in known:
        raise ConfigError(f"unknown key {key!r}", _nearest(key, known))
    hint = known[key]
    try:
        return _convert(hint, _toml_value(text), key, cls)
    except ConfigError:
        return _convert(hint, text, key, cls)  # 1 may be a word too


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts `over` laid over `base`; a table and something else in one place are a ConfigError."""
    tables = {k for k in base.keys() & over.keys() if isinstance(base[k], Mapping) or isinstance(over[k], Mapping)}
    for key in tables:
        for value in (base[key], over[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key} is {value!r}; expected a table")
    return {**base, **over, **{k: merge(base[k], over[k]) for k in tables}}


def load_toml(document: bytes, where: str) -> dict[str, Any]:
    """Parse TOML; `where` names the file in the error."""
    try:
        return tomllib.loads(document.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not TOML: it is no text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not valid TOML: {error}") from error


def _with(data: Mapping[str, Any], path: list[str], value: Any, where: str = "") -> dict[str, Any]:
    head, *rest = path
    if not rest:
        return {**data, head: value}
    table = data.get(head, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}{head} is {table!r}; expected a table")
    return {**data, head: _with(table, rest, value, f"{where}{head}.")}


def _hints(cls: type, path: list[str]) -> list[Any]:
    """The types that the key at a path may have: one for every table that has it."""
    hint = typing.get_type_hints(cls).get(path[0])
    if len(path) == 1:
        return [hint]
    return [found for table in _tables(hint) for found in _hints(table, path[1:])]


def _toml_value(text: str) -> Any:
    number = re.sub(r"^([+-]?)\.(?=\d)", r"\g<1>0.", text)  # TOML wants the 0 of 0.5
    try:
        return tomllib.loads(f"value = {number}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _suggestion(key: str, own: Collection[str], root: type) -> str:
    """What to write instead of an unknown dotted key; `own` are the keys of its table."""
    known = known_keys(root)
    if "kind" in own and any(name.endswith(key) for name in known):
        return f"this kind has {', '.join(own)}"
    return _nearest(key, known)


def _nearest(key: str, known: Iterable[str]) -> str:
    """The key that may have been meant, whatever tables it was looked for in; all of them where none comes near."""
    names = sorted(known, key=lambda name: name.count("."))
    leaves = {name.split(".")[-1]: name for name in reversed(names)}
    whole = difflib.get_close_matches(key, names, 1, 0.8)
    near = whole or [leaves[leaf] for leaf in difflib.get_close_matches(key.split(".")[-1], leaves, 1)]
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"


def _convert(hint: Any, value: Any, where: str, root: type) -> Any:
    if (tables := _tables(hint)) and isinstance(value, Mapping):
        return _build(_by_kind(tables, value, where), value, where + ".", root)
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and value in options:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(options[0], item, where, root) for item in value)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(options, value, where, root)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint is types.NoneType and value is None:
        return None
    # 1e4 is a natural way to write a number of steps
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ConfigError(f"{where} is {value!r}; expected {_describe(hint)}")


def _tables(hint: Any) -> list[Any]:
    """The dataclasses that a hint allows."""
    options = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)
    return [option for option in options if dataclasses.is_dataclass(option)]


def _by_kind(tables: list[Any], value: Mapping[str, Any], where: str) -> Any:
    """The dataclass whose `kind` a table names; the first one where it names none."""
    if len(tables) == 1 or "kind" not in value:
        return tables[0]
    for table in tables:
        if table.kind == value["kind"]:
            return table
    raise ConfigError(f"{where}.kind is {value['kind']!r}; expected {' or '.join(table.kind for table in tables)}")


def _convert_union(options: tuple[Any, ...], value: Any, where: str, root: type) -> Any:
    for option in options:
        try:
            return _convert(option, value, where, root)
        except ConfigError:
            continue
    expected = dict.fromkeys(_describe(option) for option in options if option is not types.NoneType)
    raise ConfigError(f"{where} is {value!r}; expected {' or '.join(expected)}")


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"a list of {_describe(typing.get_args(hint)[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, "a table")
