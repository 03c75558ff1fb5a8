"""Run directories in, tables and figures out; next to the published numbers.

The engine, which knows no table or figure by name: those declare themselves in
``items``. Reads files only; nothing that trains is imported, no accelerator used.
"""
