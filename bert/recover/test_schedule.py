import unittest

import schedule


class Schedule(unittest.TestCase):
    def test_it_rises_stays_and_falls(self):
        steps = 1000
        factors = [schedule.factor(step, steps) for step in range(steps + 1)]
        self.assertLess(factors[0], 0.1)
        self.assertEqual(factors[: schedule.WARM_UP], sorted(factors[: schedule.WARM_UP]))
        self.assertEqual(set(factors[schedule.WARM_UP : 600]), {1.0})
        self.assertEqual(factors[600:], sorted(factors[600:], reverse=True))
        self.assertAlmostEqual(factors[-1], schedule.LEAST)

    def test_a_longer_training_begins_alike(self):
        self.assertEqual([schedule.factor(s, 1000) for s in range(600)], [schedule.factor(s, 5000) for s in range(600)])


if __name__ == "__main__":
    unittest.main()
