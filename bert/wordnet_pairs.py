#!/usr/bin/env python3
"""Pairs of texts whose order WordNet gives, for `siskin bert accuracy --pairs`.

    bert/wordnet_pairs.py WORDNET FILE    # WORDNET is a folder that has data.noun and data.verb

Writes lines of three fields with tabs between: a grade and two texts.

    2   two texts of one synset: its definition and an example, or two examples
    1   definitions of siblings: two synsets that have a hypernym in common
    0   texts of two synsets that are not related: neither has a hypernym, or a hypernym of one, in common with the other

Only synsets that fetch_texts.sh holds out are used, one in 32; there are as many pairs of each grade, and the same ones in each run.
"""

import random
import re
import sys
from pathlib import Path

# One in so many synsets is held out: as in fetch_texts.sh.
HELD_OUT = 32
# Pairs of each grade, at most.
PAIRS = 500
# Pairs of siblings under one hypernym, at most: some have hundreds of hyponyms.
OF_A_HYPERNYM = 3


class Synset:
    """A line of a data file."""

    def __init__(self, line):
        fields, gloss = line.split("|", 1)
        fields = fields.split()
        self.offset = fields[0]
        words = int(fields[3], 16)
        first = 5 + 2 * words
        pointers = [fields[first + 4 * i : first + 4 * i + 4] for i in range(int(fields[first - 1]))]
        # @ is a hypernym, @i the class of an instance.
        self.hypernyms = {offset for symbol, offset, _, _ in pointers if symbol in ("@", "@i")}
        definition = re.sub(r"([ ]*;)+[ ]*$", "", re.sub(r'"[^"]*"', "", gloss.strip()))
        self.definition = strip(definition)
        self.examples = [text for text in map(strip, re.findall(r'"([^"]+)"', gloss)) if len(text) > 5]


def strip(text):
    return " ".join(text.split()).strip(" ;:")


def read(path):
    """All synsets by their offsets, and those that are held out. Lines of the licence begin with a space."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(" ")]
    synsets = [Synset(line) for line in lines]
    held = [s for number, s in enumerate(synsets, 1) if number % HELD_OUT == 0 and len(s.definition) > 5]
    return {s.offset: s for s in synsets}, held


def above(synset, synsets):
    """It, its hypernyms and theirs."""
    found = {synset.offset} | synset.hypernyms
    for offset in synset.hypernyms:
        found |= synsets[offset].hypernyms
    return found


def same(held):
    """Two texts of each synset that has as many."""
    for synset in held:
        if len(synset.examples) > 1:
            yield synset.examples[0], synset.examples[1]
        if synset.examples:
            yield synset.definition, synset.examples[-1]


def siblings(held, chance):
    children = {}
    for synset in held:
        for offset in synset.hypernyms:
            children.setdefault(offset, []).append(synset.definition)
    for offset in sorted(children):
        found = children[offset]
        chance.shuffle(found)
        for a, b in list(zip(found[::2], found[1::2]))[:OF_A_HYPERNYM]:
            yield a, b


def unrelated(held, synsets, chance, count):
    """Definitions of two synsets, and as often a definition and an example: what is related has both forms, too."""
    with_examples = [synset for synset in held if synset.examples]
    for i in range(count):
        a = b = held[0]
        while not above(a, synsets).isdisjoint(above(b, synsets)):
            a, b = chance.choice(held), chance.choice(with_examples if i % 2 else held)
        yield a.definition, b.examples[0] if i % 2 else b.definition


def pairs(folder):
    """All pairs, as (grade, text, text)."""
    chance = random.Random(1)
    kinds = [read(folder / f"data.{kind}") for kind in ("noun", "verb")]
    related = {
        2: [pair for _, held in kinds for pair in same(held)],
        1: [pair for _, held in kinds for pair in siblings(held, chance)],
    }
    count = min(PAIRS, *map(len, related.values()))
    chosen = [(grade, *pair) for grade, found in related.items() for pair in chance.sample(found, count)]
    # Nouns and verbs half and half.
    for (synsets, held), part in zip(kinds, (count - count // 2, count // 2)):
        chosen += [(0, *pair) for pair in unrelated(held, synsets, chance, part)]
    return chosen


def main():
    if len(sys.argv) != 3:
        sys.exit(f"expected a folder of WordNet and the file to write, as in: {sys.argv[0]} /usr/share/wordnet pairs.tsv")
    folder, out = map(Path, sys.argv[1:])
    try:
        chosen = pairs(folder)
        out.write_text("".join(f"{grade}\t{a}\t{b}\n" for grade, a, b in chosen), encoding="utf-8")
    except OSError as error:
        sys.exit(str(error))
    print(f"{len(chosen)} pairs: {out}")


if __name__ == "__main__":
    main()
