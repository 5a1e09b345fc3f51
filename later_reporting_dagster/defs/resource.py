"""The resource: settings for the API client and the lake; and how settings are read from variables and YAML.

A reference to an environment variable is an `EnvVar`; a text with `{{ env.NAME }}` or `{{ env('NAME') }}` in it; or
`{"env": "NAME"}`, which is how Dagster stores an `EnvVar`. References become values when a run starts.
"""

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, Union

import dagster as dg
import msgspec
from dagster.components.resolved.errors import ResolutionException
from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    create_model,
    field_validator,
)
from pydantic_core import ErrorDetails

from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    ClientEvent,
    InconsistentPages,
    LaterClient,
    ListResult,
    QueryRejected,
    RateLimiter,
    RetriesExhausted,
    RetryPolicy,
    UnexpectedResponse,
)
from later_reporting_dagster.client.auth import validate_base_url
from later_reporting_dagster.client.rate_limiter import rate_limit_path
from later_reporting_dagster.contract import API_VERSIONS, CURSOR, PAGED, ApiVersion
from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.dagster_private import variable_of
from later_reporting_dagster.ingest.decide import WriteLimits
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.lake import Lake, encode_instance_id
from later_reporting_dagster.server.sandbox import SandboxOptions, demo_sandbox

DEFAULT_NAME = "later"
_REFERENCE = re.compile(r"""\{\{\s*env(?:\.(\w+)|\(\s*["'](\w+)["']\s*\))\s*\}\}""")
_TEMPLATE = re.compile(r"\{\{|\{%")
NAMES_IN_YAML = dg.Resolver.default(model_field_type=list[str] | str)
# Dagster's mark of a secret.
_SECRET: dict[str, Any] = {"dagster__is_secret": True}
_SECRET_OPTION = re.compile(
    r"secret|token|password|passphrase|account_key|private_key|sas|connection_string|credential"
)
# What gcsfs accepts as `token` besides a key.
_TOKEN_WORDS = ("anon", "browser", "cache", "cloud", "google_default")
_Item = TypeVar("_Item")
_Function = TypeVar("_Function", bound=Callable[..., Any])

# Settings whose name was given up, with the new one. They are refused, because one that is ignored would silently have
# its default.
RENAMED = {
    "restate_days": "lookback_days",
    "widen_days": "padding_days",
    "shrink_limit_percent": "max_row_loss_percent",
    "bad_rows_limit_percent": "max_bad_rows_percent",
}
REQUESTS_PER_MINUTE = 120  # docs/api.md, "Rate limit"
DEFAULT_BASE_URL = "https://reporting.api.later.com"
# A verification fetch repeats all requests of a query. The totals of the paged API version reveal every change but one:
# a post that replaces another between two pages (docs/reliability.md).
_DEFAULT_VERIFY_PERCENT: dict[ApiVersion, int] = {PAGED: 0, CURSOR: 1}


def _secret(description: str, default: Any = "") -> Any:
    """Return a field that in YAML has to be a reference to an environment variable."""
    return Field(default=default, description=description, repr=False, json_schema_extra=_SECRET)


def _percent(description: str, default: int | None) -> Any:
    return Field(default=default, ge=0, le=100, description=description)


