"""`safevlm export`."""

from __future__ import annotations

from safevlm.printable import printable


def export(
    folder: str,
    *,
    out: str,
    keep: str = "safe",
    threshold: float | None = None,
    format: str = "parquet",
    absolute: bool = False,
) -> int:
    """Write a list of the images or samples of a scan that are safe, unsafe, undecided or errors.

    Args:
        folder: folder of the scan.
        out: file to write.
        keep: what to list, separated by commas: safe, unsafe, undecided, error.
        threshold: scores from this on count as unsafe, in place of the policy's verdict.
        format: parquet, jsonl or csv (one row per image), txt (ids of samples), or view (a filter for data loaders).
        absolute: give the files of scanned folders by their absolute paths: in txt in place of ids, in the other formats
            in a column path.

    Returns exit code 1 if nothing is to be listed.
    """
    from safevlm.scan import export as run_export

    kinds = [kind.strip() for kind in keep.split(",")]
    written = run_export(folder, out, keep=kinds, threshold=threshold, form=format, absolute=absolute)
    print(f"{written} {'samples' if format in ('txt', 'view') else 'images'} in {printable(out)}")
    return 0
