"""References to environment variables in settings: they are replaced by values when a run starts.

A reference is an `EnvVar`; a text with `{{ env.NAME }}` or `{{ env('NAME') }}` in it; or `{"env": "NAME"}`, which is
how Dagster stores an `EnvVar`.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import dagster as dg
import msgspec

# The classes of `dg.EnvVar("X")` and `dg.EnvVar.int("X")`.
ENVIRONMENT_VARIABLES = (dg.EnvVar, type(dg.EnvVar.int("X")))

_REFERENCE = re.compile(r"""\{\{\s*env(?:\.(\w+)|\(\s*["'](\w+)["']\s*\))\s*\}\}""")
_TEMPLATE = re.compile(r"\{\{|\{%")


def variable_name(value: object) -> str | None:
    """Return the name of the environment variable that a value stands for; None if it does not stand for one."""
    if isinstance(value, ENVIRONMENT_VARIABLES):
        return value.env_var_name
    if isinstance(value, Mapping) and value.keys() == {"env"} and isinstance(value["env"], str):
        return value["env"]
    return None


def is_reference(value: object) -> bool:
    """Return whether a text of YAML has references to environment variables, and no other templates."""
    if not isinstance(value, str):
        return False
    without_references, count = _REFERENCE.subn("", value)
    return count > 0 and not _TEMPLATE.search(without_references)


def from_yaml(value: Any, context: dg.ResolutionContext) -> Any:
    """Return a value of YAML: references to environment variables stay what they are, other templates are resolved."""
    if isinstance(value, dict):
        return {key: from_yaml(each, context.at_path(key)) for key, each in value.items()}
    if not is_reference(value):
        # Dagster would make a number of a text with digits, such as a client id.
        return context.resolve_value(value) if _TEMPLATE.search(str(value)) else value
    match = _REFERENCE.fullmatch(value)
    return dg.EnvVar(match[1] or match[2]) if match else value


def resolved(value: Any) -> Any:
    """Return a value with those of environment variables in place of the references to them.

    Raises:
        ValueError: a variable is not set.
    """
    if (name := variable_name(value)) is not None:
        return _value_of(name)
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _value_of(match[1] or match[2]), value)
    if isinstance(value, Mapping):
        return {key: resolved(each) for key, each in value.items()}
    return [resolved(each) for each in value] if isinstance(value, list) else value


def resolved_options(options: Mapping[str, Any]) -> Any:
    """Return options with the values of environment variables. If all is one reference, it has to be a JSON object.

    Raises:
        ValueError: a variable is not set, or is not a JSON object. The message does not contain its value.
    """
    if (name := variable_name(options)) is not None:
        try:
            options = msgspec.json.decode(_value_of(name), type=dict[str, Any])
        except msgspec.DecodeError:
            raise ValueError(
                f'{name} must be a JSON object, such as {{"endpoint_url": "https://example.com"}}'
            ) from None
    return resolved(options)


def _value_of(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set")
    return value
