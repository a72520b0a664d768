"""From a command line to a job: parse its dataclass, run it, and turn errors into one line and an exit code."""

import dataclasses
import io
import itertools
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any, TypeVar

import tyro

from brats.config import PRESETS, TrainConfig, auto_preset
from brats.errors import BratsError, ConfigError

DONE, FAILED, WRONG_COMMAND = 0, 1, 2

Config = TypeVar("Config")


def parse(config_class: type[Config], arguments: list[str]) -> Config:
    """A configuration from command-line arguments.

    Raises ConfigError, one line, where they are wrong; SystemExit(0) after printing --help.
    """
    default: Any = _preset_defaults(arguments) if config_class is TrainConfig else None
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            config: Config = tyro.cli(
                config_class,
                args=arguments,
                default=default,
                prog=_program(),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code:
            raise ConfigError(f"{_first_sentence(said.getvalue())}; see {_program()} --help") from None
        raise
    return config


def run_job(main: Callable[[Config], None], config_class: type[Config]) -> None:
    """Run a job from the command line and exit: 0 done, 1 the job failed, 2 the command line is wrong."""
    debug = "--debug" in sys.argv
    try:
        main(parse(config_class, sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(_complain("stopped; the same command goes on from here", FAILED))
    except ConfigError as error:
        sys.exit(_complain(str(error), WRONG_COMMAND, debug=debug))
    except BratsError as error:
        sys.exit(_complain(str(error), FAILED, debug=debug))


def _complain(message: str, code: int, *, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"{_program()}: {message}", file=sys.stderr, flush=True)
    return code


def _program() -> str:
    return os.path.basename(sys.argv[0])


def _preset_defaults(arguments: list[str]) -> TrainConfig:
    """The preset's values become the defaults, so that other options override them and --help shows them."""
    named = _value_of("--preset", arguments) or "auto"
    preset = named if named != "auto" else auto_preset(_value_of("--data", arguments))
    return dataclasses.replace(TrainConfig(), **PRESETS.get(preset, {}))


def _value_of(option: str, arguments: list[str]) -> str | None:
    """The value of an option before all are parsed; the last where it is given twice, as the parser has it."""
    value = None
    for argument, following in itertools.zip_longest(arguments, arguments[1:]):
        name, equals, attached = argument.partition("=")
        if name == option:
            value = attached if equals else following
    return value


def _first_sentence(box: str) -> str:
    """The message inside the box that the parser draws around an error, from its top to the first rule."""
    lines = [line.strip(" │") for line in box.splitlines() if line.startswith("│")]
    message = list(itertools.takewhile(lambda line: line.strip("─"), lines))
    if message and message[0].startswith("Missing from"):  # the options and their help, one below the other
        return "missing " + ", ".join(line.split()[0] for line in message if line.startswith("--"))
    return " ".join(" ".join(message).split()).removesuffix(".") or box.strip()
