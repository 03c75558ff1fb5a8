"""Mirrors fisher_jax; each file tests the module of its name."""
