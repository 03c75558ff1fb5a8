"""Images and labels: sources, label noise, splits, batches, augmentation.

Everything is a function of (seed, example id, step); no models, no training here.
"""
