"""Take a tuned model away: adapter folders and merged weights.

This layer knows models and files; it knows nothing of training or panels.
"""

from tunebook.export.adapter import save_adapter
from tunebook.export.inspect import Inspection, inspect_file
from tunebook.export.merge import save_merged

__all__ = ["Inspection", "inspect_file", "save_adapter", "save_merged"]
