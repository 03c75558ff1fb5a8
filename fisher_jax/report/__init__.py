"""Run directories in, tables and figures out; next to the published numbers.

Reads files only: nothing here may import what trains, and no accelerator is used.
"""
