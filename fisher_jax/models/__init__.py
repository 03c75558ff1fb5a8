"""Flax models, one file per architecture, and the literal dict of their names.

No training, no data, no penalties here; a model maps images to logits.
"""

from fisher_jax.models.simple_cnn import SimpleCNN

MODELS = {"simple_cnn": SimpleCNN}