class InvalidSetting(dg.Failure, ValueError):  # noqa: N818 - a Dagster failure
    """A setting is missing or invalid. The message names its environment variable and its field, and the fix.

    In a run it is a failure that is not retried, because a retry would fail the same way.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, allow_retries=False)


class LaterReportingResource(dg.ConfigurableResource, dg.Resolvable):  # type: ignore[type-arg]
    """Later's Reporting API, and the lake that its posts are written to.

    Each field can be an `EnvVar`, or a text with `{{ env.NAME }}`, which is replaced when a run starts. No field can be
    set in run config: who may start runs could have the credentials sent to another host. All methods raise
    `InvalidSetting` if a setting that they need is missing or invalid.

    Example:
        >>> later = LaterReportingResource(instance_ids="acme, globex", lake_root="/data/later")
        >>> later.configured_instances()
        ('acme', 'globex')
    """

    base_url: str = Field(
        default=DEFAULT_BASE_URL, description="URL of the API. http is allowed for this machine only."
    )
    client_id: str = Field(default="", description="Client id of the API credentials.", repr=False)
    client_secret: str = _secret("Client secret of the API credentials.")
    access_token: str = _secret("A bearer token to use instead of client id and secret.")
    instance_ids: Annotated[str, NAMES_IN_YAML] = Field(
        default="", description="Instances to fetch, comma-separated. Empty: all that the API lists."
    )
    instance_labels: Annotated[str, NAMES_IN_YAML] = Field(
        default="",
        description="Names of instances for people, `id=name`, comma-separated: the API lists ids only. The report"
        " shows them when it is written next, and the view of instances in `later-reporting query` at once.",
    )
    lake_root: str = Field(default="", description="Directory, or URL of an object store, of the lake.", repr=False)
    storage_options: dict[str, Any] = _secret(
        "Options of the fsspec filesystem of the lake, such as endpoint and credentials.", default={}
    )
    requests_per_minute: int = Field(
        default=REQUESTS_PER_MINUTE,
        ge=1,
        le=1_000_000,
        description="Maximum requests per minute, of all processes of this user on this machine.",
    )
    api_version: str = Field(
        default="auto",
        pattern=rf"^(auto|{'|'.join(API_VERSIONS)})$",
        description="API version: paged, cursor, or auto to detect it.",
    )
    verify_percent: int | None = _percent(
        "Percentage of queries to fetch twice, to verify that both return the same rows; in the paged API version,"
        " those of several pages. Default: 1 by cursor, 0 by page.",
        default=None,
    )
    max_row_loss_percent: int = _percent(
        "Percentage of a file's posts that a new fetch may remove before it fails. 100: no limit, and a"
        " fetch may also remove all values of a file's metrics.",
        default=50,
    )
    max_bad_rows_percent: int = _percent(
        "Percentage of a file's rows that may be bad before it fails. 100: only quarantine them.", default=100
    )
    padding_days: int = Field(
        default=0,
        ge=0,
        le=1,
        description="By how many days each range of posts_published is asked wider on each side: 1 if the days of the"
        " account are not those of UTC.",
    )
    store_creator_profiles: bool = Field(
        default=True,
        description="Whether to store names, handles, pictures and links of creators, URLs of posts, and"
        " fields that the API reference does not name.",
    )
    memory_gb: float = Field(
        default=2.0,
        gt=0.25,  # the interpreter and its libraries alone use this much
        allow_inf_nan=False,
        description="Memory limit in GB for a rollup or the report. What exceeds it is spilled to disk.",
    )
    demo_mode: bool = Field(
        default=False, description="Use the sandbox with synthetic data in place of the API, without credentials."
    )

    # What has been fetched with this resource so far. Whoever runs assets in its own process can follow it.
    _fetches: list[Progress] = PrivateAttr(default_factory=list)
    # The list of instances that a command has fetched for all of its runs, or None in it if it is not known.
    _remembered_lists: list[frozenset[str] | None] = PrivateAttr(default_factory=list)
    _until_end_of_run: list[Generator[Any]] = PrivateAttr(default_factory=list)

    @property
    def fetches(self) -> list[Progress]:
        """The progress of each fetch with this resource, also of those that have not ended."""
        return self._fetches

    def __init__(self, **values: Any) -> None:
        for name in values.keys() & RENAMED:  # Dagster ignores arguments that are no field
            raise InvalidSetting(f"{setting_name(name)}: {_renamed(name)}")
        if (variable := variable_name(values.get("storage_options"))) is not None:
            values["storage_options"] = {"env": variable}  # a mapping, as Dagster expects
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidSetting(describe_invalid(error)) from None

    @field_validator("*", mode="wrap")
    @classmethod
    def _check_value(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        """Check the value of an environment variable when a run starts, and now if it is set.

        `EnvVar` itself is the name of the variable, and `EnvVar.int` is 0.
        """
        if not (variable_of(value) or _is_reference(value)):
            return check(value)
        if text := os.environ.get(variable_name(value) or ""):
            check(text)
        return value

    @classmethod
    def from_environment(cls) -> Self:
        """Return the resource with every set environment variable: `LATER_CLIENT_ID` for `client_id`.

        No variable is required. They are read when a run starts, except those of fractions and booleans, for which
        Dagster has no `EnvVar`.
        """
        return cls(
            **{
                name: text if _is_read_early(cls, name) else dg.EnvVar(f"LATER_{name.upper()}")
                for name, text in environment_texts(cls.model_fields).items()
            }
        )

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of the attributes in YAML."""
        return yaml_model(super().model(), cls)

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        """Return the resource with the attributes in YAML. A credential that is written out is refused."""
        values: dict[str, Any] = {}
        try:
            for name, value in model.model_dump(exclude_unset=True).items():
                if cls.model_fields[name].json_schema_extra == _SECRET:
                    _check_secret(name, value)
                value = ",".join(map(str, value)) if isinstance(value, list) else value
                inner = context.at_path(name)
                values[name] = inner.resolve_value(value) if _is_read_early(cls, name) else _from_yaml(value, inner)
            return cls(**values)
        except InvalidSetting as error:
            raise ResolutionException(str(error)) from None

    @cached_property
    def _definition(self) -> dg.ResourceDefinition:
        @named_as(type(self))
        def use(_context: dg.InitResourceContext) -> Iterator[LaterReportingResource]:
            resource = self.resolved()
            try:
                yield resource
            finally:
                for items in resource._until_end_of_run:  # noqa: SLF001 - of the same class
                    items.close()

        return dg.ResourceDefinition(use, config_schema={}, description=described_settings(self))

    def until_end_of_run(self, items: Generator[_Item]) -> Generator[_Item]:
        """Return a generator that is closed when the run ends, at the latest.

        An interrupt that arrives while Dagster writes an event is raised outside of the asset: it leaves the generators
        of the asset suspended.
        """
        self._until_end_of_run.append(items)
        return items

    def get_resource_definition(self) -> dg.ResourceDefinition:  # type: ignore[override]
        """Return the definition that Dagster uses: without config, so the values are in no snapshot of a job."""
        return self._definition

    def resolved(self) -> Self:
        """Return the resource with the values of environment variables, as a step receives it."""
        unused = {"base_url", "client_id", "client_secret", "access_token"} if self.demo_mode else set()
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name in sorted(self.model_fields_set - unused):
            try:
                with _invalid_setting(name):
                    values[name] = _resolved(getattr(self, name))
                    if name == "storage_options" and isinstance(values[name], str):  # one variable has all of them
                        values[name] = _resolved(_json_object(values[name]))
            except InvalidSetting as error:
                problems.append(str(error))
        if problems:
            raise InvalidSetting("; ".join(problems))
        resource = type(self)(**values)
        resource._fetches = self._fetches  # noqa: SLF001 - of the same class
        resource._remembered_lists = self._remembered_lists  # noqa: SLF001
        return resource

    def credentials(self) -> ClientCredentials | AccessToken:
        """Return the access token if one is set, else client id and secret; in demo mode those of the sandbox."""
        if self.demo_mode:
            sandbox = SandboxOptions()
            return ClientCredentials(client_id=sandbox.client_id, client_secret=sandbox.client_secret)
        if self.access_token:
            with _invalid_setting("access_token"):
                return AccessToken(self.access_token)
        if not (self.client_id and self.client_secret):
            empty = "LATER_CLIENT_SECRET" if self.client_id else "LATER_CLIENT_ID" if self.client_secret else None
            raise InvalidSetting(
                "no credentials: set LATER_CLIENT_ID and LATER_CLIENT_SECRET, or LATER_ACCESS_TOKEN"
                + (f" ({empty} is empty)" if empty else "")
            )
        with _invalid_setting("client_id", "client_secret"):
            return ClientCredentials(client_id=self.client_id, client_secret=self.client_secret)

    def client(
        self,
        *,
        on_event: Callable[[ClientEvent], None] | None = None,
        retry: RetryPolicy | None = None,
        max_requests: int | None = None,
    ) -> LaterClient:
        """Return a client that shares its rate limit with all processes of this user on this machine."""
        with _invalid_setting("base_url"):
            base_url = validate_base_url(self.api_url())
        # The sandbox of the demo mode has another port in every process, and no limit to share.
        path = None if self.demo_mode else rate_limit_path(base_url)
        percents = _DEFAULT_VERIFY_PERCENT
        if self.verify_percent is not None:
            percents = dict.fromkeys(percents, self.verify_percent)
        return LaterClient(
            base_url=base_url,
            credentials=self.credentials(),
            limiter=RateLimiter(requests=1_000_000 if self.demo_mode else self.requests_per_minute, path=path),
            api_version=self.selected_api_version(),
            verification_rates={version: percent / 100 for version, percent in percents.items()},
            personal_data=self.store_creator_profiles,
            on_event=on_event,
            retry=retry or RetryPolicy(),
            max_requests=max_requests,
        )

    def api_url(self) -> str:
        """Return the URL of the API; in demo mode that of the sandbox, which is started if necessary."""
        if not self.demo_mode:
            return self.base_url
        return demo_sandbox(newest_day(datetime.now(UTC)), self.selected_api_version() or PAGED)

    def selected_api_version(self) -> ApiVersion | None:
        """Return the configured API version; None to detect it."""
        return API_VERSIONS.get(self.api_version)

    @property
    def root(self) -> str:
        """`lake_root`; in demo mode, if it is not set, a folder in the working directory."""
        return self.lake_root or (default_lake_root() if self.demo_mode else "")

    def lake(self) -> Lake:
        """Return the lake under `lake_root`."""
        root = self.root
        with _invalid_setting("lake_root"):
            # It would silently become a local folder with a strange name.
            if root.strip() and (root != root.strip() or any(character < " " for character in root)):
                raise ValueError("remove line breaks, other control characters, and spaces at its start and end")
            if re.match(r"(?!file:|local:)[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", root):
                raise ValueError("a URL has two slashes after its scheme, as in s3://bucket/lake")
            return Lake(root, storage_options=self.storage_options)

    def write_limits(self, *, allow_row_loss: bool = False) -> WriteLimits:
        """Return the limits beyond which a response replaces no file."""
        return WriteLimits(
            max_row_loss_percent=100 if allow_row_loss else self.max_row_loss_percent,
            max_bad_rows_percent=self.max_bad_rows_percent,
        )

    def configured_instances(self) -> tuple[str, ...]:
        """Return the instances named in `instance_ids`, without duplicates; empty to fetch all instances."""
        with _invalid_setting("instance_ids"):
            if secret := self.secret_among(split_names(self.instance_ids)):
                raise ValueError(f"a name is the value of {secret}")
            return parse_instance_ids(self.instance_ids) if self.instance_ids else ()

    def secret_among(self, texts: Iterable[str]) -> str | None:
        """Return the setting with a secret that is one of some texts, which must not be printed then."""
        secrets = {
            "client_secret": {self.client_secret},
            "access_token": {self.access_token},
            "storage_options": _secret_options(self.storage_options),
        }
        given = {*texts} - {""}
        return next((setting_name(name) for name, values in secrets.items() if not given.isdisjoint(values)), None)

    def labels(self) -> Mapping[str, str]:
        """Return the names in `instance_labels`, by instance."""
        with _invalid_setting("instance_labels"):
            return parse_instance_labels(self.instance_labels)

    @property
    def remembered_list(self) -> frozenset[str] | None:
        """The instances that the API listed when the command began; None if that is not known."""
        return self._remembered_lists[0] if self._remembered_lists else None

    async def remember_list(self, client: LaterClient, progress: Progress | None = None) -> None:
        """Fetch the list for all runs of this process. Only a command does so: other processes may live for days."""
        self._remembered_lists.clear()
        self._remembered_lists.append(await self.fetch_list(client, progress))

    async def fetch_list(self, client: LaterClient, progress: Progress | None = None) -> frozenset[str] | None:
        """Return the instances that the API lists, by one request per 100, unless the list is remembered.

        None, with a warning, if the API does not tell and LATER_INSTANCE_IDS does without it.
        """
        if self._remembered_lists:
            return self._remembered_lists[0]
        try:
            return frozenset(await client.fetch_instances())
        except (QueryRejected, UnexpectedResponse, RetriesExhausted, InconsistentPages) as error:
            if not self.configured_instances():
                raise
            if progress is not None:
                progress.warn(f"Which instances the API lists is not known: {error.reason}")
            return None

    async def listed_instances(self, *, on_event: Callable[[ClientEvent], None] | None = None) -> frozenset[str] | None:
        """Return the instances that the API lists, as `fetch_list` does, with a client of its own."""
        if self._remembered_lists:
            return self._remembered_lists[0]
        async with self.client(on_event=on_event) as client:
            return await self.fetch_list(client)

    async def fetch_campaigns(
        self, instance_ids: tuple[str, ...], *, on_event: Callable[[ClientEvent], None] | None = None
    ) -> ListResult:
        """Fetch the campaigns of some instances, or of all if there are none; one request per 100 campaigns."""
        async with self.client(on_event=on_event) as client:
            return await client.fetch_campaigns(instance_ids)


