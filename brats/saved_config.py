"""The `config.json` beside an output: the job that made it, and the check that only the same job goes on there."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from brats import storage
from brats.errors import ConfigError


def result_fields(config: Any) -> dict[str, Any]:
    """The values of the fields that shape the result, as JSON holds them."""
    return {
        item.name: _json_value(getattr(config, item.name))
        for item in dataclasses.fields(config)
        if not item.metadata.get("execution")
    }


def earlier_values(config: Any) -> dict[str, Any]:
    """What fields that were added later stand for in configurations saved before them."""
    return {
        item.name: _json_value(item.metadata["earlier"])
        for item in dataclasses.fields(config)
        if "earlier" in item.metadata
    }


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """Content of `config.json`: the values that shaped the output, and those of its latest run that did not.

    earlier: values that a `config.json` of an earlier version leaves out; not saved
    """

    job: str
    result: dict[str, Any]
    execution: dict[str, Any]
    earlier: dict[str, Any]

    @classmethod
    def of(cls, job: str, config: Any, **result: Any) -> Self:
        """Build from a configuration; `result` adds values that shape the result."""
        shaping = result_fields(config)
        everything = {item.name: _json_value(getattr(config, item.name)) for item in dataclasses.fields(config)}
        rest = {name: value for name, value in everything.items() if name not in shaping}
        return cls(job=job, result={**shaping, **result}, execution=rest, earlier=earlier_values(config))

    def claim(self, out: str) -> None:
        """Write OUT/config.json, unless `check` fails."""
        self.check(out)
        self.write(out)

    def write(self, out: str) -> None:
        storage.write_json(config_path(out), {"job": self.job, "result": self.result, "execution": self.execution})

    def check(self, out: str, *, values: bool = True) -> None:
        """Raise ConfigError where OUT holds the output of another job, or of other values, which are named.

        An output folder never mixes two runs.

        values: whether to compare them too
        """
        try:
            found = storage.read_json(config_path(out))
        except FileNotFoundError:
            return
        job, result = found.get("job"), found.get("result", {})
        if not isinstance(result, dict):
            raise ConfigError(f"{config_path(out)}: damaged, not the configuration of a job; choose another --out")
        if job != self.job:
            other = " ".join(str(job).split())
            raise ConfigError(f"{out}: holds the output of {other}, not of {self.job}; choose another --out")
        theirs = {**self.earlier, **result}
        different = [
            f"{name} {theirs.get(name)!r} there, {self.result.get(name)!r} here"
            for name in sorted({*self.result, *theirs})
            if theirs.get(name) != self.result.get(name)
        ]
        if values and different:
            raise ConfigError(f"{out}: holds a different run ({'; '.join(different)}); choose another --out")


def config_path(out: str) -> str:
    return storage.join(out, "config.json")


def _json_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
