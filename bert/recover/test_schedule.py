import unittest

import schedule


class Schedule(unittest.TestCase):
    def test_it_rises_then_falls(self):
        self.assertLess(schedule.factor(0, 0.0), 0.1)
        self.assertAlmostEqual(schedule.factor(schedule.WARM_UP, 0.0), 1.0)
        falling = [schedule.factor(10**6, done / 10) for done in range(11)]
        self.assertEqual(falling, sorted(falling, reverse=True))
        self.assertAlmostEqual(falling[-1], schedule.LEAST)

    def test_time_beyond_the_end_changes_nothing(self):
        self.assertEqual(schedule.factor(10**6, 1.5), schedule.factor(10**6, 1.0))


if __name__ == "__main__":
    unittest.main()
