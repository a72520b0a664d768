"""Command line of a job: options from the fields of its configuration; an exit code, and one line for an error."""

import argparse
import ast
import dataclasses
import difflib
import importlib.util
import inspect
import itertools
import os
import select
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Protocol, TypeVar, get_args, get_origin

from brats.config import TrainConfig, option_name
from brats.errors import BratsError, ConfigError
from brats.presets import PRESETS, choose_preset, train_defaults

DONE, FAILED, WRONG_COMMAND = 0, 1, 2
NOBODY_READS = 141  # 128 + SIGPIPE, as shells report a program whose output is no longer read: `... | head`
HELP_WIDTH = 100  # at most: longer lines are hard to read
NO_BREAK_SPACE = "\xa0"  # keeps "(default: 10)" together where lines are wrapped; printed as a plain one
NO_BREAK_HYPHEN = "\u2011"  # likewise for names such as brats2024-ped
LONGEST_CHOICES = 48  # shown in braces; the text of an option with more of them names them

DEPENDENCIES = (
    *("fsspec", "isal", "matplotlib", "nibabel", "nilearn", "numpy", "pandas", "pyarrow", "ray", "s3fs"),
    *("safetensors", "scipy", "segmentation_models_pytorch", "torch", "torchvision", "xxhash", "yaml"),
)
"""The modules of the dependencies that pyproject.toml names."""
REMEDY = "run `make install`, then `source .venv/bin/activate`"

KINDS = {str: ("NAME", "a value"), int: ("N", "a whole number"), float: ("X", "a number")}
"""How the help and the errors name a value of a type."""


class JobConfig(Protocol):
    """What the configurations of all jobs have."""

    @property
    def debug(self) -> bool: ...


Config = TypeVar("Config", bound=JobConfig)


def run_job(main: Callable[[Config], None], config_class: type[Config]) -> None:
    """Run a job from the command line and exit.

    0 done, 1 the job failed, 2 the command line is wrong, 141 nobody reads the output any more
    """
    try:
        code = _run(main, config_class)
        sys.stdout.flush()  # here, where the error of a closed pipe can still be met
    except BrokenPipeError:
        if not (unread := _unread()):
            raise
        for descriptor in unread:  # what is still buffered is written as Python exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        code = NOBODY_READS
    sys.exit(code)


