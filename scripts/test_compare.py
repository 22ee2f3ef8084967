"""Tests of what `scripts/benchmarks.py measure` finds: python3 -m unittest discover scripts."""

import unittest

import compare
from benchmarks import tables_of, with_noise


def record(*rows, unit="%", better=None, noise=True, name="int8", title="Share"):
    """Of rows (case, value, noise in percent)."""
    columns = ["case", "median", "min", "max", "cases"] + ["noise"] * noise
    table = {"title": title, "unit": unit, "digits": 0, "columns": columns}
    table |= {"better": better} if better else {}
    table["rows"] = [[case, value, value, value, 5] + [spread] * noise for case, value, spread in rows]
    return {"cpu": {"vendor": "amd", "family": 25, "model": 1, "name": "a CPU"}, "runs": [{"name": name, "tables": [table]}]}


class Compare(unittest.TestCase):
    def found(self, before, after):
        comparison = compare.compare(before, after)
        return comparison, compare.status(comparison), compare.said(comparison)

    def test_a_fall_beyond_noise_fails(self):
        comparison, status, said = self.found(record(("dense", 90, 1)), record(("dense", 80, 1)))
        self.assertEqual(status, 1)
        self.assertEqual([change.name for change in comparison.fell], ["int8: Share: dense"])
        self.assertEqual(said, ["fell by 11 % (noise allows 5 %): int8: Share: dense: 90 %, now 80 %"])

    def test_a_fall_within_the_floor_does_not(self):
        self.assertEqual(self.found(record(("dense", 90, 0)), record(("dense", 86, 0)))[1:], (0, []))

    def test_the_noise_of_both_runs_counts(self):
        self.assertEqual(self.found(record(("dense", 90, 4)), record(("dense", 80, 8)))[1:], (0, []))
        self.assertEqual(self.found(record(("dense", 90, 4)), record(("dense", 80, 4)))[1], 1)

    def test_a_rise_is_named_and_no_failure(self):
        comparison, status, _ = self.found(record(("dense", 80, 1)), record(("dense", 90, 1)))
        self.assertEqual((status, len(comparison.rose), comparison.fell), (0, 1, []))

    def test_directions(self):
        more_is_worse = [dict(unit="us"), dict(unit=""), dict(unit="x", better="lower")]
        more_is_better = [dict(unit="%"), dict(unit="x"), dict(unit="GB/s")]
        for kind in more_is_worse:
            self.assertEqual(self.found(record(("a", 1.0, 1), **kind), record(("a", 2.0, 1), **kind))[1], 1, kind)
            self.assertEqual(self.found(record(("a", 2.0, 1), **kind), record(("a", 1.0, 1), **kind))[1], 0, kind)
        for kind in more_is_better:
            self.assertEqual(self.found(record(("a", 1.0, 1), **kind), record(("a", 2.0, 1), **kind))[1], 0, kind)
            self.assertEqual(self.found(record(("a", 2.0, 1), **kind), record(("a", 1.0, 1), **kind))[1], 1, kind)

    def test_half_the_speed_is_twice_the_time(self):
        (speed,) = self.found(record(("a", 2, 1)), record(("a", 1, 1)))[0].fell
        (time,) = self.found(record(("a", 1, 1), unit="us"), record(("a", 2, 1), unit="us"))[0].fell
        self.assertEqual((speed.fall, time.fall), (50, 50))

    def test_rows_and_runs_of_one_record_are_named(self):
        comparison, status, _ = self.found(record(("a", 1, 1), ("b", 1, 1)), record(("b", 1, 1), ("c", 1, 1)))
        self.assertEqual((status, comparison.gone, comparison.new), (0, ["int8: Share: a"], ["int8: Share: c"]))
        comparison, status, _ = self.found(record(("a", 1, 1)), record(("a", 1, 1), name="int8-quick"))
        self.assertEqual((status, comparison.gone, comparison.new), (0, ["int8"], ["int8-quick"]))

    def test_records_without_noise_are_read(self):
        old = record(("dense", 90, None), noise=False)
        self.assertEqual(self.found(old, record(("dense", 85, 1)))[1], 0)
        self.assertEqual(self.found(old, record(("dense", 80, 1)))[1], 1)

    def test_other_cases_are_not_compared(self):
        new = record(("dense", 80, 1))
        new["runs"][0]["tables"][0]["rows"][0][4] = 90
        comparison, status, _ = self.found(record(("dense", 90, 1)), new)
        self.assertEqual((status, comparison.other), (0, ["int8: Share: dense"]))

    def test_ranges_and_bars(self):
        ranges = record(("a", 1, 1))
        ranges["runs"][0]["tables"][0]["columns"][1:3] = ["from", "to"]
        self.assertEqual(compare.figures(ranges["runs"][0]), {})
        table = {"title": "T", "unit": "x", "bar": "ratio", "columns": ["a", "b", "us", "ratio"], "rows": [["x", "y", 7, 2]]}
        (name,) = compare.figures({"name": "peers", "tables": [table]})
        self.assertEqual(name, "peers: T: x, y")


class Noise(unittest.TestCase):
    def test_it_is_the_difference_of_the_halves(self):
        tables = [record(("a", value, None), noise=False)["runs"][0]["tables"] for value in (100, 100, 98)]
        (table,) = with_noise(*tables)
        self.assertEqual(table["columns"][-1], "noise")
        self.assertEqual(table["rows"][0][-1], 2.0)

    def test_a_row_is_of_the_best_of_all_rounds(self):
        def kind(t):
            t.table("Share")
            t.share("dense", [{"m": 1}, {"m": 2}])

        slow, fast = {"us_min": 20, "gops": 40, "peak_gops": 50}, {"us_min": 10, "gops": 80, "peak_gops": 100}
        # Its peak was disturbed, and would be 160 %.
        odd = {"us_min": 10, "gops": 80, "peak_gops": 50}
        slow, fast, odd = (answer | {"pct_peak": 100 * answer["gops"] / answer["peak_gops"]} for answer in (slow, fast, odd))
        (table,) = tables_of(kind, None, [[fast, fast], [fast, slow], [odd, odd]])
        # Halves: rounds 1 and 3; and round 2.
        self.assertEqual(table["rows"], [["dense", 80, 80, 80, 2, 0.0]])
        (table,) = tables_of(kind, None, [[fast, fast], [odd, odd]])
        self.assertEqual(table["rows"], [["dense", 80, 80, 80, 2, 100.0]])


if __name__ == "__main__":
    unittest.main()
