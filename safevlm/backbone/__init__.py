"""The only room that knows a Hugging Face or timm model."""

from .families import FAMILIES, Family, TowerInputs, family_of
from .fingerprint import same_weights
from .freeze import freeze
from .load import (
    Backbone,
    HubOptions,
    load_backbone,
    load_model_type,
    load_prompt_table,
    load_tower,
    quiet,
    stop_when,
    text_streamer,
    wrap_backbone,
)
from .placeholders import fill_placeholders
from .prompt_table import PromptTable
from .prompts import IGNORED, Inputs, encode, last_user_text, make_chat, with_hint
from .tower import TowerPass, VisionTower
from .views import WHOLE, Box, Grid, Views

__all__ = [
    "FAMILIES",
    "IGNORED",
    "WHOLE",
    "Backbone",
    "Box",
    "Family",
    "Grid",
    "HubOptions",
    "Inputs",
    "PromptTable",
    "TowerInputs",
    "TowerPass",
    "Views",
    "VisionTower",
    "encode",
    "family_of",
    "fill_placeholders",
    "freeze",
    "last_user_text",
    "load_backbone",
    "load_model_type",
    "load_prompt_table",
    "load_tower",
    "make_chat",
    "quiet",
    "same_weights",
    "stop_when",
    "text_streamer",
    "with_hint",
    "wrap_backbone",
]
