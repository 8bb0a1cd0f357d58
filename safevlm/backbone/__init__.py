"""The only room that knows a Hugging Face or timm model."""

from .answers import answer_texts
from .chat_images import take_images
from .chats import image_parts, last_user_text, make_chat, with_hint, without_images
from .checkpointing import checkpointed_layers
from .families import FAMILIES, TOWERS, Family, TowerInputs, family_of
from .fingerprint import same_weights
from .freeze import freeze
from .hub import HubOptions
from .injection import injected
from .last_states import last_states
from .layer import Layer
from .lengths import PromptLengths
from .linears import language_linears
from .load_backbone import (
    Backbone,
    load_backbone,
    load_model_type,
    load_prompt_table,
    wrap_backbone,
)
from .load_timm import is_timm
from .load_tower import load_preprocessor, load_tower, wrap_tower
from .placeholders import fill_placeholders
from .placement import safety_dtype
from .plain import PlainModel, load_plain
from .preprocessor import Preprocessor
from .prompt_table import PromptTable
from .prompts import Inputs, encode
from .streaming import AnswerStreamer, restart_streamer, stop_when
from .tower import VisionTower
from .tower_pass import TowerPass
from .views import WHOLE, Box, Grid, Views

__all__ = [
    "FAMILIES",
    "TOWERS",
    "WHOLE",
    "AnswerStreamer",
    "Backbone",
    "Box",
    "Family",
    "Grid",
    "HubOptions",
    "Inputs",
    "Layer",
    "PlainModel",
    "Preprocessor",
    "PromptLengths",
    "PromptTable",
    "TowerInputs",
    "TowerPass",
    "Views",
    "VisionTower",
    "answer_texts",
    "checkpointed_layers",
    "encode",
    "family_of",
    "fill_placeholders",
    "freeze",
    "image_parts",
    "injected",
    "is_timm",
    "language_linears",
    "last_states",
    "last_user_text",
    "load_backbone",
    "load_model_type",
    "load_plain",
    "load_preprocessor",
    "load_prompt_table",
    "load_tower",
    "make_chat",
    "restart_streamer",
    "safety_dtype",
    "same_weights",
    "stop_when",
    "take_images",
    "with_hint",
    "without_images",
    "wrap_backbone",
    "wrap_tower",
]
