"""One file for each table or figure, which declares it whole as ``ITEM``.

What two of them share does not stand here: drawings in ``shapes``, the rest above.
"""
