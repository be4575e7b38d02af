"""How the embedded model is made, from tables of facts to weights.

Run as `python -m tunebook.models.embedded.build`; it knows nothing of the rest of Tunebook.
"""
