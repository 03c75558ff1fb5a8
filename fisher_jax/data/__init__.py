"""Images and labels: sources, then label noise, then batches, then augmentation.

    sources, packaged, prepared  a data set by its name (cache: decoded once)
    selection                    what trains and validates, with which labels
    batches                      which examples a step sees
    device                       sets in memory: gathered, normalised, augmented
    stream, stream_reading       photographs: read from disk (records), cropped (crops)
    prepare, tiny_imagenet       the program that prepares a TFDS set

Everything is a function of (seed, example id, step); no models, no training here.
"""
