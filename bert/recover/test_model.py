import tempfile
import unittest
from pathlib import Path

try:
    import jax
    import jax.numpy as jnp
    import numpy as np

    import checkpoint
    import losses
    import model
    import quantization
    import train
except ImportError as error:
    raise unittest.SkipTest(f"SKIPPED, the model and its training are not tested: {error}; see requirements.txt") from error

CONFIG = {"layer_norm_eps": 1e-12, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}

WIDE = {"encoder.layer.0.intermediate.dense.weight": (16, 8), "encoder.layer.0.output.dense.weight": (8, 16)}


def tensors() -> dict[str, np.ndarray]:
    chance, shapes = np.random.default_rng(0), {}
    for name in checkpoint.linear_names(1):
        outputs, inputs = WIDE.get(name, (8, 8))
        shapes |= {name: (outputs, inputs), name.replace("weight", "bias"): (outputs,)}
    for name in ("word", "position", "token_type"):
        shapes[f"embeddings.{name}_embeddings.weight"] = (32, 8)
    found = {n: chance.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    for name in ("embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.output.LayerNorm"):
        found |= {name + ".weight": np.ones(8, np.float32), name + ".bias": np.zeros(8, np.float32)}
    return found


def pruned() -> dict[str, np.ndarray]:
    chance, linear = np.random.default_rng(1), set(checkpoint.linear_names(1))
    return {n: v * (chance.random(v.shape) < 0.5) if n in linear else v for n, v in tensors().items()}


def trainer(steps: int, path: Path) -> "train.Trainer":
    return train.Trainer(CONFIG, tensors(), pruned(), train.Options(steps, 1e-2, 64, 9, True, 0), path)


BATCH = np.array([[1, 5, 9, 2], [1, 7, 2, 0]], np.int32), np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.float32)


class Model(unittest.TestCase):
    def test_the_int8_product_is_that_of_whole_numbers(self):
        chance = np.random.default_rng(0)
        x, weight = chance.normal(size=(6, 40)), chance.normal(size=(40, 5))
        (numbers, by_token), (weights, by_output) = quantization.rows(x, np), quantization.channels(weight, np)
        got = model.product(jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32), True)
        np.testing.assert_allclose(got, numbers @ weights * by_token * by_output, rtol=2e-3, atol=0.05)
        np.testing.assert_allclose(got, x @ weight, atol=0.2)

    def test_rounding_is_the_identity_in_the_gradient(self):
        chance = np.random.default_rng(0)
        x, weight, by = (jnp.asarray(chance.normal(size=s), jnp.float32) for s in ((6, 40), (40, 5), (6, 5)))
        got = jax.grad(lambda x, w: (model.product(x, w, True) * by).sum(), argnums=(0, 1))(x, weight)
        np.testing.assert_allclose(got[0], by @ weight.T, atol=0.1)
        np.testing.assert_allclose(got[1], x.T @ by, atol=0.1)

    def test_padding_changes_nothing(self):
        p = model.to_parameters(tensors(), 1)
        short, _ = model.encode(p, CONFIG, BATCH[0][1:, :3], BATCH[1][1:, :3], False)
        long, _ = model.encode(p, CONFIG, BATCH[0][1:], BATCH[1][1:], False)
        np.testing.assert_allclose(short, long, atol=1e-5)

    def test_parameters_come_back_and_the_transform_goes_into_the_embeddings(self):
        p = model.to_parameters(tensors(), 1)
        for name, value in model.to_tensors(p, 1).items():
            np.testing.assert_array_equal(value, tensors()[name])
        p[model.TRANSFORM] = jnp.asarray(np.random.default_rng(2).normal(size=(8, 8)) * 0.1, jnp.float32)
        folded = model.to_parameters(model.to_tensors(p, 1), 1)
        self.assertNotIn(model.TRANSFORM, folded)
        np.testing.assert_allclose(model.encode(p, CONFIG, *BATCH, False)[0], model.encode(folded, CONFIG, *BATCH, False)[0], atol=0.02)


class Losses(unittest.TestCase):
    def test_they_are_zero_for_the_same_and_one_for_nothing_in_common(self):
        chance = np.random.default_rng(0)
        vectors = chance.normal(size=(6, 4))
        vectors = jnp.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        states, mask = [jnp.asarray(chance.normal(size=(6, 3, 4)))], jnp.ones((6, 3))
        loss, parts = losses.total(vectors, states, vectors, states, mask)
        np.testing.assert_allclose(parts, 0, atol=1e-6)
        self.assertAlmostEqual(float(loss), 0, places=5)
        mean = states[0].mean((0, 1), keepdims=True) * jnp.ones_like(states[0])
        self.assertAlmostEqual(float(losses.hidden_loss([mean], states, mask)), 1, places=5)


class Training(unittest.TestCase):
    def test_it_lowers_the_loss_and_keeps_the_zeros(self):
        with tempfile.TemporaryDirectory() as folder:
            taught = trainer(100, Path(folder) / "run.state")
            first = taught.step(BATCH)
            for _ in range(60):
                last = taught.step(BATCH)
            self.assertLess(last[0], 0.5 * first[0])
            for name in checkpoint.linear_names(1):
                self.assertTrue((taught.tensors()[name][pruned()[name] == 0] == 0).all())
            cosines = taught.cosines([[1, 5, 9, 2], [1, 7, 2]])
            self.assertAlmostEqual(1 - cosines.mean(), last[0], delta=0.05)

    def test_it_goes_on_as_if_it_had_not_stopped(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.state"
            unbroken = trainer(100, path)
            for _ in range(6):
                if unbroken.progress.step == 3:
                    unbroken.save()
                unbroken.step(BATCH)
            resumed = trainer(100, path)
            resumed.resume()
            self.assertEqual(resumed.progress.step, 3)
            for _ in range(3):
                resumed.step(BATCH)
            for name, value in unbroken.tensors().items():
                np.testing.assert_allclose(resumed.tensors()[name], value, atol=1e-4)

    def test_other_options_are_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.state"
            trainer(100, path).save()
            other = train.Trainer(CONFIG, tensors(), pruned(), train.Options(100, 5e-2, 64, 9, True, 0), path)
            with self.assertRaisesRegex(checkpoint.CheckpointError, "other options: rate"):
                other.resume()


if __name__ == "__main__":
    unittest.main()
