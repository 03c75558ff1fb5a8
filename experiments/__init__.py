"""One ml_collections file per setting or figure; ``base.py`` lists every key.

A file holds hyper-parameters and says which paper item it is; no code that trains.
"""
