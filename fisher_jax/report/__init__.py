"""Run directories in, tables and figures out; next to the published numbers.

The engine, which knows no table or figure by name: those declare themselves in
``items``. Reads files only; nothing that trains is imported, no accelerator used.

The way of a run: ``collect.py`` makes it a row of one table, ``build.py`` gives each
item its rows, the item fills a table or draws a figure of those that ``choose.py``
picks. The way of a claim (``claims.py``): in each setting its rule (the item's own, or
one of ``rules.py``) takes values of runs (``values.py``) and compares them
(``decide.py``); the verdict is over all settings. ``page.py`` shows the entries
(``entry.py``) that come of both.
"""
