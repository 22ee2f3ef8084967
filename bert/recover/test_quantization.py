import unittest

try:
    import numpy as np

    import quantization
except ImportError as error:
    raise unittest.SkipTest(f"SKIPPED, rounding is not tested: {error}; see requirements.txt") from error


class Quantization(unittest.TestCase):
    def setUp(self):
        self.chance = np.random.default_rng(0)

    def test_a_weight_is_rounded_by_output_feature(self):
        weight = self.chance.normal(size=(7, 3)) * np.array([1.0, 100.0, 1e-3])
        numbers, scale = quantization.channels(weight, np)
        self.assertEqual(numbers.shape, weight.shape)
        np.testing.assert_array_equal(np.abs(numbers).max(axis=0), 127)
        self.assertTrue((np.abs(numbers * scale - weight) <= scale / 2 * 1.001).all())

    def test_pruned_weights_stay_zero(self):
        weight = self.chance.normal(size=(8, 4)) * (self.chance.random((8, 4)) < 0.3)
        weight[:, 1] = 0
        numbers, _ = quantization.channels(weight, np)
        self.assertTrue((numbers[weight == 0] == 0).all())

    def test_a_token_is_rounded_over_its_own_range(self):
        x = self.chance.normal(size=(5, 16)) * np.array([[1.0], [50.0], [1e-2], [1.0], [1.0]]) + np.array([[0], [0], [0], [9], [-9]])
        numbers, scale = quantization.rows(x, np)
        self.assertTrue((numbers == np.round(numbers)).all())
        self.assertTrue((numbers.max(axis=1) - numbers.min(axis=1) <= 255).all())
        self.assertTrue((np.abs(numbers * scale - x) <= scale * 1.001).all())

    def test_zero_is_exact_and_a_token_of_zeros_is_too(self):
        x = np.array([[0.0, 3.0, 5.0], [0.0, 0.0, 0.0]])
        numbers, scale = quantization.rows(x, np)
        np.testing.assert_array_equal((numbers * scale)[:, 0], 0)
        np.testing.assert_array_equal(numbers[1], 0)

    def test_bfloat16_would_hold_every_number(self):
        x = np.concatenate([self.chance.normal(size=(20, 64)), -np.abs(self.chance.normal(size=(20, 64)))])
        numbers, _ = quantization.rows(x, np)
        self.assertLessEqual(np.abs(numbers).max(), 256)


if __name__ == "__main__":
    unittest.main()
