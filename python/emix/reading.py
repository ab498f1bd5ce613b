"""Files that somebody else may have written, read within bounds: one sentence for whatever is wrong with them.

A run's folder, a map or a set of unit statistics may come from another person, another emix, or a disk that lost power.
Whatever lies there, it is read in bounded time and memory, nothing in it is executed, and a mistake is a ``UsageError``
that names the file. Only regular files are read: a pipe or a device, such as ``/dev/zero``, would never end.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from emix.errors import UsageError

MIB = 1 << 20
# PyYAML reads some 200 KiB a second; the largest file of emix's own has 5.
MOST_YAML = 256 << 10
MOST_YAML_NODES = 50_000
MOST_JSON = 16 * MIB
_SHOWN = 300  # characters of what a library says of a file

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def path_of(name: Path | str) -> Path:
    """A path as a user gives it: ``~`` is their home.

    Raises:
        UsageError: it begins with the name of a user who is not there.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name}: there is no such user: write the folder's full path") from error


def short(value: object) -> str:
    """``repr`` of a value that may be huge, in some ten words."""
    try:
        return _short.repr(value)
    except ValueError:  # an integer of more digits than Python writes: YAML has hexadecimal ones
        return f"a very long {type(value).__name__}"


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading.

    Raises:
        UsageError: it is none, or cannot be opened.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait for somebody who writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path} cannot be read: expected a regular file, got a folder, a pipe or a device")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, most: int, offset: int = 0) -> bytes:
    """The bytes of a regular file from ``offset`` on.

    Raises:
        UsageError: it is no such file, cannot be read, or has more than ``most`` bytes.
    """
    with open_regular(path) as file:
        try:
            file.seek(offset)
            data = file.read(most + 1)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise UsageError(f"{path} is too large: expected at most {most:,} bytes; it is not what emix writes")
    return data


def read_text(path: Path, *, most: int) -> str:
    """The text of a file in UTF-8; see ``read_bytes``."""
    try:
        return read_bytes(path, most=most).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read: it is not a text file ({_clipped(error)})") from error


def read_json(path: Path, what: str, *, most: int = MOST_JSON, finite: bool = True) -> Any:
    """What a JSON file holds; its numbers are finite unless told otherwise.

    Raises:
        UsageError: it cannot be read or is not JSON; the message says that it is not ``what`` it should be.
    """
    return parse_json(read_bytes(path, most=most), f"{path} is not {what}", finite=finite)


def parse_json(text: str | bytes, problem: str, *, finite: bool = True) -> Any:
    """The value of a JSON text, whose numbers are finite unless told otherwise.

    Raises:
        UsageError: it is none; the message begins with ``problem``.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant if finite else None)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{problem}: {_clipped(error)}") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds: plain values, in which aliases may stand for no more than a file of that size may hold.

    Raises:
        UsageError: it cannot be read or is not YAML.
    """
    return parse_yaml(read_text(path, most=MOST_YAML), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """What a YAML text holds.

    Raises:
        UsageError: it is none, or its aliases stand for too much; the message begins with ``source``.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_bomb(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise UsageError(f"{source} is not YAML that emix reads: it is nested too deeply") from error
    except Exception as error:  # PyYAML lets through whatever int(), float(), datetime() and its own lookups raise
        raise UsageError(f"{source} is not YAML: {_clipped(error)}") from error


def expect_keys(values: object, kinds: Mapping[str, type | tuple[type, ...]], problem: str) -> dict[str, Any]:
    """The mapping ``values``, after a look at those keys that ``kinds`` names: whole numbers are at least 0 and have 63
    bits, other numbers are finite.

    Raises:
        UsageError: it is no mapping, a key is missing, or a value is of another kind; the message begins with
            ``problem``.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{problem}: expected names with values, got {short(values)}")
    for key, kind in kinds.items():
        if key not in values:
            raise UsageError(f"{problem}: {key!r} is missing")
        value = values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            raise UsageError(f"{problem}: {key} expects {names}, got {short(value)}")
        if isinstance(value, int) and not 0 <= value < 1 << 63:
            raise UsageError(f"{problem}: {key} expects a whole number from 0 to 2^63 - 1, got {short(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{problem}: {key} expects a finite number, got {value}")
    return values


def one_line(error: object, most: int = _SHOWN) -> str:
    """A text in one line, without its middle where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def _clipped(error: Exception) -> str:
    return one_line(error) or type(error).__name__


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"expected finite numbers, got {name}")


def _refuse_bomb(root: yaml.Node) -> None:
    """Raise ValueError where the tree has too many nodes, each counted as often as aliases repeat it."""
    weights: dict[int, int] = {}
    open_nodes: set[int] = set()

    def weigh(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise ValueError("an alias stands for a part of itself")
        if id(node) not in weights:
            open_nodes.add(id(node))
            value: Any = node.value
            children = [] if isinstance(node, yaml.ScalarNode) else value
            if isinstance(node, yaml.MappingNode):
                children = [each for pair in value for each in pair]
            weights[id(node)] = 1 + sum(map(weigh, children))
            open_nodes.discard(id(node))
        if weights[id(node)] > MOST_YAML_NODES:
            raise ValueError(f"expected at most {MOST_YAML_NODES:,} values, with what aliases repeat")
        return weights[id(node)]

    weigh(root)
