"""`safevlm demo`."""

from __future__ import annotations

from pathlib import Path


def demo(*, out: str = "demo", images: int = 48, seed: int = 0) -> int:
    """Render images, scan them, answer with and without the guard, and write a page to open.

    Args:
        out: folder for the images, the scan and index.html; an earlier demo there is replaced.
        images: how many to render.
        seed: of the pictures.
    """
    from safevlm import terminal
    from safevlm.demo import run_demo

    with terminal.scan_progress() as advance:
        result = run_demo(Path(out), images=images, seed=seed, on_progress=advance)
    terminal.show_demo(result)
    return 0
