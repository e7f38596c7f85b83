"""python scripts/make_dashboard.py --entity ME --project papo: a W&B view of training runs.

What it shows is papo/analysis/pages/dashboard.py. --dry-run FILE.json writes what would be sent and needs
no account. A new view is saved each time; what is there stays.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from papo.analysis.pages.dashboard import (
    DASHBOARD,
    X_AXIS,
    Curves,
    Gallery,
    LoggedTable,
    Note,
    Panel,
)
from papo.storage.files import write_atomically

VIEW_NAME = "PAPO"


def build_workspace(entity: str, project: str) -> Any:
    """Returns the dashboard as a workspace of wandb-workspaces; no account, no network.

    Raises:
        ValueError: the extra `dashboard` is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise ValueError(
            "the dashboard is built by wandb-workspaces, which is not installed. "
            "Install it with pip install -e '.[dashboard]'."
        ) from error
    return ws.Workspace(
        entity=entity,
        project=project,
        name=VIEW_NAME,
        sections=[
            ws.Section(
                name=section.name,
                panels=[_panel(panel) for panel in section.panels],
                is_open=section.is_open,
                panel_settings=ws.SectionPanelSettings(x_axis=X_AXIS),
            )
            for section in DASHBOARD
        ],
        settings=ws.WorkspaceSettings(x_axis=X_AXIS),
    )


def specification(workspace: Any) -> dict[str, Any]:
    """Returns what `workspace.save()` would send."""
    # The only way to see it without an account; wandb-workspaces has no public one.
    model = workspace._to_model()
    sent: dict[str, Any] = json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
    return sent


def _panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    match panel:
        case Curves():
            return wr.LinePlot(
                title=panel.title, x=X_AXIS, y=list(panel.metrics), log_y=panel.logarithmic
            )
        case Gallery():
            return wr.MediaBrowser(title=panel.title, media_keys=list(panel.media), mode="gallery")
        case LoggedTable():
            return wr.WeavePanelSummaryTable(table_name=panel.name)
        case Note():
            return wr.MarkdownPanel(markdown=panel.text)


def save(workspace: Any) -> str:
    """Saves the view and returns its address.

    Raises:
        ValueError: there is no account to save it with, or W&B refuses.
    """
    import requests
    import wandb

    try:
        workspace.save()
    except (wandb.Error, requests.RequestException) as error:
        raise ValueError(
            f"W&B did not save the view in {workspace.entity}/{workspace.project}: {error} It needs "
            "an account that may write there: run `wandb login` or set WANDB_API_KEY. Without one, "
            "--dry-run FILE.json writes what would be sent."
        ) from error
    return str(workspace.url)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entity", required=True, help="W&B user or team")
    parser.add_argument("--project", required=True, help="W&B project, as logger.wandb.project")
    parser.add_argument("--dry-run", type=Path, metavar="FILE.json", help="write it, send nothing")
    arguments = parser.parse_args()
    try:
        workspace = build_workspace(arguments.entity, arguments.project)
        if arguments.dry_run is not None:
            write_atomically(arguments.dry_run, json.dumps(specification(workspace), indent=2))
            print(f"wrote {arguments.dry_run}")
        else:
            print(f"saved {save(workspace)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
