"""TOML files and ``--set`` overrides to one frozen tree.

Order, later wins: schema defaults < robot file (its ``include`` first) < ``--config`` files < ``--set``. Tables merge key
by key, arrays replace; a ``[robot.driver]`` or ``[task]`` that names another plug-in drops the parameters of the old one,
because they mean nothing to it. Every mistake is reported at once, each with its path and, for an unknown key, the
nearest valid one.
"""

from __future__ import annotations

import difflib
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from robotsac.config.folders import config_folders, find_config, find_robot, require_file, robot_names
from robotsac.config.mistakes import mistakes_in_words, option_that_mends
from robotsac.config.schema import Config, DriverConfig, GymSettings, LearnerSettings, RobotConfig, TaskConfig
from robotsac.errors import ROBOT_FILE, ConfigError, path_command

Tree = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)
INCLUDE_DEPTH_MAX = 8
# Comes with the package and is valid: where a key stands and what it may hold can be seen there.
SHOW_KEYS = "robotsac config show --robot arm0"
PLUGIN_TABLES: dict[tuple[str, ...], type[BaseModel]] = {("robot", "driver"): DriverConfig, ("task",): TaskConfig}


def load_config(robot: str, files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Config:
    """Resolve everything for one robot.

    Args:
        robot: a name (looked up as ``NAME.toml``, see :func:`config_folders`) or a path to a robot file.
        files: further TOML files by path or name, later ones win.
        overrides: ``key.path=value``; the value is parsed as TOML, else taken as a string.

    Raises:
        ConfigError: with every mistake found.
    """
    path = find_robot(robot)
    tree = laid_over(read_tree(path), files, overrides)
    robot_table = tree.get("robot", {})
    if isinstance(robot_table, dict) and isinstance(robot_table.get("model"), str):
        require_file(Path(robot_table["model"]))
    return validate(Config, tree, f"robot {robot}", robot_command(robot, laid_over=bool(files or overrides)))


def load_learner_settings(files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> LearnerSettings:
    """Resolve ``[link]`` and ``[learn]``; other tables of the full tree may stand in the same files and are left alone.

    Raises:
        ConfigError: with every mistake found.
    """
    return _part(LearnerSettings, laid_over({}, files, overrides))


def load_gym_settings(files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> GymSettings:
    """Likewise, and ``[collect]``.

    Raises:
        ConfigError: with every mistake found.
    """
    return gym_settings_of(laid_over({}, files, overrides))


def gym_settings_of(tree: Tree) -> GymSettings:
    """What :func:`load_gym_settings` takes of ``tree``. Raises ConfigError."""
    return _part(GymSettings, tree)


def _part(model: type[Model], tree: Tree) -> Model:
    """``tree`` without the tables that ``model`` has no use for."""
    foreign = set(Config.model_fields) - set(model.model_fields)
    return validate(model, {key: value for key, value in tree.items() if key not in foreign}, "the learner")


def laid_over(tree: Tree, files: Sequence[Path], overrides: Sequence[str]) -> Tree:
    """``files`` (paths, or names: see :func:`~robotsac.config.folders.find_config`) on ``tree``, and ``overrides`` on them.

    Raises:
        ConfigError: a file that is not there or not TOML, an override that is none.
    """
    for file in files:
        tree = merge(tree, read_tree(find_config(file)))
    return _absolute(_with_overrides(tree, overrides), Path.cwd())


def read_tree(path: Path, depth: int = 0) -> Tree:
    """One TOML file with what it includes merged below it. Relative paths in it become absolute.

    Raises:
        ConfigError: not readable, not TOML, or includes nested deeper than 8.
    """
    require_file(path)
    if depth > INCLUDE_DEPTH_MAX:
        raise ConfigError(
            f"{path}: includes are nested deeper than {INCLUDE_DEPTH_MAX}",
            reason="a circle of includes?",
            command=f"grep -n include {shlex.quote(str(path))}",
        )
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML", reason=str(error), command=edit_command(path)) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", reason=str(error), command=path_command(error, path)) from error
    include = tree.pop("include", [])
    base: Tree = {}
    for name in [include] if isinstance(include, str) else include:
        base = merge(base, read_tree(path.parent / str(name), depth + 1))
    return merge(base, _absolute(tree, path.parent))


def _absolute(tree: Tree, folder: Path) -> Tree:
    """``tree`` with its relative paths as those of ``folder``; what is no path yet is left to validation."""
    robot, learn = tree.get("robot"), tree.get("learn")
    changed: Tree = {}
    if isinstance(robot, dict) and isinstance(robot.get("model"), str):
        changed["robot"] = {"model": _from(folder, robot["model"])}
    if isinstance(learn, dict) and isinstance(learn.get("prior_data"), list):
        given = learn["prior_data"]
        changed["learn"] = {"prior_data": [_from(folder, log) if isinstance(log, str) else log for log in given]}
    return merge(tree, changed)


def _from(folder: Path, path: str) -> str:
    return str((folder / Path(path).expanduser()).resolve())


def merge(base: Mapping[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> Tree:
    """``over`` laid on ``base``; neither is changed."""
    merged = dict(base)
    if path in PLUGIN_TABLES and over.get("name", base.get("name")) != base.get("name"):
        # Another plug-in: what was said to the old one means nothing to it.
        merged = {key: value for key, value in base.items() if key in PLUGIN_TABLES[path].model_fields}
    for key, value in over.items():
        below = merged.get(key)
        both_tables = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = merge(below, value, (*path, key)) if both_tables else value  # type: ignore[arg-type]
    return merged


def edit_command(path: Path) -> str:
    """The command that opens ``path`` in the user's editor."""
    return f"${{EDITOR:-vi}} {shlex.quote(str(path))}"


def robot_command(robot: str, *, laid_over: bool) -> str:
    """The command that helps with a mistake in a robot's configuration.

    Without what was ``laid_over`` it, the robot's own file shows what is valid; if that is all there is, the mistake is in
    it. Raises ConfigError: there is no such robot.
    """
    path = find_robot(robot)
    return f"robotsac config show --robot {shlex.quote(robot)}" if laid_over else edit_command(path)


def validate(model: type[Model], tree: Mapping[str, Any], what: str, command: str = ROBOT_FILE) -> Model:
    """Build ``model`` from ``tree``.

    Args:
        model: what it should be.
        tree: what was read.
        what: it is the configuration of, in words.
        command: that helps where it is wrong.

    Raises:
        ConfigError: one line per mistake, with its path.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = mistakes_in_words(model, error)
        raise ConfigError(
            f"the configuration of {what} has {len(lines)} mistake{'s' if len(lines) != 1 else ''}",
            reason="\n".join(lines),
            command=option_that_mends(error) or command,
        ) from error


def _with_overrides(tree: Tree, overrides: Iterable[str]) -> Tree:
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(
                f"--set {override!r} is not of the form key.path=value",
                reason="for example: --set learn.threads=2",
                command=ROBOT_FILE,
            )
        tree = merge(tree, _nested(tree, key.strip(), key.strip().split("."), _parse_value(text.strip())))
    return tree


def _nested(below: Any, key: str, parts: Sequence[str], value: Any) -> Any:
    """What to merge over ``below`` so that its ``parts`` become ``value``; a list comes whole, with one entry changed.

    Args:
        below: what stands there now.
        key: the whole key, for an error's words.
        parts: of the key, those below ``below``; in a list, an index or a ``name``.
        value: the new one.

    Raises:
        ConfigError: a list has no such entry.
    """
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if not isinstance(below, list):
        inner = below.get(head) if isinstance(below, dict) else None
        return {head: _nested(inner, key, rest, value)}
    place = _place(below, key, head)
    entry, change = below[place], _nested(below[place], key, rest, value)
    both_tables = isinstance(entry, dict) and isinstance(change, dict)
    return [*below[:place], merge(entry, change) if both_tables else change, *below[place + 1 :]]


def _place(entries: Sequence[Any], key: str, wanted: str) -> int:
    names = [str(entry["name"]) if isinstance(entry, dict) and "name" in entry else "" for entry in entries]
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(entries):
        return int(wanted)
    named = f", {', '.join(name for name in names if name)}" if any(names) else ""
    nearest = difflib.get_close_matches(wanted, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigError(
        f"--set {key}: there is no entry {wanted!r}{hint}",
        reason=f"the list has {len(entries)} entries: 0 to {len(entries) - 1}{named}",
        command=ROBOT_FILE,
    )


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


__all__ = [
    "Config",
    "GymSettings",
    "LearnerSettings",
    "RobotConfig",
    "config_folders",
    "find_config",
    "find_robot",
    "gym_settings_of",
    "laid_over",
    "load_config",
    "load_gym_settings",
    "load_learner_settings",
    "merge",
    "read_tree",
    "robot_names",
    "validate",
]
