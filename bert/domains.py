#!/usr/bin/env python3
"""Texts of many domains out of unpacked Debian packages: some to learn from, some to measure on. bert/fetch_texts.sh runs it.

    python3 bert/domains.py ROOT FOLDER

ROOT is where the packages are unpacked. FOLDER has WordNet's texts.txt and held_out.txt already, and gets:

    domains/NAME.txt            texts to learn from, one a line: sentences, paragraphs and runs of paragraphs
    domains/NAME.held_out.txt   texts of the same domain, from other documents
    other/NAME.txt              texts of domains that are never learnt from
    mixed.txt                   as many texts of each of domains/, as samples for `siskin bert prune --calibrate`

No text to learn from shares a run of six words with a text to measure on.
"""

import random
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import readers

HELD_OUT = 24  # one document in as many is held out
MOST_TRAINING, MOST_HELD_OUT, MIXED = 40_000, 500, 800  # texts of a domain
SHORTEST, LONGEST = 12, 1800  # characters of a text
RUN = 6  # words in a row that texts on two sides of the split may not share


@dataclass(frozen=True)
class Domain:
    name: str
    read: Callable[[Path], Iterator[tuple[str, list[str]]]]  # of the root: documents, as a name and paragraphs
    trained: bool = True


DOMAINS = [
    Domain("anarchism", readers.anarchism),
    Domain("computing", readers.foldoc),
    Domain("dictionary", readers.gcide),
    Domain("fortunes", readers.fortunes),
    Domain("help", readers.gnome_help),
    Domain("manuals", readers.manuals),
    Domain("packages", readers.packages),
    Domain("perl", readers.perl),
    Domain("python", readers.python),
    Domain("policy", readers.policy, trained=False),
    Domain("questions", readers.questions, trained=False),
    Domain("satire", readers.devil, trained=False),
    Domain("stories", readers.austen, trained=False),
]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of RUN words of a text; of a shorter one, the text."""
    w = words(text)
    return {tuple(w[i : i + RUN]) for i in range(max(1, len(w) - RUN + 1))}


def is_prose(text: str) -> bool:
    plain = sum(c.isascii() and (c.isalpha() or c == " ") for c in text)
    return SHORTEST <= len(text) <= LONGEST and len(text.split()) >= 3 and plain >= 0.85 * len(text)


def sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z])", paragraph)


def shape(paragraphs: list[str], chance: random.Random) -> list[str]:
    """Texts of several lengths: a third of the paragraphs as they are, a third as sentences, a third with those that follow."""
    paragraphs = [" ".join(p.split()) for p in paragraphs]
    texts, i = [], 0
    while i < len(paragraphs):
        kind, text = chance.randrange(3), paragraphs[i]
        i += 1
        if kind == 0:
            texts += sentences(text)
            continue
        length = chance.randrange(200, LONGEST)
        while kind == 1 and i < len(paragraphs) and len(text) + 1 + len(paragraphs[i]) <= length:
            text += " " + paragraphs[i]
            i += 1
        texts += [text] if len(text) <= LONGEST else sentences(text)
    return [t.strip() for t in texts if is_prose(t.strip())]


def is_held_out(document: str) -> bool:
    return zlib.crc32(document.encode()) % HELD_OUT == 0


def sample(texts: list[str], most: int, chance: random.Random) -> list[str]:
    texts = list(dict.fromkeys(texts))
    return chance.sample(texts, most) if len(texts) > most else texts


def gather(domain: Domain, root: Path) -> tuple[list[str], list[str]]:
    """The texts of a domain to learn from, and those to measure on."""
    chance, training, held_out = random.Random(domain.name), [], []
    for document, paragraphs in domain.read(root):
        (training if domain.trained and not is_held_out(document) else held_out).extend(shape(paragraphs, chance))
    return sample(training, MOST_TRAINING, chance), sample(held_out, MOST_HELD_OUT, chance)


def without_shared_runs(training: list[str], taken: set[tuple[str, ...]]) -> list[str]:
    return [t for t in training if taken.isdisjoint(runs(t))]


def read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def main() -> None:
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    texts = {d.name: gather(d, root) for d in DOMAINS}
    glosses = read_lines(folder / "held_out.txt")
    texts["wordnet"] = (read_lines(folder / "texts.txt"), sample(glosses, MOST_HELD_OUT, random.Random("wordnet")))
    taken = set().union(*(runs(t) for t in glosses), *(runs(t) for _, held_out in texts.values() for t in held_out))

    (folder / "domains").mkdir(exist_ok=True)
    (folder / "other").mkdir(exist_ok=True)
    others = {d.name for d in DOMAINS if not d.trained}
    mixed, chance = [], random.Random(0)

    def write(path: str, lines: list[str]) -> None:
        (folder / path).write_text("".join(t + "\n" for t in lines), encoding="utf-8")

    for name, (training, held_out) in sorted(texts.items()):
        if not held_out:
            print(f"{name}: no text found, so this domain is left out", file=sys.stderr)
            continue
        if name in others:
            write(f"other/{name}.txt", held_out)
            print(f"{name}: {len(held_out)} texts, never learnt from")
            continue
        kept = without_shared_runs(training, taken)
        write(f"domains/{name}.txt", kept)
        write(f"domains/{name}.held_out.txt", held_out)
        mixed += sample(kept, MIXED, chance)
        print(f"{name}: {len(kept)} texts to learn from, {len(training) - len(kept)} too like a held-out one, {len(held_out)} held out")
    chance.shuffle(mixed)
    write("mixed.txt", mixed)


if __name__ == "__main__":
    main()
