"""Traces and products of the Fisher matrix and the Hessian, for any ``logits_fn``.

Pure mathematics over callables and pytrees; knows jax and nothing else of ours.
"""
