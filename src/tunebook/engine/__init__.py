"""The patched model: faster modules swapped in, proved to be the same function, and talked to.

Knows torch models; knows no recipe, no run and no widget.
"""

from tunebook.engine.apply import patch, plain_forwards, report, unpatch
from tunebook.engine.attention import CAUSAL
from tunebook.engine.audit import Audit, audit_gradients
from tunebook.engine.decoding import Token
from tunebook.engine.generation import (
    answer,
    answer_ids,
    encode_messages,
    for_inference,
    for_training,
    stream_chat,
    stream_tokens,
)
from tunebook.engine.graphs import StepGraphs
from tunebook.engine.head import LossRequest, fused_head_kept, has_fused_head
from tunebook.engine.host_embedding import place_embedding
from tunebook.engine.image_inputs import host_inputs, plain_inputs
from tunebook.engine.linear_group import LAYOUT
from tunebook.engine.locks import ModelLock, model_lock
from tunebook.engine.memory import (
    LayerMemory,
    drops,
    fused_layers,
    fused_vision_blocks,
    host_bytes,
    host_failure,
    release,
    spend,
    spend_on_vision,
)
from tunebook.engine.modules import Report
from tunebook.engine.parity import Parity, Tolerance, check_parity, patch_checked

__all__ = [
    "CAUSAL",
    "LAYOUT",
    "Audit",
    "LayerMemory",
    "LossRequest",
    "ModelLock",
    "Parity",
    "Report",
    "StepGraphs",
    "Token",
    "Tolerance",
    "answer",
    "answer_ids",
    "audit_gradients",
    "check_parity",
    "drops",
    "encode_messages",
    "for_inference",
    "for_training",
    "fused_head_kept",
    "fused_layers",
    "fused_vision_blocks",
    "has_fused_head",
    "host_bytes",
    "host_failure",
    "host_inputs",
    "model_lock",
    "patch",
    "patch_checked",
    "place_embedding",
    "plain_forwards",
    "plain_inputs",
    "release",
    "report",
    "spend",
    "spend_on_vision",
    "stream_chat",
    "stream_tokens",
    "unpatch",
]