def parse_instance_ids(text: str) -> tuple[str, ...]:
    """Return comma-separated instance ids, without duplicates, checked to be usable as partitions."""
    instance_ids = tuple(dict.fromkeys(split_names(text)))
    if not instance_ids:
        raise ValueError(f"{text!r} names no instance: omit it to fetch all")
    for instance_id in instance_ids:
        encode_instance_id(instance_id)
    return instance_ids


def parse_instance_labels(text: str) -> dict[str, str]:
    """Return the names of comma-separated `id=name`, by id."""
    labels = {}
    for pair in split_names(text):
        instance_id, _, label = (part.strip() for part in pair.partition("="))
        if not (instance_id and label):
            raise ValueError(f"{pair!r} is not id=name, as in instance_abc=Acme")
        labels[instance_id] = label
    return labels


def split_names(names: str | Iterable[object]) -> tuple[str, ...]:
    """Return comma-separated names, or those of a list in YAML, without spaces around them."""
    items = names.split(",") if isinstance(names, str) else map(str, names)
    return tuple(name for item in items if (name := item.strip()))


def default_lake_root(name: str = DEFAULT_NAME) -> str:
    """Return the lake's root of the demo mode if none is set: `<name>-lake` in the working directory."""
    return str(Path.cwd() / f"{name}-lake")


