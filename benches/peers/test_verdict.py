"""Tests of what the rows come to; they need none of the libraries: python3 -m unittest discover benches/peers."""

import unittest

import verdict


def row(name, siskin, plain=None, kind="dense f32", unsettled=(), **peers):
    found = {peer: {"us": us, "form": "gemm"} for peer, us in peers.items()}
    plain = siskin if plain is None else plain
    result = {"row": name, "kind": kind, "siskin": siskin, "form": "tokens", "plain": plain, "version": "siskin", "peers": found}
    return verdict.row_of(result | {"failed": {}, "unsettled": list(unsettled)})


class Rows(unittest.TestCase):
    def test_the_fastest_peer_counts(self):
        found = row("a", 10, mkl=30, onednn=20, numpy=40)
        self.assertEqual((found.peer, found.peer_us, found.ratio, found.ahead), ("onednn", 20, 2, True))

    def test_as_fast_is_not_ahead(self):
        self.assertFalse(row("a", 10, mkl=10).ahead)
        self.assertFalse(row("a", 10.1, mkl=10).ahead)
        self.assertTrue(row("a", 9.9, mkl=10).ahead)

    def test_alone_is_ahead_of_nobody(self):
        self.assertIsNone(row("a", 10).ratio)
        self.assertEqual(verdict.behind([row("a", 10)]), [])

    def test_noise_counts_where_it_is_of_those_compared(self):
        self.assertTrue(row("a", 10, mkl=20, unsettled=["siskin"]).noisy)
        self.assertTrue(row("a", 10, mkl=20, unsettled=["mkl"]).noisy)
        self.assertFalse(row("a", 10, mkl=20, numpy=30, unsettled=["numpy"]).noisy)


class Verdict(unittest.TestCase):
    def test_behind_is_sorted_by_kind_and_then_the_worst_first(self):
        rows = [row("c", 10, kind="sparse", mkl=9), row("a", 10, mkl=9), row("b", 10, mkl=5), row("d", 10, mkl=20)]
        self.assertEqual([found.name for found in verdict.behind(rows)], ["b", "a", "c"])

    def test_the_last_line_counts_and_lists(self):
        reasons = [("^b", "mkl", "a longer chain"), ("^b", "", "another reason")]
        rows = [row("a", 10, mkl=20), row("b", 10, mkl=5), row("c", 10, mkl=8), row("d", 10, plain=30, mkl=20), row("e", 1)]
        said = verdict.last_line(rows, reasons)
        self.assertTrue(said.startswith("siskin is ahead on 2 of 4 rows (1 of these only where x or y does not lie token by token)"), said)
        self.assertIn("on 1 more it is alone; not ahead: b (mkl, gemm, takes 0.500 of its time: a longer chain); c (", said)
        self.assertIn(f"c (mkl, gemm, takes 0.800 of its time: {verdict.UNKNOWN})", said)
        self.assertNotIn("\n", said)

    def test_noise_is_told(self):
        said = verdict.last_line([row("a", 10, mkl=9, unsettled=["mkl"])], [])
        self.assertIn("takes 0.900 of its time, by noisy times: ", said)

    def test_ahead_everywhere(self):
        said = verdict.last_line([row("a", 10, mkl=20)], [])
        self.assertEqual(said, "siskin is ahead on 1 of 1 rows; there is no row where it is not")

    def test_kinds_are_counted(self):
        rows = [row("a", 10, mkl=20), row("b", 10, mkl=5), row("c", 1, kind="attention", torch=2)]
        self.assertEqual(verdict.by_kind(rows), ["dense f32: ahead on 1 of 2 rows", "attention: ahead on 1 of 1 rows"])

    def test_known_reasons_are_patterns_that_compile(self):
        for name, peer, why in verdict.REASONS:
            verdict.re.compile(name), verdict.re.compile(peer)
            self.assertTrue(why)


if __name__ == "__main__":
    unittest.main()
