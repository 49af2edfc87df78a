"""Configs composed outside of a launch: one, or that of every job of a sweep."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pear_cli.config.presets import config_dir
from pear_cli.config.range import shown
from pear_cli.errors import ConfigError
from pear_cli.launch.completion import searched
from pear_cli.launch.explain import explain
from pear_cli.launch.flags import quoted
from pear_cli.launch.guard import guarded
from pear_cli.launch.jobs import ROOT

Flags = Mapping[str, str | None]
Job = tuple[str, ...]

VALUE = re.compile(r"(seed|select|phase|\w+(\.\w+)+)=")
"""Begins an override that sets a value, and so chooses no preset."""

TEXTS = {
    "backbone.weights",
    "dataset.name",
    "dataset.path",
    "dataset.root",
    "dataset.task",
    "runtime.store",
}
"""Settings whose value is a path or a name."""

LITERAL = re.compile(r"(?<!\\)\$\{(?=[^:{}]*\})")
"""Begins `${…}` without a resolver, which a path may be called."""

ESCAPED = r"\\${"

BASIC = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"


def composed(words: Sequence[str], further: Path | None = None) -> DictConfig:
    """The root config with overrides, for commands that run no job.

    Args:
        words: overrides.
        further: a folder with further presets.

    Raises:
        ConfigError: it does not compose.
    """
    flags = {} if further is None else {"--config-dir": str(further)}
    words = opened(words)
    check_size(words)
    try:
        with _hydra(words):
            return _without_hydra(_compose(flags, words))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, words)) from error


def opened(words: Iterable[str]) -> list[str]:
    """Overrides as Hydra is to read them.

    `backbone.args` and `dataset.args` take keys that no preset has, whatever timm takes. Paths and names are
    text: with an apostrophe, `${…}` or the look of a number they stand for themselves, but for resolvers such
    as `${oc.env:HOME}`.
    """
    return [re.sub(r"^(?=(backbone|dataset)\.args[.=])", "++", _as_text(word)) for word in words]


def _as_text(word: str) -> str:
    key, equals, value = word.partition("=")
    if key not in TEXTS or not equals:
        return word
    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException:
        return f"{key}={quoted(LITERAL.sub(ESCAPED, value))}"
    found = parsed.value()
    if parsed.is_sweep_override() or found is None:
        return word
    if isinstance(found, str):
        literal = LITERAL.sub(ESCAPED, found)
        return word if literal == found else f"{key}={quoted(literal)}"
    return f"{key}={quoted(value)}" if isinstance(found, int | float) else word


def single(overrides: Sequence[str]) -> Job:
    """The overrides of the one job of a run.

    Raises:
        ConfigError: one of them is a sweep.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line} has several values; add -m to sweep over them")
    return tuple(override.input_line or "" for override in parsed if not override.is_hydra_override())


MOST_JOBS = 10_000
"""Of one sweep."""


def check_size(overrides: Sequence[str]) -> None:
    """Refuse what cannot be run: too many jobs, before they are listed, endless numbers, lists of presets.

    Raises:
        ConfigError: it names the setting, or the number of jobs.
    """
    for word in overrides:
        if re.search(r"\d{4000}", word):  # Python reads no whole number of more than 4300 digits
            key, _, value = word.partition("=")
            raise ConfigError(f"{key} = {shown(value)} is out of range: no number has so many digits")
    jobs = 1
    with suppress(HydraException, ValueError):  # what is wrong is told where the words are composed
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            choice = override.value()
            group = override.key_or_group
            if isinstance(choice, list) and "/" not in group and (config_dir() / group).is_dir():
                names = ",".join(map(str, choice))
                raise ConfigError(
                    f"{override.input_line}: {group} takes the name of one preset; to run several, add "
                    f"-m and write {group}={names}"
                )
            if isinstance(choice, RangeSweep | ChoiceSweep):
                values = choice.range() if isinstance(choice, RangeSweep) else choice.list
                jobs *= sum(1 for _ in islice(values, MOST_JOBS + 1))
    if jobs > MOST_JOBS:
        raise ConfigError(f"the sweep has more than {MOST_JOBS} jobs; split it into several")


def grid(flags: Flags, overrides: Sequence[str]) -> tuple[tuple[Job, ...] | None, DictConfig]:
    """The overrides of each job of a sweep, and the config of the first one, Hydra's part included.

    The overrides are None where a sweeper chooses them as it goes.

    Raises:
        HydraException, OmegaConfBaseException: the first job does not compose.
    """
    with _hydra(overrides):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides(list(overrides))
        kept = [o for o in parsed if not o.is_sweep_override() or o.is_discrete_sweep()]
        (first, *_) = BasicSweeper.split_arguments(kept, None)[0]
        config = _compose(flags, first)
        if config.hydra.sweeper.get("_target_") != BASIC:
            return None, config
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        own = parser.parse_overrides(params) + [o for o in parsed if not o.is_hydra_override()]
        (jobs,) = BasicSweeper.split_arguments(own, None)
        return tuple(map(tuple, jobs)), config


def compositions(
    flags: Flags, overrides: Sequence[str], jobs: Iterable[Job]
) -> Iterator[tuple[Job, DictConfig]]:
    """The root config of each job; presets are composed once for all jobs that have them in common.

    Args:
        flags: Hydra's, as typed.
        overrides: Hydra's own among these count for all jobs.
        jobs: the overrides of each.

    Raises:
        HydraException, OmegaConfBaseException: one does not compose.
    """
    with _hydra(overrides):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides(list(overrides))
        common = [override.input_line or "" for override in parsed if override.is_hydra_override()]
        bases: dict[Job, DictConfig] = {}
        for job in jobs:
            presets = tuple(word for word in job if not VALUE.match(word))
            if presets not in bases:
                bases[presets] = _without_hydra(_compose(flags, [*common, *presets]))
            config = bases[presets].copy()
            values = parser.parse_overrides([word for word in job if VALUE.match(word)])
            ConfigLoaderImpl._apply_overrides_to_config(values, config)
            yield job, config


def _compose(flags: Flags, overrides: Sequence[str]) -> DictConfig:
    given = flags.get("--config-dir")
    further = None if given is None else Path(given)
    if further is not None and not further.is_dir():  # Hydra itself warns, and then fails elsewhere
        raise ConfigError(f"Additional config directory '{further}' not found")
    name = flags.get("--config-name") or ROOT
    config = hydra.compose(name, [*searched(further), *overrides], return_hydra_config=True)
    OmegaConf.update(config, "hydra.job.config_name", name)
    return config


def _without_hydra(config: DictConfig) -> DictConfig:
    with open_dict(config):
        config.pop("hydra", None)
    return config


@contextmanager
def _hydra(typed: Iterable[str]) -> Iterator[None]:
    with guarded(typed), hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        yield