# Settings in variables and YAML


def environment_texts(fields: Iterable[str]) -> dict[str, str]:
    """Return the values of those settings whose environment variable is set and not empty.

    Raises:
        InvalidSetting: a variable has a name that was given up.
    """
    if renamed := [f"{setting_name(old)}: {_renamed(old)}" for old in RENAMED if f"LATER_{old.upper()}" in os.environ]:
        raise InvalidSetting("; ".join(renamed))
    return {field: text for field in fields if (text := os.environ.get(f"LATER_{field.upper()}"))}


def named_as(described: type) -> Callable[[_Function], _Function]:
    """Name a function after a class, which the UI then shows as the type of its resource."""

    def named(function: _Function) -> _Function:
        function.__name__, function.__module__ = described.__name__, described.__module__
        return function

    return named


def described_settings(resource: BaseModel) -> str:
    """Return the description of a resource for the UI: where the value of each field comes from, but no value."""
    lines = [(type(resource).__doc__ or "").partition("\n\n")[0].strip(), "", "| field | from |", "| --- | --- |"]
    for name in type(resource).model_fields:
        if name in resource.model_fields_set:
            variables = " and ".join(f"`{variable}`" for variable in _variables_in(getattr(resource, name)))
            lines.append(f"| `{name}` | {variables or 'the definitions'} |")
    others = [f"`{name}`" for name in type(resource).model_fields if name not in resource.model_fields_set]
    return "\n".join([*lines, "", f"Defaults: {', '.join(others)}" if others else ""])


