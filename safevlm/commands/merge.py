"""`safevlm merge`."""

from __future__ import annotations

from pathlib import Path


def merge(scans: list[str], *, out: str) -> int:
    """Merge scans of different parts of a source, such as scans from several machines.

    Args:
        scans: folders of finished scans with the same model, policy and options.
        out: new folder for the merged scan.

    Returns exit code 1 if a shard was not read to its end or no image was scored.
    """
    from safevlm import terminal
    from safevlm.scan import merge as run_merge
    from safevlm.scan import write_report

    summary = run_merge(scans, out)
    terminal.show_summary(summary, Path(out), write_report(out, summary))
    return int(not summary.complete)
