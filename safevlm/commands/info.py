"""`safevlm info`."""

from __future__ import annotations

import json as json_module


def info(*, json: bool = False) -> int:
    """Show versions, the device, and the embedded checkpoints with their hashes.

    Args:
        json: print JSON instead of a table.
    """
    from safevlm import terminal
    from safevlm.info import collect

    found = collect()
    print(json_module.dumps(found, indent=2)) if json else terminal.show_info(found)
    return 0