def _variables_in(value: object) -> Iterator[str]:
    """Yield the names of the environment variables that a value has references to."""
    if (name := variable_name(value)) is not None:
        yield name
    elif isinstance(value, str):
        yield from (match[1] or match[2] for match in _REFERENCE.finditer(value))
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _variables_in(each)


def variable_name(value: object) -> str | None:
    """Return the name of the environment variable that a value stands for; None if it does not stand for one."""
    if (name := variable_of(value)) is not None:
        return name
    if isinstance(value, Mapping) and value.keys() == {"env"} and isinstance(value["env"], str):
        return value["env"]
    return None


def _is_read_early(resource: type[BaseModel], name: str) -> bool:
    return resource.model_fields[name].annotation in (float, bool)


def _is_reference(value: object) -> bool:
    """Return whether a text of YAML has references to environment variables, and no other templates."""
    without = _REFERENCE.sub("", value) if isinstance(value, str) else value
    return without != value and not _TEMPLATE.search(str(without))


def _from_yaml(value: Any, context: dg.ResolutionContext) -> Any:
    """Return a value of YAML: references to environment variables stay what they are, other templates are resolved."""
    if isinstance(value, dict):
        return {key: _from_yaml(each, context.at_path(key)) for key, each in value.items()}
    if not _is_reference(value):
        # Dagster would make a number of a text with digits, such as a client id.
        return context.resolve_value(value) if _TEMPLATE.search(str(value)) else value
    match = _REFERENCE.fullmatch(value)
    return dg.EnvVar(match[1] or match[2]) if match else value


