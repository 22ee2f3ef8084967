import random
import tempfile
import unittest
from pathlib import Path

import domains
import readers


class Shaping(unittest.TestCase):
    def test_prose_is_told_from_code_and_tables(self):
        self.assertTrue(domains.is_prose("A bird sings in the tree."))
        for text in ("short one", "for (i = 0; i < n; i++) { x[i] += 1; }", "---- ==== 12 13 14 15 16 17", "Oneword" * 5, "a bird " * 400):
            self.assertFalse(domains.is_prose(text), text)

    def test_texts_of_several_lengths_come_out_and_no_word_is_lost(self):
        paragraphs = [f"This is paragraph {n} of many. It has a second sentence." for n in "abcdefghij" * 6]
        texts = domains.shape(paragraphs, random.Random(1))
        self.assertEqual(" ".join(texts), " ".join(paragraphs))
        lengths = [len(t) for t in texts]
        self.assertLess(min(lengths), 40)
        self.assertGreater(max(lengths), 200)
        self.assertLessEqual(max(lengths), domains.LONGEST)

    def test_sentences_end_where_they_end(self):
        text = 'He left. "Why?" she asked. It was 3.5 miles.'
        self.assertEqual(domains.sentences(text), ["He left.", '"Why?" she asked.', "It was 3.5 miles."])

    def test_what_shares_a_run_of_words_with_a_held_out_text_is_left_out(self):
        taken = domains.runs("The quick brown fox jumps over the lazy dog.") | domains.runs("A desert wildcat")
        training = ["Saw a QUICK, brown fox jumps over the moon", "quick brown fox jumps", "a desert wildcat", "a desert wildcat cub"]
        self.assertEqual(domains.without_shared_runs(training, taken), ["quick brown fox jumps", "a desert wildcat cub"])


class Reading(unittest.TestCase):
    def test_pod(self):
        text = "=head1 NAME\n\nUse B<L<open|perlfunc>> or C<close>\nnow.\n\n    code here\n\nMore.\n"
        self.assertEqual(readers.pod_paragraphs(text), ["Use open or close\nnow.", "More."])

    def test_rst(self):
        text = "Title\n=====\n\nSee :func:`open <io.open>` and ``x``, a `link <a:b>`_::\n\n    code\n\n    more code\n\n.. note::\n\n"
        text += "* An *item*.\n"
        self.assertEqual(readers.rst_paragraphs(text), ["See open and x, a link:", "An item."])

    def test_manual_pages(self):
        text = ".SH NAME\nls \\- list\n.PP\nThe\n.B \\-a\noption of\n.BR ls (1)\nshows \\fIall\\fP.\n.EX\nls -a\n.EE\n"
        text += ".TP\n.B label\nIts meaning.\n"
        self.assertEqual(readers.roff_paragraphs(text), ["ls - list", "The -a option of ls(1) shows all.", "Its meaning."])

    def test_a_dictionary(self):
        entries = dict(readers.dictd_entries("00-database-info\n   about\nBird\n\n   An animal.\n\n   It sings.\nTree\n   A plant.\n"))
        self.assertEqual(entries, {"Bird": ["   An animal.", "   It sings."], "Tree": ["   A plant."]})

    def test_pages_and_packages_that_are_not_there(self):
        self.assertEqual(readers.html_paragraphs("<p>Salt &amp; <b>pepper</b></p><pre>x</pre><p class=a>Two</p>"), ["Salt & pepper", "Two"])
        with tempfile.TemporaryDirectory() as root:
            self.assertEqual([d for d in readers.fortunes(Path(root))], [])

    def test_fortunes(self):
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / "usr/share/games/fortunes"
            folder.mkdir(parents=True)
            (folder / "wisdom").write_text("First.\n%\nSecond\nline.\n%\n")
            (folder / "wisdom.dat").write_bytes(b"\0\1")
            found = [(name, p[0].strip()) for name, p in readers.fortunes(Path(root))]
            self.assertEqual(found[:2], [("wisdom 0", "First."), ("wisdom 1", "Second\nline.")])


if __name__ == "__main__":
    unittest.main()
