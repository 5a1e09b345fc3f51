"""What is measured: a box of days × instances, landed by one of several means, each in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Days, both inclusive, × instances of a sandbox."""

    start: date
    end: date
    instance_ids: tuple[str, ...]

    @property
    def credentials(self) -> Mapping[str, str]:
        """Those of the sandbox."""
        return {"clientId": "sandbox-client", "clientSecret": "sandbox-secret"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What landing a box took; requests include the token's."""

    requests: int
    rows: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_megabytes: float = 0.0