def _resolved(value: Any) -> Any:
    """Return a value with those of environment variables in place of the references to them."""
    if (name := variable_name(value)) is not None:
        return _value_of(name)
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _value_of(match[1] or match[2]), value)
    if isinstance(value, Mapping):
        return {key: _resolved(each) for key, each in value.items()}
    return [_resolved(each) for each in value] if isinstance(value, list) else value


def _json_object(text: str) -> Any:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:  # whose message has the value
        raise ValueError('it must be a JSON object, such as {"endpoint_url": "https://example.com"}') from None


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
        reason = reason_of(each)
        lines.append(f"{setting_name(str(each['loc'][-1]))}: {reason}" if each["loc"] else reason)
    return "; ".join(lines)


def reason_of(error: ErrorDetails) -> str:
    """Return why a setting is invalid, without its value."""
    raised = error.get("ctx", {}).get("error")
    name = str(error["loc"][-1]) if error["loc"] else ""
    return _renamed(name) if name in RENAMED else str(raised) if isinstance(raised, ValueError) else error["msg"]


def _renamed(name: str) -> str:
    return f"it is {setting_name(RENAMED[name])} now: rename it"


def yaml_model(model: type[BaseModel], described: type[BaseModel], **options: Any) -> type[BaseModel]:
    """Return Dagster's model of YAML attributes with descriptions, which it lacks, and without bounds.

    Bounds apply to the value of a template, not to its text.
    """
    fields: dict[str, Any] = {}
    for name, derived in model.model_fields.items():
        field = described.model_fields[name]
        resolver = next((each for each in field.metadata if isinstance(each, dg.Resolver)), None)
        kind: Any = Union[field.annotation, str] if field.metadata else derived.annotation  # noqa: UP007 - computed
        # Dagster adds a text to each, which makes errors about a mapping longer.
        if resolver and resolver.model_field_type:
            kind = resolver.model_field_type
        elif isinstance(field.annotation, type) and issubclass(field.annotation, dg.Resolvable):
            kind = field.annotation.model()
        fields[name] = (kind, Field(default=derived.default, description=field.description))
    return create_model(model.__name__, __base__=dg.Model, **fields, **options)


@contextmanager
def _invalid_setting(*fields: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InvalidSetting(f"{', '.join(map(setting_name, fields))}: {error}") from None


def _secret_options(options: Mapping[str, Any]) -> set[str]:
    """Return the texts of options that are secret by their names, also of nested ones."""
    found = set[str]()
    for name, value in options.items():
        if isinstance(value, dict):
            found |= _secret_options(value)
        elif isinstance(value, str) and _SECRET_OPTION.search(name.lower()) and value not in _TOKEN_WORDS:
            found.add(value)
    return found


def _check_secret(name: str, value: Any) -> None:
    """Refuse a credential in YAML that is not a reference to an environment variable, or a text with one in it."""
    if isinstance(value, dict):
        for option, each in value.items():
            if isinstance(each, dict) or (_SECRET_OPTION.search(option.lower()) and each not in _TOKEN_WORDS):
                _check_secret(f"{name}.{option}", each)
    elif not _is_reference(value):
        raise InvalidSetting(
            f'{setting_name(name)}: write it as "{{{{ env.NAME }}}}", or as a text with that in it, so that it is read'
            " from the environment when a run starts, and stored nowhere"
        )
