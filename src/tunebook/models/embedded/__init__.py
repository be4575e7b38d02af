"""The folder of the model that ships inside, and the code that made it.

The folder is an ordinary transformers model folder; this package knows nothing of what loads it.
"""
