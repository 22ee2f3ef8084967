import unittest

try:
    import numpy as np

    import measure
except ImportError as error:
    raise unittest.SkipTest(f"SKIPPED, measuring is not tested: {error}; see requirements.txt") from error


class Measure(unittest.TestCase):
    def test_spearman_is_that_of_ranks(self):
        a = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
        self.assertAlmostEqual(measure.spearman(a, np.exp(a)), 1)
        self.assertAlmostEqual(measure.spearman(a, -a), -1)
        self.assertAlmostEqual(measure.spearman(a, np.array([2.0, 1.0, 4.0, 3.0, 5.0])), 1 - 6 * 4 / (5 * 24))
        np.testing.assert_array_equal(measure.ranks(np.array([5.0, 1.0, 5.0, 9.0])), [1.5, 0, 1.5, 3])

    def test_the_same_vectors_agree_and_others_do_not(self):
        chance = np.random.default_rng(0)
        wanted, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in chance.normal(size=(2, 60, 8)))
        same = measure.compare(wanted, wanted)
        self.assertTrue(all(abs(same[key] - 1) < 1e-6 for key in same))
        different = measure.compare(other, wanted)
        self.assertLess(abs(different["mean"]), 0.2)
        self.assertLess(abs(different["spearman"]), 0.2)
        self.assertLess(different["nearest"], 0.2)


if __name__ == "__main__":
    unittest.main()
