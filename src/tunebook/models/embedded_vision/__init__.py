"""A vision-language model small enough to ship: it reads drawn formulas and answers in LaTeX.

Holds files and their builder; it knows nothing of the rest of Tunebook.
"""
