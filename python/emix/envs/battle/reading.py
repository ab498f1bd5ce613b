"""Reading YAML files that people write: one clear sentence for every mistake, with the file and the key."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib import resources
from typing import Any

from emix import reading
from emix.envs.options import LARGEST
from emix.errors import UsageError, closest

_MOST = (1 << 31) - 1  # the tables' and the ops' integers have 32 bits


def packaged(folder: str) -> list[str]:
    """The names of the YAML files in a folder beside this file, without their endings."""
    files = resources.files("emix.envs.battle").joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read_yaml(name: str, folder: str, what: str) -> tuple[Section, str]:
    """The file ``folder/<name>.yaml`` of this package, or that at the path ``name``, and what to call it.

    Raises:
        UsageError: there is no such file, or it is not YAML.
    """
    names = packaged(folder)
    if name in names:
        source = f"{folder}/{name}.yaml"
        text = resources.files("emix.envs.battle").joinpath(folder, f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        source = name
        try:
            text = reading.read_text(reading.path_of(name), most=reading.MOST_YAML)
        except UsageError as error:
            raise UsageError(f"{what}: {error}") from error
    else:
        raise UsageError(f"unknown {what} {name!r}: {closest(name, names)} (or give the path of a .yaml file)")
    return Section(source, "", reading.parse_yaml(text, source)), source


class Section:
    """A mapping of a YAML file that knows where it stands."""

    def __init__(self, source: str, key: str, content: Any) -> None:
        self._source, self._key, self._content = source, key, content
        if not isinstance(content, dict):
            raise self.error("", f"expected keys with values, got {reading.short(content)}")

    def error(self, key: str, text: str) -> UsageError:
        """An error at ``key`` of this section, or at the section itself where ``key`` is empty."""
        where = ".".join(" ".join(part.split()) for part in (self._key, str(key)) if part)
        return UsageError(f"{self._source}: {where}: {text}" if where else f"{self._source}: {text}")

    def expect(self, required: Collection[str], optional: Collection[str] = ()) -> None:
        """Raise UsageError where a key is unknown or missing."""
        known = [*required, *optional]
        for key in self._content:
            if key not in known:
                raise self.error("", f"unknown key {reading.short(key)}, {closest(key, known)}")
        for key in required:
            if key not in self._content:
                raise self.error("", f"the key {key!r} is missing")

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Keys and values as YAML has them."""
        return self._content.items()

    def sections(self) -> dict[str, Section]:
        """Every value of this section, as a section."""
        return {str(key): self.section(key) for key in self._content}

    def section(self, key: str) -> Section:
        """The mapping at ``key``."""
        return Section(self._source, ".".join(part for part in (self._key, str(key)) if part), self._content[key])

    def list_of_sections(self, key: str) -> list[Section]:
        """The list of mappings at ``key``."""
        value = self._content[key]
        if not isinstance(value, list) or not value:
            raise self.error(key, f"expected a list, got {reading.short(value)}")
        prefix = ".".join(part for part in (self._key, key) if part)
        return [Section(self._source, f"{prefix}[{i}]", item) for i, item in enumerate(value)]

    def number(self, key: str, default: float | None = None, *, least: float = 0.0) -> float:
        """The number at ``key``, not below ``least`` and at most 1e6."""
        value = self._content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise self.error(key, f"expected a number, got {reading.short(value)}")
        if value < least:
            raise self.error(key, f"expected a number of at least {least:g}, got {reading.short(value)}")
        if value > LARGEST:
            raise self.error(key, f"expected a number of at most {LARGEST:g}, got {reading.short(value)}")
        return float(value)

    def integer(self, key: str, *, least: int = 1, most: int = _MOST) -> int:
        """The integer at ``key``, from ``least`` to ``most``."""
        value = self._content[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(key, f"expected an integer of at least {least}, got {reading.short(value)}")
        if value > most:
            raise self.error(key, f"expected an integer of at most {most}, got {reading.short(value)}")
        return value

    def choice(self, key: str, known: Collection[str], default: str | None = None) -> str:
        """The word at ``key``, one of ``known``."""
        value = self._content.get(key, default)
        if not isinstance(value, str) or value not in known:
            raise self.error(key, f"unknown {key} {reading.short(value)}, {closest(value, known)}")
        return value

    def word(self, key: str) -> str:
        """The word at ``key``."""
        value = self._content[key]
        if not isinstance(value, str):
            raise self.error(key, f"expected a word, got {reading.short(value)}")
        return value

    def words(self, key: str, known: Collection[str] | None = None) -> list[str]:
        """The list of words at ``key`` (none where it is missing), each one of ``known``."""
        value = self._content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self.error(key, f"expected a list of words, got {reading.short(value)}")
        for word in value:
            if known is not None and word not in known:
                raise self.error(key, f"unknown word {reading.short(word)}, {closest(word, known)}")
        return value

    def as_point(self, key: str, value: Any) -> tuple[float, float]:
        """``value``, read at ``key``, as a point [x, y]."""
        numbers = isinstance(value, list) and len(value) == 2
        if not numbers or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
            raise self.error(key, f"expected a point [x, y], got {reading.short(value)}")
        if not all(abs(v) <= LARGEST for v in value):
            raise self.error(key, f"expected finite numbers of at most {LARGEST:g} in size, got {reading.short(value)}")
        return float(value[0]), float(value[1])
