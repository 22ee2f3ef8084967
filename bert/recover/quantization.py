"""INT8 as siskin computes it: weights by output feature, symmetric; the inputs of a layer by token, over the range of that token.

Every function takes the array library, numpy or jax.numpy, as `xp`, and returns whole numbers as floats with the scale that makes them
values again. The numbers have at most nine bits with the sign, which bfloat16 holds exactly.
"""


def channels(weight, xp):
    """Whole numbers of -127 to 127, and a scale for each output feature, of a weight [inputs, outputs]."""
    scale = xp.maximum(xp.abs(weight).max(axis=0, keepdims=True) / 127.0, 1e-12)
    return xp.round(weight / scale), scale


def rows(x, xp):
    """Whole numbers of -255 to 255, of which 256 in a row are used, and a scale for each token, of inputs [tokens, features]."""
    least = xp.minimum(x.min(axis=-1, keepdims=True), 0.0)
    most = xp.maximum(x.max(axis=-1, keepdims=True), 0.0)
    scale = xp.maximum((most - least) / 255.0, 1e-12)
    zero = xp.round(-least / scale)
    return xp.clip(xp.round(x / scale) + zero, 0.0, 255.0) - zero, scale
