"""Data: from whatever a person has to the exact tokens and labels that a model learns from.

This layer knows recipes and tokenizers; it knows no model weights, no trainer and no widget.
"""

from tunebook.data.checks import CheckReport, Finding, check
from tunebook.data.conversations import Message, to_conversations, to_messages
from tunebook.data.fixes import FIXES, Fixed, apply_fixes, write_rows
from tunebook.data.formats import Detection, detect_format
from tunebook.data.loading import load_rows
from tunebook.data.masking import Encoded, encode_conversation, encode_text
from tunebook.data.mismatch import template_mismatch
from tunebook.data.prepare import DataStatistics, PreparedData, prepare_data
from tunebook.data.rendering import Span
from tunebook.data.templates import (
    CHAT_TEMPLATES,
    ChatTemplate,
    get_chat_template,
    with_recipe_template,
)
from tunebook.data.tokens import TokenCell, TokenView, preview_rows, token_view

__all__ = [
    "CHAT_TEMPLATES",
    "FIXES",
    "ChatTemplate",
    "CheckReport",
    "DataStatistics",
    "Detection",
    "Encoded",
    "Finding",
    "Fixed",
    "Message",
    "PreparedData",
    "Span",
    "TokenCell",
    "TokenView",
    "apply_fixes",
    "check",
    "detect_format",
    "encode_conversation",
    "encode_text",
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
