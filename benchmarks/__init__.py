"""Measurements of speed and memory; nothing here is a test and nothing is imported.

Only ratios within one run mean something on a shared machine, and each says so.
"""
