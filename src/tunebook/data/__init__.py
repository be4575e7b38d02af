"""Data: from whatever a person has to the exact tokens and labels that a model learns from.

This layer knows recipes and tokenizers; it knows no model weights, no trainer and no widget.
"""

from tunebook.data.checks import CheckReport, Finding, check
from tunebook.data.comparison import TemplateComparison, TemplateSide, compare_templates
from tunebook.data.conversations import Message, to_conversations, to_messages
from tunebook.data.fixes import FIXES, Change, Fixed, apply_fixes, write_rows
from tunebook.data.formats import Detection, detect_format
from tunebook.data.journey import RowJourney, TextPiece, follow_row
from tunebook.data.loading import load_rows
from tunebook.data.masking import Encoded, encode_conversation, encode_text
from tunebook.data.mismatch import template_mismatch
from tunebook.data.placing import Placement
from tunebook.data.prepare import DataStatistics, PreparedData, prepare_data
from tunebook.data.rendering import Span
from tunebook.data.templates import (
    CHAT_TEMPLATES,
    ChatTemplate,
    get_chat_template,
    with_recipe_template,
)
from tunebook.data.tokens import TokenCell, TokenView, preview_rows, token_view
from tunebook.data.vision import EncodedVision, ImageSpan, encode_vision_row
from tunebook.data.vision_collator import VisionDataCollator

__all__ = [
    "CHAT_TEMPLATES",
    "FIXES",
    "Change",
    "ChatTemplate",
    "CheckReport",
    "DataStatistics",
    "Detection",
    "Encoded",
    "EncodedVision",
    "Finding",
    "Fixed",
    "ImageSpan",
    "Message",
    "Placement",
    "PreparedData",
    "RowJourney",
    "Span",
    "TemplateComparison",
    "TemplateSide",
    "TextPiece",
    "TokenCell",
    "TokenView",
    "VisionDataCollator",
    "apply_fixes",
    "check",
    "compare_templates",
    "detect_format",
    "encode_conversation",
    "encode_text",
    "encode_vision_row",
    "follow_row",
    "get_chat_template",
    "load_rows",
    "prepare_data",
    "preview_rows",
    "template_mismatch",
    "to_conversations",
    "to_messages",
    "token_view",
    "with_recipe_template",
    "write_rows",
]
