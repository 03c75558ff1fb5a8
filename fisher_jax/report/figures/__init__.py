"""Figures 1 to 21 in the paper's layout, one function each, from runs as pandas.

Functions return a ``Drawing``, or a sentence on why there is nothing to draw.
"""
