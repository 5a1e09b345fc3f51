"""How values of settings are read from the environment and from YAML, and how an error names them.

A reference to an environment variable is an `EnvVar`; a text with `{{ env.NAME }}` or `{{ env('NAME') }}` in it; or
`{"env": "NAME"}`, which is how Dagster stores an `EnvVar`. References become values when a run starts.
"""

import os
import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import dagster as dg
import msgspec
from pydantic import BaseModel, Field, ValidationError, create_model

# The classes of `dg.EnvVar("X")` and `dg.EnvVar.int("X")`.
ENVIRONMENT_VARIABLES = (dg.EnvVar, type(dg.EnvVar.int("X")))

_REFERENCE = re.compile(r"""\{\{\s*env(?:\.(\w+)|\(\s*["'](\w+)["']\s*\))\s*\}\}""")
_TEMPLATE = re.compile(r"\{\{|\{%")


def environment_texts(fields: Iterable[str]) -> dict[str, str]:
    """Return the values of those settings whose environment variable is set and not empty."""
    return {field: text for field in fields if (text := os.environ.get(f"LATER_{field.upper()}"))}


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
    """Return options with the values of environment variables. If all is one reference, it has to be a JSON object."""
    if (name := variable_name(options)) is not None:
        try:
            options = msgspec.json.decode(_value_of(name), type=dict[str, Any])
        except msgspec.DecodeError:  # whose message has the value
            raise ValueError(
                f'{name} must be a JSON object, such as {{"endpoint_url": "https://example.com"}}'
            ) from None
    return resolved(options)


def _value_of(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set")
    return value


def setting_name(field: str) -> str:
    """Return how messages name a setting: by its environment variable and its field or attribute."""
    return f"LATER_{field.upper()} ({field})"


def describe_invalid(error: ValidationError) -> str:
    """Return one line that names each invalid setting. It does not contain their values, which may be secrets."""
    lines = []
    for each in error.errors():
        raised = each.get("ctx", {}).get("error")
        reason = str(raised) if isinstance(raised, ValueError) else each["msg"]
        lines.append(f"{setting_name(str(each['loc'][-1]))}: {reason}" if each["loc"] else reason)
    return "; ".join(lines)


def without_bounds(model: type[BaseModel], described: type[BaseModel]) -> type[BaseModel]:
    """Return Dagster's model of YAML attributes without bounds: they apply to the value of a template, not to its text.

    Descriptions, which Dagster's model lacks, are those of the class `described`.
    """
    fields: dict[str, Any] = {
        name: (
            _without_metadata(field.annotation),
            Field(default=field.default, description=described.model_fields[name].description),
        )
        for name, field in model.model_fields.items()
    }
    return create_model(model.__name__, __base__=dg.Model, **fields)


def _without_metadata(annotation: Any) -> Any:
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _without_metadata(arguments[0])
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    # Dagster allows a text in place of everything. In place of a mapping, it would only make errors longer.
    models = [each for each in arguments if isinstance(each, type) and issubclass(each, BaseModel)]
    return models[0] if models else Union[tuple(map(_without_metadata, arguments))]  # noqa: UP007 - computed
