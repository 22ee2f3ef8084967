"""Tests of rows that were measured a few times; they need none of the libraries."""

import tempfile
import unittest
from pathlib import Path

from results import Results, merged


def result(siskin, mkl, unsettled=(), version="siskin", yardstick=20.0, form="tokens"):
    peers = {"mkl": {"us": mkl, "form": "gemm"}}
    row = {"row": "a", "kind": "dense f32", "version": version, "siskin": siskin, "form": form, "plain": siskin + 1}
    return row | {"peers": peers, "failed": {}, "unsettled": list(unsettled), "yardstick": yardstick}


class Merged(unittest.TestCase):
    def test_the_least_times_of_all_count(self):
        found = merged([result(10, 30, form="packed"), result(20, 25), result(15, 40)])
        self.assertEqual((found["siskin"], found["form"], found["plain"], found["peers"]["mkl"]["us"]), (10, "packed", 11, 25))

    def test_who_settled_at_the_least_time_has_settled(self):
        self.assertEqual(merged([result(10, 30), result(10.1, 30, unsettled=["siskin"])])["unsettled"], [])
        self.assertEqual(merged([result(20, 30), result(10, 30, unsettled=["siskin"])])["unsettled"], ["siskin"])
        self.assertEqual(merged([result(20, 30), result(20, 15, unsettled=["mkl"])])["unsettled"], ["mkl"])

    def test_a_peer_may_have_been_left_out_once(self):
        without = result(10, 30) | {"peers": {}}
        self.assertEqual(merged([result(12, 30), without])["peers"], {"mkl": {"us": 30, "form": "gemm"}})


class Kept(unittest.TestCase):
    def test_what_was_measured_is_read_again(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            results = Results(path, "siskin")
            self.assertEqual(results.times("a"), 0)
            results.add(result(10, 30))
            results.add(result(12, 20))
            again = Results(path, "siskin")
            self.assertEqual((again.times("a"), again.result("a")["siskin"]), (2, 10))

    def test_another_build_and_a_loud_machine_do_not_count(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            results = Results(path, "siskin")
            for one in (result(10, 30, version="older"), result(12, 20, yardstick=25.0), result(13, 20)):
                results.add(one)
            again = Results(path, "siskin")
            self.assertEqual((again.times("a"), again.result("a")["siskin"], again.yardstick()), (1, 13, 20.0))


if __name__ == "__main__":
    unittest.main()
