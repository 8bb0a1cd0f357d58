"""The flags of `safevlm train`: its help shows the stage's own, or those of Lightning's trainer, where they are asked for."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

LIGHTNINGS = ("trainer", "optimizer", "lr_scheduler")
"""First words of the flags that are Lightning's."""
HELP_TRAINER = ("--help-trainer", "--help_trainer")


class StageParser(LightningArgumentParser):
    """Shows the stage's own flags."""

    of_lightning = False
    _action_groups: Any

    def format_help(self, *given: Any) -> str:
        """The help of some of the flags; all of them are parsed."""
        groups = self._action_groups
        self._action_groups = [
            group
            for group in groups
            if any(action.dest.split(".")[0] in LIGHTNINGS for action in group._group_actions)
            is self.of_lightning
        ]
        try:
            return str(super().format_help(*given))
        finally:
            self._action_groups = groups


class TrainerParser(StageParser):
    """Shows the flags of Lightning's trainer."""

    of_lightning = True
