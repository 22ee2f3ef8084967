import tempfile
import unittest
from pathlib import Path

try:
    import numpy as np

    import texts
except ImportError as error:
    raise unittest.SkipTest(f"SKIPPED, texts and batches are not tested: {error}; see requirements.txt") from error


class Texts(unittest.TestCase):
    def test_wordnet_gets_its_share_and_the_others_the_rest_alike(self):
        share = texts.share_of_domains(["help", "perl", "wordnet"])
        self.assertAlmostEqual(share["wordnet"], texts.WORDNET_SHARE)
        self.assertAlmostEqual(share["help"], share["perl"])
        self.assertAlmostEqual(sum(share.values()), 1)
        self.assertEqual(texts.share_of_domains(["a", "b"]), {"a": 0.5, "b": 0.5})
        self.assertEqual(texts.share_of_domains(["wordnet"]), {"wordnet": 1})

    def test_a_batch_has_texts_of_one_padded_length_in_the_shares_asked_for(self):
        domains = {"wordnet": [[1, 7, 2]] * 50, "long": [[1] + [8] * 60 + [2]] * 5, "short": [[1, 9, 9, 2]] * 5000}
        corpus = texts.corpus(domains)
        chance, seen = np.random.default_rng(0), {7: 0, 8: 0, 9: 0}
        for _ in range(300):
            ids, mask = texts.batch(corpus, 256, chance)
            self.assertIn(ids.shape, {(16, 16), (4, 64)})
            self.assertEqual(ids.shape, mask.shape)
            np.testing.assert_array_equal(ids != 0, mask == 1)
            for token in seen:
                seen[token] += ids.shape[1] * int((ids[:, 1] == token).sum())
        shares = {t: n / sum(seen.values()) for t, n in seen.items()}
        self.assertAlmostEqual(shares[7], 0.3, delta=0.06)
        self.assertAlmostEqual(shares[8], 0.35, delta=0.1)

    def test_a_batch_depends_on_its_seed_alone(self):
        corpus = texts.corpus({"a": [[1, i, 2] for i in range(3, 99)]})
        first, again = (texts.batch(corpus, 128, np.random.default_rng([0, 5]))[0] for _ in range(2))
        other = texts.batch(corpus, 128, np.random.default_rng([0, 6]))[0]
        np.testing.assert_array_equal(first, again)
        self.assertTrue((first != other).any())

    def test_a_long_text_is_cut_and_keeps_its_last_token(self):
        ids, mask = texts.pad([[1, 5, 6, 7, 2], [1, 2]], 4)
        np.testing.assert_array_equal(ids, [[1, 5, 6, 2], [1, 2, 0, 0]])
        np.testing.assert_array_equal(mask, [[1, 1, 1, 1], [1, 1, 0, 0]])
        self.assertEqual(texts.padded_length(10**6), texts.LENGTHS[-1])

    def test_files_to_learn_from_and_to_measure_on_are_told_apart(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            for name in ("domains/perl.txt", "domains/perl.held_out.txt", "other/satire.txt"):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text("one\n\ntwo\nthree\nfour\n")
            self.assertEqual([p.name for p in texts.domain_files(folder)], ["perl.txt"])
            self.assertEqual(sorted(texts.held_out_files(folder)), ["other satire", "perl"])
            self.assertEqual(texts.read_lines(folder / "domains/perl.txt", 2), ["one", "three"])

    def test_a_folder_without_domains_is_refused(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(FileNotFoundError, "fetch_texts.sh"):
            texts.domain_files(Path(folder))


if __name__ == "__main__":
    unittest.main()
