"""`safevlm merge`."""

from __future__ import annotations

from pathlib import Path


def merge(scans: list[str], *, out: str) -> int:
    """Join scans of different parts of a source, run on several machines for example.

    Args:
        scans: folders of finished scans with the same model, policy and choices.
        out: new folder for all of them.

    Exit code 1 where a shard broke off or nothing was scored.
    """
    from safevlm import terminal
    from safevlm.scan import merge as run_merge
    from safevlm.scan import write_report

    summary = run_merge(scans, out)
    terminal.show_summary(summary, Path(out), write_report(out, summary))
    return int(not summary.complete)
