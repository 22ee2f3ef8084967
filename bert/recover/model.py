"""The encoder in JAX: mean-pooled BERT, whose products are of bfloat16 or INT8, with sums in f32.

Parameters are named as in the checkpoint. Weights of linear layers lie [inputs, outputs], as `to_parameters` turns them.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import quantization
from checkpoint import linear_names

TRANSFORM = "embeddings.transform"  # a matrix that the word embeddings are multiplied by, beside the one: word + word @ transform


def dot(a, b, over: tuple[int, int]):
    return jax.lax.dot_general(
        a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), (((over[0],), (over[1],)), ((), ())), preferred_element_type=jnp.float32
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x, weight, int8: bool):
    """x [tokens, inputs] times weight [inputs, outputs]. Rounding counts as the identity in the gradient (straight-through)."""
    return product_forward(x, weight, int8)[0]


def product_forward(x, weight, int8: bool):
    one = jnp.ones((1, 1), jnp.float32)
    (x, by_token), (weight, by_output) = (
        (quantization.rows(x, jnp), quantization.channels(weight, jnp)) if int8 else ((x, one), (weight, one))
    )
    x, weight = x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)
    return dot(x, weight, (1, 0)) * by_token * by_output, (x, by_token, weight, by_output)


def product_backward(int8: bool, saved, slope):
    x, by_token, weight, by_output = saved
    return dot(slope * by_output, weight, (1, 1)), dot(x, slope * by_token, (0, 0))


product.defvjp(product_forward, product_backward)


def to_parameters(tensors: dict[str, np.ndarray], layers: int) -> dict[str, jax.Array]:
    linear = set(linear_names(layers))
    used = {n: v for n, v in tensors.items() if n.startswith(("embeddings.", "encoder."))}
    return {n: jnp.asarray(np.ascontiguousarray(v.T) if n in linear else v) for n, v in used.items()}


def to_tensors(parameters: dict[str, jax.Array], layers: int) -> dict[str, np.ndarray]:
    """Back to a checkpoint's tensors; the transform of the word embeddings is multiplied into them."""
    linear = set(linear_names(layers))
    tensors = {n: np.asarray(v).T if n in linear else np.asarray(v) for n, v in parameters.items()}
    transform, words = tensors.pop(TRANSFORM, None), "embeddings.word_embeddings.weight"
    if transform is not None:
        tensors[words] = tensors[words] + tensors[words] @ transform
    return tensors


def layer_norm(p, name: str, x, epsilon: float):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + epsilon) * p[name + ".weight"] + p[name + ".bias"]


def attend(q, k, v, mask, heads: int):
    """Attention of [texts, tokens, features]."""
    texts, tokens, features = q.shape
    q, k, v = (t.reshape(texts, tokens, heads, -1).transpose(0, 2, 1, 3) for t in (q, k, v))
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k) / np.sqrt(features // heads) + (mask[:, None, None, :] - 1) * 1e9
    mixed = jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(scores, -1), v)
    return mixed.transpose(0, 2, 1, 3).reshape(texts, tokens, features)


def encode(p, config: dict, ids, mask, int8: bool):
    """The vectors of the texts, of length 1, and the hidden states after each layer, [texts, tokens, features]."""
    texts, tokens = ids.shape
    epsilon, features = config["layer_norm_eps"], config["hidden_size"]

    def linear(name: str, x):
        y = product(x.reshape(texts * tokens, -1), p[name + ".weight"], int8) + p[name + ".bias"]
        return y.reshape(texts, tokens, -1)

    words = p["embeddings.word_embeddings.weight"][ids]
    if TRANSFORM in p:
        words = words + product(words.reshape(-1, features), p[TRANSFORM], False).reshape(words.shape)
    x = words + p["embeddings.position_embeddings.weight"][:tokens] + p["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(p, "embeddings.LayerNorm", x, epsilon)
    hidden = []
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        q, k, v = (linear(at + "attention.self." + name, x) for name in ("query", "key", "value"))
        mixed = linear(at + "attention.output.dense", attend(q, k, v, mask, config["num_attention_heads"]))
        x = layer_norm(p, at + "attention.output.LayerNorm", x + mixed, epsilon)
        inner = jax.nn.gelu(linear(at + "intermediate.dense", x), approximate=False)
        x = layer_norm(p, at + "output.LayerNorm", x + linear(at + "output.dense", inner), epsilon)
        hidden.append(x)
    mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True), hidden
