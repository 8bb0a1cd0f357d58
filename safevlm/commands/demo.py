"""`safevlm demo`."""

from __future__ import annotations

from pathlib import Path


def demo(*, out: str = "demo", images: int = 48, seed: int = 0) -> int:
    """Render images, scan them, answer with and without the guard, and write an HTML page.

    Args:
        out: folder for the images, the scan and index.html; an earlier demo in it is replaced.
        images: number of images to render.
        seed: random seed of the images.
    """
    from safevlm import terminal
    from safevlm.demo import run_demo
    from safevlm.progress import scan_progress

    with scan_progress() as advance:
        result = run_demo(Path(out), images=images, seed=seed, on_progress=advance)
    terminal.show_demo(result)
    return 0
