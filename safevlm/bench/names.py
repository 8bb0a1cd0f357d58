"""Names of quantities and variants in the table."""

from __future__ import annotations

SCORING = "scoring"
BARE_TOWER = "bare tower, all layers"
PLAIN = "tower + modules, plain"
FOLDED = "tower + modules, folded"

TENSORS = "bare tower on tensors in memory"
FROM_FILES = "scan, JPEG files to scores"

WHOLE_SCAN = "whole scan"
START_UP = "start of a finished scan"
FINISHED = "finished scan"

FIRST_TOKEN = "time to first token"
DECODING = "decoding"
BARE_BACKBONE = "bare backbone"
EIGHT = "guard, 8 safety tokens"
SIXTY_FOUR = "guard, 64 safety tokens"

HEAD_TRAINING = "epoch of head training"
COMPUTED = "features computed"
CACHED = "features cached"

VERDICTS = "verdicts"
GENERATIVE = "generative guard"
OURS = "our scorer"
