"""`safevlm export`."""

from __future__ import annotations

from safevlm.printable import printable


def export(
    folder: str, *, out: str, keep: str = "safe", threshold: float | None = None, format: str = "parquet"
) -> int:
    """Write a list of the images or samples of a scan that are safe, unsafe, undecided or errors.

    Args:
        folder: folder of the scan.
        out: file to write.
        keep: what to list, separated by commas: safe, unsafe, undecided, error.
        threshold: scores from this on count as unsafe, in place of the policy's verdict.
        format: parquet or jsonl (one row per image), txt (ids of samples), or view (a filter for data loaders).

    Returns exit code 1 if nothing is to be listed.
    """
    from safevlm.scan import export as run_export

    kinds = [kind.strip() for kind in keep.split(",")]
    written = run_export(folder, out, keep=kinds, threshold=threshold, form=format)
    print(f"{written} {'samples' if format in ('txt', 'view') else 'images'} in {printable(out)}")
    return 0
