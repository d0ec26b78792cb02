"""What pydantic says of a wrong configuration, in words: a line for each mistake, with its path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

ALTERNATIVE = re.compile(r"literal\[.*\]|constrained-\w+")
"""What pydantic adds to the place of a mistake where the value may be of several kinds: which of them was tried."""


def mistakes_in_words(model: type[BaseModel], error: ValidationError) -> list[str]:
    """One line for each thing to mend in what should have become a ``model``; an unknown key has the nearest valid one."""
    return [_explain(model, item) for item in _alternatives_joined(_causes(error.errors()))]


def option_that_mends(error: ValidationError) -> str | None:
    """``--set`` with the nearest value that is taken, where a single key of ``[learn]`` is wrong and that value is known.

    Of a robot's keys there is none: what an arm may do is not to be had by pasting.
    """
    items = error.errors()
    if len(items) != 1 or items[0]["loc"][:1] != ("learn",):
        return None
    path, limits = ".".join(str(part) for part in items[0]["loc"]), items[0].get("ctx", {})
    if items[0]["type"] == "literal_error":
        known = re.findall(r"'([^']+)'", str(limits["expected"]))
        nearest = difflib.get_close_matches(str(items[0]["input"]), known, n=1, cutoff=0.0)
        return f"--set {path}={nearest[0]}"
    limit = limits.get("ge", limits.get("le"))
    return None if limit is None else f"--set {path}={limit:g}"


def _causes(items: Sequence[Any]) -> list[Any]:
    """Without the lists that pydantic calls too short because their entries are wrong."""
    places = [tuple(item["loc"]) for item in items]

    def has_wrong_entries(place: tuple[Any, ...]) -> bool:
        return any(len(other) > len(place) and other[: len(place)] == place for other in places)

    return [item for item in items if item["type"] != "too_short" or not has_wrong_entries(tuple(item["loc"]))]


def _alternatives_joined(items: Sequence[Any]) -> list[Any]:
    """With one mistake where pydantic has one for each thing that the value might have been."""
    joined: list[Any] = []
    for item in items:
        *place, last = item["loc"] or ("",)
        if not ALTERNATIVE.fullmatch(str(last)):
            joined.append(item)
        elif joined and tuple(joined[-1]["loc"]) == tuple(place):
            wanted = str(item["msg"]).removeprefix("Input should be ")
            joined[-1] = {**joined[-1], "msg": f"{joined[-1]['msg']} or {wanted}"}
        else:
            joined.append({**item, "loc": tuple(place)})
    return joined


def _explain(model: type[BaseModel], item: Any) -> str:
    location = tuple(item["loc"])
    path = ".".join(str(part) for part in location)
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        keys = _siblings(model, (*location, ""))
        example = f", such as {path}.{keys[0]}" if keys and path else ""
        return (
            f"{path or 'this'} is a table of keys, not a value: set the keys in it{example} (given: {item['input']!r})"
        )
    if item["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(str(location[-1]), _siblings(model, location), n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"{path}: unknown key{hint}"
    message = str(item["msg"]).removeprefix("Value error, ").replace("valid tuple", "list")
    message = message.partition(", unable to parse")[0]
    given = item.get("input")
    shown = "" if item["type"] in ("missing", "value_error") or isinstance(given, dict) else f" (given: {given!r})"
    return f"{path + ': ' if path else ''}{message[0].lower()}{message[1:]}{shown}"


def _siblings(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Field names of the table that holds ``location``."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            inner = [arg for arg in getattr(annotation, "__args__", ()) if arg is not Ellipsis]
            if not inner:
                return []
            annotation = inner[0]
        current = annotation
    return list(current.model_fields)
