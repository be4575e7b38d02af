"""Which models there are, what shape they have, and how they and their adapters are loaded.

This layer knows nothing of datasets, plans or training.
"""
