"""`safevlm export`."""

from __future__ import annotations

from safevlm.printable import printable


def export(
    folder: str, *, out: str, keep: str = "safe", threshold: float | None = None, format: str = "parquet"
) -> int:
    """Write which images or samples of a scan are safe, unsafe, undecided or errors; the source stays as it is.

    Args:
        folder: of the scan.
        out: file to write.
        keep: safe, unsafe, undecided, error, or several with commas between them.
        threshold: least score that is unsafe, in place of the policy's verdict.
        format: parquet or jsonl (a row per image), txt (ids of whole samples), or view (for datasets and webdataset).

    Exit code 1 where there is nothing to keep.
    """
    from safevlm.scan import export as run_export

    kinds = [kind.strip() for kind in keep.split(",")]
    written = run_export(folder, out, keep=kinds, threshold=threshold, form=format)
    print(f"{written} {'samples' if format in ('txt', 'view') else 'images'} in {printable(out)}")
    return 0