def _unread() -> list[int]:
    """Which of standard output and standard error are pipes that nobody reads any more."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)  # that there is no reader is reported unasked
    return [descriptor for descriptor, event in poll.poll(0) if event & select.POLLERR]


def _run(main: Callable[[Config], None], config_class: type[Config]) -> int:
    """Run a job and return its exit code; an error is reported in one line."""
    config: Config | None = None
    try:
        check_installed()
        config = parse(config_class, sys.argv[1:])
        keep_home_clean()
        main(config)
    except KeyboardInterrupt:
        code = NOBODY_READS if _unread() else FAILED  # found by another thread, which stops this one
        return _complain("stopped; the same command goes on from here", code)
    except (BratsError, ImportError) as error:
        message = _import_problem(error) if isinstance(error, ImportError) else str(error)
        if not message:
            raise
        if config and config.debug:
            traceback.print_exc()
        return _complain(message, WRONG_COMMAND if isinstance(error, ConfigError) else FAILED)
    return DONE


def check_installed() -> None:
    """Raise BratsError unless every dependency can be found; none is imported."""
    missing = [name for name in DEPENDENCIES if importlib.util.find_spec(name) is None]
    if missing:
        raise BratsError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; {REMEDY}")


def keep_home_clean() -> None:
    """Have matplotlib keep its list of fonts in a temporary folder of this user, not in the home folder."""
    from brats.storage.user_folder import user_folder  # only now: --help needs none of what it loads

    if folder := user_folder():
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder, "matplotlib"))


def _import_problem(error: ImportError) -> str:
    """An error of importing a dependency in one line; "" for a bug of this project."""
    module = (error.name or "").partition(".")[0]
    if module == "brats":
        return ""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is missing; {REMEDY}"
    reason = " ".join(str(error).split())
    return f"{module or 'a dependency'} is installed, but cannot be imported ({reason}); {REMEDY}"


def _complain(message: str, code: int) -> int:
    print(f"{_program()}: {message}", file=sys.stderr, flush=True)
    return code


def _program() -> str:
    return os.path.basename(sys.argv[0])


def parse(config_class: type[Config], arguments: Sequence[str]) -> Config:
    """A configuration from command-line arguments: its preset chosen.

    Raises ConfigError, one line, where they are wrong; SystemExit(0) after printing --help.
    """
    options = read_options(config_class)
    try:
        values = _values(config_class, options, arguments)
    except ConfigError as error:
        raise ConfigError(f"{error}; see {_program()} --help") from None
    return config_class(**values)


def _values(config_class: type, options: Sequence["Option"], arguments: Sequence[str]) -> dict[str, Any]:
    """The values of the fields that are given, or that a preset or the environment sets."""
    texts = _split(options, arguments)
    if "help" in texts:
        parser = _parser(options, inspect.getdoc(config_class) or "", _shown_defaults(config_class, options, texts))
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
    return train_defaults(choose_preset(given)) if config_class is TrainConfig else {}


def _shown_defaults(config_class: type, options: Sequence["Option"], given: Mapping[str, Any]) -> dict[str, str]:
    """The defaults as the help shows them: those of the preset that is named, else of each that has its own."""
    if config_class is not TrainConfig or given.get("preset", "auto") != "auto":
        values = _defaults(config_class, given)
        return {each.name: each.words(values.get(each.name, each.field.default)) for each in options}
    paths = train_defaults("PRESET")
    values = {"preset": "auto", "data": paths["data"], "out": paths["out"]}
    shown = {each.name: [each.words(values.get(each.name, each.field.default))] for each in options}
    for preset, settings in PRESETS.items():
        for each in options:
            if each.name in settings:
                shown[each.name].append(
                    f"preset{NO_BREAK_SPACE}{preset}:{NO_BREAK_SPACE}{each.words(settings[each.name])}"
                )
    return {name: "; ".join(texts) for name, texts in shown.items()}


@dataclass(frozen=True)
class Option:
    """An option of the command line, which sets a field of the configuration."""

    field: dataclasses.Field[Any]
    text: str

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def flag(self) -> str:
        return option_name(f"no_{self.name}" if self.field.default is True else self.name)

    @property
    def several(self) -> bool:
        """Whether it takes any number of values."""
        return get_origin(self.field.type) is tuple

    @property
    def kind(self) -> Any:
        """The type of one value: str, int, float, a Literal of the choices, or bool for an option without value."""
        return get_args(self.field.type)[0] if self.several or self.optional else self.field.type

    @property
    def optional(self) -> bool:
        return NoneType in get_args(self.field.type)

    @property
    def is_path(self) -> bool:
        return bool(self.field.metadata.get("path"))

    @property
    def required(self) -> bool:
        return self.field.default is dataclasses.MISSING

    @property
    def placeholder(self) -> str:
        """What stands for a value in the help."""
        if self.is_path:
            return "PATH"
        choices = "" if self.kind in KINDS else f"{{{','.join(get_args(self.kind))}}}"
        return choices if 0 < len(choices) <= LONGEST_CHOICES else KINDS.get(self.kind, KINDS[str])[0]

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        return KINDS[self.kind][1] if self.kind in KINDS else f"one of {', '.join(get_args(self.kind))}"

    def words(self, value: Any) -> str:
        """A default as the help shows it; "" for none, and for that of an option without value."""
        if value is None or value is dataclasses.MISSING or self.kind is bool:
            return ""
        values = value if self.several else (value,)
        return NO_BREAK_SPACE.join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)

    def value(self, given: Any) -> Any:
        """The value of the field for what the parser found: a text, several, or the value that a flag stands for.

        None leaves the default as it is.
        """
        if self.kind is bool:
            return given
        if self.optional and given == "None":
            return None
        return tuple(self._convert(text) for text in given) if self.several else self._convert(given)

    def _convert(self, text: str) -> Any:
        try:
            if self.kind in KINDS:
                return self.kind(text)
            return get_args(self.kind)[get_args(self.kind).index(text)]
        except ValueError:
            subject = f"each value of {self.flag}" if self.several else self.flag
            raise ConfigError(f"{subject} must be {self.allowed}, not {text!r}") from None


def read_options(config_class: type) -> list[Option]:
    """The options of a job, in the order of the fields, each with the text that stands below its field."""
    body: list[Any] = ast.parse(inspect.getsource(config_class)).body[0].body  # type: ignore[attr-defined]
    texts = {
        ast.unparse(field.target): " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
    }
    return [Option(field, texts[field.name]) for field in dataclasses.fields(config_class)]


def _split(options: Sequence[Option], arguments: Sequence[str]) -> dict[str, Any]:
    """The texts given, by field. Raises ConfigError for what is no option, lacks a value or takes none."""
    try:
        found, rest = _parser(options).parse_known_args(arguments)
    except argparse.ArgumentError as error:
        flags = {spelling: each for each in options for spelling in _spellings(each)}
        named = flags.get(str(error.argument_name))
        remedy = "takes no value" if named is None or named.kind is bool else f"needs {named.allowed}"
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
        prog=_program(),
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


def _add(group: Any, option: Option, default: str) -> None:
    """Add an option to a group of the parser, in both spellings; the help leaves out the one with underscores."""
    settings: dict[str, Any] = {"dest": option.name}
    text = option.text
    if option.kind is bool:
        settings |= {"action": "store_const", "const": not option.field.default}
    else:
        settings |= {"nargs": "*" if option.several else None, "metavar": option.placeholder}
        text += f" (default:{NO_BREAK_SPACE}{default})" if default else ""
    shown, hidden = _spellings(option)
    text = text.replace("%", "%%").replace("-", NO_BREAK_HYPHEN)
    group.add_argument(shown, help=text, **settings)
    if hidden != shown:
        group.add_argument(hidden, help=argparse.SUPPRESS, **settings)
