"""What the pruned model is asked for: the whole model's vectors, their similarities, and its hidden states."""

import jax.numpy as jnp

COSINE, SIMILARITY, HIDDEN = 10.0, 1.0, 1.0  # weights of the three


def cosine_loss(vectors, wanted):
    """1 less the mean cosine."""
    return 1 - (vectors * wanted).sum(-1).mean()


def similarity_loss(vectors, wanted):
    """Squared error of the similarities of all pairs of a batch, as a part of the variance of the wanted ones."""
    pairs = 1 - jnp.eye(len(vectors))
    got, want = vectors @ vectors.T, wanted @ wanted.T
    mean = (want * pairs).sum() / pairs.sum()
    return ((got - want) ** 2 * pairs).sum() / (((want - mean) ** 2 * pairs).sum() + 1e-6)


def hidden_loss(states, wanted, mask):
    """Squared error of the hidden states, as a part of their variance over tokens; the mean over layers."""
    weight = mask[..., None] / mask.sum()
    errors = []
    for got, want in zip(states, wanted):
        spread = want - (want * weight).sum((0, 1))
        errors.append((((got - want) ** 2) * weight).sum() / ((spread**2) * weight).sum())
    return sum(errors) / len(errors)


def total(vectors, states, wanted_vectors, wanted_states, mask):
    """The loss, and its three parts."""
    parts = (
        cosine_loss(vectors, wanted_vectors),
        similarity_loss(vectors, wanted_vectors),
        hidden_loss(states, wanted_states, mask),
    )
    return COSINE * parts[0] + SIMILARITY * parts[1] + HIDDEN * parts[2], jnp.stack(parts)
