"""Texts to learn from, as batches of tokens: several domains in turn, texts of about the same length together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

LENGTHS = (16, 32, 64, 128, 256)  # texts are padded to the next of these, and cut after the last; each is compiled for itself
WORDNET_SHARE = 0.3  # of the tokens; other domains share the rest alike


@dataclass
class Corpus:
    """Texts as tokens, in order of domain and length."""

    texts: list[list[int]]
    groups: list[np.ndarray]  # numbers of the texts of one domain and one length
    lengths: list[int]
    shares: np.ndarray  # how often a group is drawn, so that each domain gets its share of the tokens


def read_lines(path: Path, most: int | None = None) -> list[str]:
    """The lines that are not empty; if there are more than `most`, as many from all over the file."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if most is not None and len(lines) > most:
        lines = [lines[i * len(lines) // most] for i in range(most)]
    return lines


def domain_files(folder: Path) -> list[Path]:
    found = sorted(p for p in (folder / "domains").glob("*.txt") if not p.name.endswith(".held_out.txt"))
    if not found:
        raise FileNotFoundError(f"expected texts to learn from in {folder / 'domains'}, as bert/fetch_texts.sh writes them, and found none")
    return found


def held_out_files(folder: Path) -> dict[str, Path]:
    """Files of texts to measure on, by name: held-out documents of the domains, and `other NAME` of domains never learnt from."""
    held_out = {p.name.removesuffix(".held_out.txt"): p for p in sorted((folder / "domains").glob("*.held_out.txt"))}
    return held_out | {"other " + p.stem: p for p in sorted((folder / "other").glob("*.txt"))}


def padded_length(tokens: int) -> int:
    return next((length for length in LENGTHS if tokens <= length), LENGTHS[-1])


def share_of_domains(names: list[str]) -> dict[str, float]:
    others = [n for n in names if n != "wordnet"]
    if len(others) in (0, len(names)):
        return {n: 1 / len(names) for n in names}
    return {n: WORDNET_SHARE if n == "wordnet" else (1 - WORDNET_SHARE) / len(others) for n in names}


def corpus(domains: dict[str, list[list[int]]]) -> Corpus:
    """Groups the tokenized texts of each domain by length."""
    texts, groups, lengths, tokens, owners = [], [], [], [], []
    for name, encoded in sorted(domains.items()):
        padded = np.array([padded_length(len(t)) for t in encoded])
        for length in sorted(set(padded.tolist())):
            members = np.flatnonzero(padded == length)
            groups.append(members + len(texts))
            lengths.append(length)
            tokens.append(length * len(members))
            owners.append(name)
        texts += encoded
    share, total = share_of_domains(sorted(domains)), {}
    for name, count in zip(owners, tokens):
        total[name] = total.get(name, 0) + count
    shares = np.array([share[name] * count / total[name] for name, count in zip(owners, tokens)])
    return Corpus(texts, groups, lengths, shares / shares.sum())


def pad(texts: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and a mask, [texts, length]; a text that is longer keeps its last token, the separator."""
    ids, mask = np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), np.float32)
    for i, text in enumerate(texts):
        text = text if len(text) <= length else text[: length - 1] + text[-1:]
        ids[i, : len(text)], mask[i, : len(text)] = text, 1.0
    return ids, mask


def batch(corpus: Corpus, tokens: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """About `tokens` tokens of one padded length: the length is drawn, and then each text's domain among those that have it."""
    length = corpus.lengths[chance.choice(len(corpus.groups), p=corpus.shares)]
    candidates = [g for g, l in enumerate(corpus.lengths) if l == length]
    weights = corpus.shares[candidates] / corpus.shares[candidates].sum()
    drawn = chance.choice(candidates, size=max(4, tokens // length), p=weights)
    return pad([corpus.texts[chance.choice(corpus.groups[g])] for g in drawn], length)


def encode(tokenizer, lines: list[str], most_tokens: int) -> list[list[int]]:
    encoded = [e.ids for e in tokenizer.encode_batch(lines)]
    return [t if len(t) <= most_tokens else t[: most_tokens - 1] + t[-1:] for t in encoded]


def read_corpus(folder: Path, most: int, tokenizer) -> Corpus:
    """At most `most` texts of each domain."""
    return corpus({p.stem: encode(tokenizer, read_lines(p, most), LENGTHS[-1]) for p in domain_files(folder)})
