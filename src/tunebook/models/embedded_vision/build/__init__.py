"""How the embedded vision model is made: from drawn formulas to weights.

Run as `python -m tunebook.models.embedded_vision.build`; it knows formulas and nothing else of Tunebook.
"""
