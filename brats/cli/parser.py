"""Parser of a command line: its arguments as a configuration, and its help."""

import argparse
import difflib
import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from brats.cli.options import NO_BREAK_SPACE, Option, read_options
from brats.config import TrainConfig
from brats.errors import ConfigError
from brats.presets import PRESETS, choose_preset, train_defaults

DONE = 0
HELP_WIDTH = 100  # at most: longer lines are hard to read
NO_BREAK_HYPHEN = "\u2011"  # as NO_BREAK_SPACE, for names such as brats2024-ped

Config = TypeVar("Config")


def program() -> str:
    """The name of this program, as usage and complaints begin."""
    return os.path.basename(sys.argv[0])


def parse(config_class: type[Config], arguments: Sequence[str]) -> Config:
    """A configuration from command-line arguments: its preset chosen.

    Raises ConfigError, one line, where they are wrong; SystemExit(0) after printing --help.
    """
    options = read_options(config_class)
    try:
        values = _values(config_class, options, arguments)
    except ConfigError as error:
        raise ConfigError(f"{error}; see {program()} --help") from None
    return config_class(**values)


def _values(config_class: type, options: Sequence[Option], arguments: Sequence[str]) -> dict[str, Any]:
    """The values of the fields that are given, or that a preset or the environment sets."""
    texts = _split(options, arguments)
    if "help" in texts:
        defaults = _shown_defaults(config_class, options, texts)
        parser = _parser(options, inspect.getdoc(config_class) or "", defaults)
        if config_class is TrainConfig:
            _add_presets(parser)
        print(parser.format_help().replace(NO_BREAK_SPACE, " ").replace(NO_BREAK_HYPHEN, "-"), end="", flush=True)
        sys.exit(DONE)
    given = {each.name: each.value(texts[each.name]) for each in options if each.name in texts}
    defaults = _defaults(config_class, given)
    values = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    if "preset" in defaults:
        values["preset"] = defaults["preset"]  # "auto", where given, stands for it
    missing = [each.flag for each in options if each.required and each.name not in values]
    if missing:
        raise ConfigError(f"missing {', '.join(missing)}")
    return values


def _defaults(config_class: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that are not those of the fields."""
    return train_defaults(choose_preset(given), given) if config_class is TrainConfig else {}


def _shown_defaults(config_class: type, options: Sequence[Option], given: Mapping[str, Any]) -> dict[str, str]:
    """The defaults as the help shows them: those of the preset that is named, else of each that has its own."""
    if config_class is not TrainConfig or given.get("preset", "auto") != "auto":
        values = _defaults(config_class, given)
        return {each.name: each.words(values.get(each.name, each.shown_default)) for each in options}
    paths = train_defaults("PRESET", {})
    values = {"preset": "auto", "data": paths["data"], "out": paths["out"]}
    shown = {each.name: [each.words(values.get(each.name, each.shown_default))] for each in options}
    for name, preset in PRESETS.items():
        for each in options:
            if each.name in preset.settings:
                words = each.words(preset.settings[each.name])
                shown[each.name].append(f"preset{NO_BREAK_SPACE}{name}:{NO_BREAK_SPACE}{words}")
    return {name: "; ".join(filter(None, texts)) for name, texts in shown.items()}


def _split(options: Sequence[Option], arguments: Sequence[str]) -> dict[str, Any]:
    """The texts given, by field. Raises ConfigError for what is no option, lacks a value or takes none."""
    try:
        found, rest = _parser(options).parse_known_args(arguments)
    except argparse.ArgumentError as error:
        flags = {spelling: each for each in options for spelling in _spellings(each)}
        named = flags.get(str(error.argument_name))
        remedy = "takes no value" if named is None or named.is_flag else f"needs {named.allowed}"
        raise ConfigError(f"{error.argument_name} {remedy}") from None
    if rest and not hasattr(found, "help"):
        raise ConfigError(_unknown(rest, [each.flag for each in options]))
    return vars(found)


def _unknown(rest: Sequence[str], flags: Sequence[str]) -> str:
    unknown = [argument.partition("=")[0] for argument in rest if argument.startswith("-")]
    if not unknown:
        return f"unexpected argument {rest[0]!r}"
    near = difflib.get_close_matches(unknown[0], flags, n=1, cutoff=0.75)
    return f"unknown option {unknown[0]}" + (f" (did you mean {near[0]}?)" if near else "")


def _spellings(option: Option) -> tuple[str, str]:
    """As the help shows it, and with underscores as in Python."""
    return option.flag, f"--{option.flag.removeprefix('--').replace('-', '_')}"


def _parser(
    options: Sequence[Option], description: str = "", defaults: Mapping[str, str] | None = None
) -> argparse.ArgumentParser:
    """The parser of these options; its help shows these defaults, by field."""
    defaults = defaults or {}
    width = min(shutil.get_terminal_size().columns, HELP_WIDTH)
    required = [each for each in options if each.required and not defaults.get(each.name)]
    parser = argparse.ArgumentParser(
        prog=program(),
        usage=" ".join(["%(prog)s", *(f"{each.flag} {each.placeholder}" for each in required), "[OPTION ...]"]),
        description="\n\n".join(textwrap.fill(part, width) for part in description.split("\n\n")),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=width),
        argument_default=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    groups = {
        "required options": required,
        "options": [each for each in options if each not in required and each.field.metadata.get("execution")],
        "options that shape the result (an output folder never mixes two values)": [
            each for each in options if each not in required and not each.field.metadata.get("execution")
        ],
    }
    for title, members in groups.items():
        group = parser.add_argument_group(title)
        for each in members:
            _add(group, each, defaults.get(each.name, ""))
        if title == "options":
            group.add_argument(
                "-h", "--help", action="store_true", default=argparse.SUPPRESS, help="Show this help."
            )
    return parser


def _add_presets(parser: argparse.ArgumentParser) -> None:
    """Add the presets to the help, each with its text and what others have reported of the like."""
    width = min(shutil.get_terminal_size().columns, HELP_WIDTH)
    lines = []
    for name, preset in PRESETS.items():
        published = f" Published: {preset.published}." if preset.published else ""
        text = f"{name}: {preset.text}{published}"
        lines.append(textwrap.fill(text, width - 2, subsequent_indent="    ", break_on_hyphens=False))
    parser.add_argument_group("presets (more in docs/presets.md)", "\n".join(lines))


def _add(group: Any, option: Option, default: str) -> None:
    """Add an option to a group of the parser, in both spellings; the help leaves out the one with underscores."""
    settings: dict[str, Any] = {"dest": option.name}
    text = option.text
    if option.is_flag:
        settings |= {"action": "store_const", "const": not option.field.default}
    else:
        settings |= {"nargs": "*" if option.type.several else None, "metavar": option.placeholder}
        text += f" (default:{NO_BREAK_SPACE}{default})" if default else ""
    shown, hidden = _spellings(option)
    text = text.replace("%", "%%").replace("-", NO_BREAK_HYPHEN)
    group.add_argument(shown, help=text, **settings)
    if hidden != shown:
        group.add_argument(hidden, help=argparse.SUPPRESS, **settings)
