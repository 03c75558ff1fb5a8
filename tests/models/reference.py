"""The networks once more, in plain NumPy and float64, written from the papers.

Each takes the variables of the Flax model, as nested dicts, and images, and returns
logits in evaluation mode. Nothing here knows jax.
"""

import numpy as np

EPSILON = 1e-5


def convolve(inputs, kernel, strides=1, padding=None):
    """Cross-correlation with zeros around, as PyTorch's Conv2d; no bias."""
    height, width = kernel.shape[:2]
    p = height // 2 if padding is None else padding
    padded = np.pad(inputs, ((0, 0), (p, p), (p, p), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (1, 2))
    return np.einsum(
        "bhwcij,ijcf->bhwf", windows[:, ::strides, ::strides], kernel, optimize=True
    )


def pool(inputs, size, strides, reduce, padding=0, fill=0.0):
    pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(inputs, pad, constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    return reduce(windows[:, ::strides, ::strides], axis=(-2, -1))


def relu(inputs):
    return np.maximum(inputs, 0)


def conv(params, inputs, strides=1):
    return convolve(inputs, params["kernel"], strides) + params.get("bias", 0)


def dense(params, inputs):
    return inputs @ params["kernel"] + params["bias"]


def batch_norm(params, statistics, inputs):
    scale = params["scale"] / np.sqrt(statistics["var"] + EPSILON)
    return (inputs - statistics["mean"]) * scale + params["bias"]


def global_pool(inputs):
    return inputs.mean(axis=(1, 2))


def vgg11(variables, images):
    p, hidden, layer = variables["params"], images, 0
    for convolutions in (1, 1, 2, 2, 2):
        for _ in range(convolutions):
            hidden = relu(conv(p[f"Conv_{layer}"], hidden))
            layer += 1
        hidden = pool(hidden, 2, 2, np.max)
    hidden = hidden.reshape(len(images), -1)
    hidden = relu(dense(p["Dense_0"], hidden))
    hidden = relu(dense(p["Dense_1"], hidden))
    return dense(p["Dense_2"], hidden)


def densenet(variables, images):
    p, s = variables["params"], variables["batch_stats"]

    def layer(name, hidden):
        normalised = batch_norm(p[name]["BatchNorm_0"], s[name]["BatchNorm_0"], hidden)
        return conv(p[name]["Conv_0"], relu(normalised))

    hidden = conv(p["stem"], images)
    for block in (1, 2, 3):
        features, index = [hidden], 1
        while f"block{block}_layer{index}" in p:
            seen = np.concatenate(features, axis=-1)
            features.append(layer(f"block{block}_layer{index}", seen))
            index += 1
        hidden = np.concatenate(features, axis=-1)
        if block < 3:
            hidden = pool(layer(f"transition{block}", hidden), 2, 2, np.mean)
    hidden = relu(batch_norm(p["BatchNorm_0"], s["BatchNorm_0"], hidden))
    return dense(p["classifier"], global_pool(hidden))


def blocks(params):
    """(name, strides) of the blocks, which are called stageI_blockJ."""
    names = sorted(name for name in params if name.startswith("stage"))
    return [
        (name, 2 if name.endswith("_block1") and not name.startswith("stage1") else 1)
        for name in names
    ]


def wide_resnet(variables, images):
    p, s = variables["params"], variables.get("batch_stats", {})

    def normalise(params, statistics, name, hidden):
        if name not in params:
            return hidden
        return batch_norm(params[name], statistics[name], hidden)

    hidden = conv(p["stem"], images)
    for name, strides in blocks(p):
        own, stats = p[name], s.get(name, {})
        before = relu(normalise(own, stats, "BatchNorm_0", hidden))
        branch = conv(own["conv1"], before, strides)
        branch = conv(own["conv2"], relu(normalise(own, stats, "BatchNorm_1", branch)))
        if "skip_init" in own:
            branch = own["skip_init"]["scale"] * branch
        if "shortcut" in own:
            hidden = conv(own["shortcut"], before, strides)
        hidden = hidden + branch
    hidden = relu(normalise(p, s, "BatchNorm_0", hidden))
    return dense(p["classifier"], global_pool(hidden))


def resnet_batch_norm(variables, images):
    p, s = variables["params"], variables["batch_stats"]
    hidden = conv(p["stem"], images)
    hidden = relu(batch_norm(p["BatchNorm_0"], s["BatchNorm_0"], hidden))
    for name, strides in blocks(p):
        own, stats = p[name], s[name]
        branch = conv(own["Conv_0"], hidden, strides)
        branch = relu(batch_norm(own["BatchNorm_0"], stats["BatchNorm_0"], branch))
        branch = conv(own["Conv_1"], branch)
        branch = batch_norm(own["BatchNorm_1"], stats["BatchNorm_1"], branch)
        shortcut = np.zeros_like(branch)
        shortcut[..., : hidden.shape[-1]] = hidden[:, ::strides, ::strides]
        hidden = relu(shortcut + branch)
    return dense(p["classifier"], global_pool(hidden))


def weight_normalised(params, inputs, strides=1):
    direction = params["direction"]
    unit = direction / np.sqrt((direction**2).sum(axis=(0, 1, 2)))
    return convolve(inputs, unit * params["length"], strides) + params["bias"]


def resnet_weight_norm(variables, images):
    p = variables["params"]
    hidden = weight_normalised(p["stem"], images)
    for name, strides in blocks(p):
        own = p[name]
        branch = relu(weight_normalised(own["conv1"], hidden, strides))
        branch = weight_normalised(own["conv2"], branch)
        if "shortcut" in own:
            hidden = weight_normalised(own["shortcut"], hidden, strides)
        hidden = hidden + branch
    return dense(p["classifier"], global_pool(hidden))


def fixup_resnet(variables, images):
    p = variables["params"]
    hidden = convolve(images, p["stem"]["kernel"], strides=2, padding=3)
    hidden = relu(hidden + p["stem_bias"]["bias"])
    hidden = pool(hidden, 3, 2, np.max, padding=1, fill=-np.inf)
    for name, strides in blocks(p):
        own = p[name]
        shifted = hidden + own["bias1a"]["bias"]
        branch = relu(conv(own["conv1"], shifted, strides) + own["bias1b"]["bias"])
        branch = conv(own["conv2"], branch + own["bias2a"]["bias"])
        branch = branch * own["multiplier"]["scale"] + own["bias2b"]["bias"]
        if "shortcut" in own:
            hidden = conv(own["shortcut"], shifted, strides)
        hidden = relu(hidden + branch)
    return dense(p["classifier"], global_pool(hidden) + p["classifier_bias"]["bias"])


REFERENCES = {
    "vgg11": vgg11,
    "densenet": densenet,
    "wide_resnet-batch_norm": wide_resnet,
    "wide_resnet-skip_init": wide_resnet,
    "resnet-batch_norm": resnet_batch_norm,
    "resnet-weight_norm": resnet_weight_norm,
    "fixup_resnet": fixup_resnet,
}
