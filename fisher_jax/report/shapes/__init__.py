"""Drawings that several items share, each made for any runs and any words.

They know no item by name, and decide nothing.
"""
