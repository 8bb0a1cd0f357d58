"""`safevlm steer show`."""

from __future__ import annotations

import json as json_module


def steer_show(folder: str, *, json: bool = False) -> int:
    """Show a steering direction: its model, axis and layers, and how well each layer separates.

    Args:
        folder: folder of the direction.
        json: print JSON: {axis, model_type, rank, layers, separation, ...}.
    """
    from safevlm import terminal
    from safevlm.steering import Direction

    direction = Direction.load(folder)
    print(json_module.dumps(direction.to_dict(), indent=2)) if json else terminal.show_direction(direction)
    return 0
