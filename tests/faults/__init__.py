"""What a run must survive: `make test-faults`, and a short form among all tests.

Faults that tests elsewhere inject are not repeated here; docs/faults.md lists where.
"""
