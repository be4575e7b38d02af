"""The command line: `tunebook demo | check | plan | train | chat | export | inspect | doctor`.

A thin face: each command calls the function of the same name in Python. Options of the recipe are
made from its fields.
"""

from tunebook.cli.main import main

__all__ = ["main"]
