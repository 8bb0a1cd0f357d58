"""`safevlm scan`."""

from __future__ import annotations

from pathlib import Path

from .options import MINI, read_policy


def scan(
    folder: str,
    *,
    out: str,
    model: str = MINI,
    backbone: str | None = None,
    policy: str | None = None,
    batch_size: int = 32,
    workers: int = 2,
    limit: int | None = None,
    fresh: bool = False,
    device: str = "cpu",
) -> int:
    """Score every image below a folder: Parquet rows, a summary, and a table at the end.

    Args:
        folder: searched with all its subfolders.
        out: folder for rows/ and summary.json; must be new or empty.
        model: embedded name, folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone, in place of what the model says.
        policy: YAML file with thresholds and actions.
        batch_size: images per pass of the vision tower.
        workers: threads that decode images.
        limit: scan only the first so many images.
        fresh: replace an earlier scan in `out`.
        device: torch device, such as cpu or cuda:0.

    Exit code 1 where no image could be scored.
    """
    from safevlm import terminal
    from safevlm.data import FolderSource
    from safevlm.scan import scan as run_scan
    from safevlm.scorer import RiskScorer

    source = FolderSource(folder)
    scorer = RiskScorer.from_pretrained(
        model, backbone=backbone, device=device, policy=read_policy(policy, model)
    )
    with terminal.scan_progress() as advance:
        summary = run_scan(
            source,
            scorer,
            Path(out),
            batch_size=batch_size,
            workers=workers,
            limit=limit,
            on_progress=advance,
            fresh=fresh,
        )
    terminal.show_summary(summary, Path(out))
    return int(summary.statuses.get("ok", 0) == 0)
