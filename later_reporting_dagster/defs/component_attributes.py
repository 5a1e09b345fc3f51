"""How the component's attributes are read from YAML."""

import re
from typing import Any

import dagster as dg

# A value that is nothing but an environment variable.
_ENVIRONMENT_VARIABLE = re.compile(r"\{\{\s*env\.(\w+)\s*\}\}")


def text(description: str | None) -> dg.Resolver:
    """Return the resolver of a text.

    `{{ env.NAME }}` becomes an `EnvVar`: the value is read when a run starts, not when the definitions load, and the UI
    shows only the name of the variable.
    """
    return dg.Resolver(_resolve_text, model_field_type=str, description=description, inject_before_resolve=False)


def names(description: str | None) -> dg.Resolver:
    """Return the resolver of several names: a list, or a text that separates them by commas."""
    return dg.Resolver(
        _resolve_names, model_field_type=list[str] | str, description=description, inject_before_resolve=False
    )


def options(description: str | None) -> dg.Resolver:
    """Return the resolver of a mapping with options. `{{ env.NAME }}` becomes a reference to the variable."""
    return dg.Resolver(
        _resolve_options, model_field_type=dict[str, Any], description=description, inject_before_resolve=False
    )


def plain(description: str | None, type_: type) -> dg.Resolver:
    """Return the resolver of a value of a type."""
    resolver: dg.Resolver = dg.Resolver.default(model_field_type=type_, description=description)
    return resolver


def _resolve_text(context: dg.ResolutionContext, value: Any) -> Any:
    variable = _environment_variable(value)
    return dg.EnvVar(variable) if variable else context.resolve_value(value)


def _resolve_names(context: dg.ResolutionContext, value: Any) -> Any:
    resolved = _resolve_text(context, value)
    return ",".join(map(str, resolved)) if isinstance(resolved, list) else resolved


def _resolve_options(context: dg.ResolutionContext, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _resolve_options(context, each) for name, each in value.items()}
    variable = _environment_variable(value)
    return {"env": variable} if variable else context.resolve_value(value)


def _environment_variable(value: Any) -> str | None:
    """Return the name of the environment variable that a value is nothing but a template of; else None."""
    match = _ENVIRONMENT_VARIABLE.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match else None
