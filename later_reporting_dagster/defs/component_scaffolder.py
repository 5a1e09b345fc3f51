"""The scaffolder: what `dg scaffold defs later_reporting_dagster.LaterReportingComponent <name>` writes."""

from typing import Any

import dagster as dg
from pydantic import BaseModel, Field

from later_reporting_dagster.defs.settings import DefinitionSettings


class ScaffoldParameters(BaseModel):
    """Options of the command."""

    start_date: str = Field(default=str(DefinitionSettings().start_date), description="First partition, YYYY-MM-DD.")
    demo_mode: bool = Field(default=False, description="Use the sandbox in place of the API, without credentials.")


class LaterReportingScaffolder(dg.Scaffolder[ScaffoldParameters]):
    """Writes a `defs.yaml` that reads credentials and the lake's root from the environment."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParameters]:
        """Return the class of the command's options."""
        return ScaffoldParameters

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParameters]) -> None:
        """Write the file."""
        attributes: dict[str, Any] = {"name": request.target_path.name, "start_date": request.params.start_date}
        attributes["resource"] = (
            {"demo_mode": True}
            if request.params.demo_mode
            else {
                "client_id": "{{ env.LATER_CLIENT_ID }}",
                "client_secret": "{{ env.LATER_CLIENT_SECRET }}",
                "lake_root": "{{ env.LATER_LAKE_ROOT }}",
            }
        )
        dg.scaffold_component(request, attributes)
