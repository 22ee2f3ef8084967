#!/usr/bin/env python3
"""An encoder of the BERT family through siskin and through other libraries, by turns on one core. README.md says how to install them."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
try:
    import numpy as np
    from tokenizers import Tokenizer

    import encoder_export
    import encoder_integers
except ImportError as missing:
    raise SystemExit(f"{missing}: run this with the Python of the virtual environment that README.md makes")
import encoder_record
import encoder_table as tables
import record
from encoder_turns import said, started
from siskin import version_of

# Texts of a few tokens to some 200, on which vectors are compared; of generated weights, texts of so many random tokens.
TEXTS = [
    "A bird sings.",
    "The kettle boils, and nobody gets up to turn it off.",
    "How do I reset the password of my router?",
    "def area(width, height): return width * height",
    "On 14 March the committee voted 7 to 2 against the proposal; its reasons were published a week later.",
    "Der Zug nach Hamburg fährt heute von Gleis 9 ab.",
    "Interest rates rose by a quarter of a percent, which surprised few of those who had read the minutes.",
    "Snow " * 60,
    "The harbour was quiet in the morning, and the boats lay close together while the fog moved slowly out to sea. " * 8,
]
LENGTHS, SAMPLE_LENGTHS = [5, 14, 11, 12, 22, 14, 21, 62, 178], [64] * 32
SAMPLES = ROOT / "bert" / "src" / "samples.txt"
QUICK, FULL = {"rounds": 3, "turn_ms": 100}, {"rounds": 7, "turn_ms": 400}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2", help="the folder of a checkpoint")
    parser.add_argument("--siskin", type=Path, default=ROOT / "target" / "release" / "siskin", help="the siskin to measure")
    parser.add_argument("--candle", type=Path, metavar="PROGRAM", help="measure candle by this program")
    parser.add_argument("--candle-mkl", type=Path, metavar="PROGRAM", help="measure candle with MKL by this program")
    parser.add_argument("--unpublished", type=Path, metavar="PYTHON", help="show DeepSparse too, by a Python that has it; never recorded")
    parser.add_argument("--peers", metavar="NAME,..", help="only these libraries beside ONNX Runtime")
    parser.add_argument("--quick", action="store_true", help="texts of 16 and 128 tokens and few rounds")
    parser.add_argument("--batches", action="store_true", help="measure 8 texts of 128 tokens too")
    parser.add_argument("--seq", type=int, metavar="TOKENS", help="measure one text of so many tokens alone")
    parser.add_argument("--core", type=int, help="the core on which all run; the last one that may be used, if not given")
    parser.add_argument("--rounds", type=int, help=f"how often each has a turn: {FULL['rounds']}, or {QUICK['rounds']} with --quick")
    parser.add_argument("--turn-ms", type=float, help=f"milliseconds of a turn: {FULL['turn_ms']}, or {QUICK['turn_ms']} with --quick")
    parser.add_argument("--record", metavar="RECORD", help="write the times into a record, or into that of this CPU in a folder")
    args = parser.parse_args()
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    if not (args.model / "model.safetensors").exists():
        parser.error(f"there is no model.safetensors in {args.model}: bert/fetch_minilm.sh fetches one")
    for flag in ("candle", "candle_mkl", "unpublished"):
        if (path := getattr(args, flag)) and not path.exists():
            parser.error(f"--{flag.replace('_', '-')}: there is no {path}")
    args.everyone = tables.everyone(args.unpublished)
    if args.peers:
        chosen = {*args.peers.split(","), tables.ORT, tables.SISKIN}
        if unknown := chosen - {who.library for who in args.everyone}:
            parser.error(f"--peers: there is no {min(unknown)}")
        args.everyone = [who for who in args.everyone if who.library in chosen]
    return args


class Problem:
    """What all are given, in a folder that is for this run alone."""

    def __init__(self, args, folder):
        self.args, self.folder, self.model = args, folder, args.model
        self.vocabulary = encoder_export.config_of(self.model)["vocab_size"]
        texts, samples = TEXTS, SAMPLES.read_text(encoding="utf-8").split("\n")
        if not (self.model / "tokenizer.json").exists():
            self.model = encoder_export.with_tokenizer(self.model, folder / "model")
            texts, samples = (encoder_export.random_texts(lengths, self.vocabulary, len(lengths)) for lengths in (LENGTHS, SAMPLE_LENGTHS))
        samples = [text for text in samples if text.strip()]
        self.texts, self.samples = self.written("texts.txt", texts), self.written("samples.txt", samples)
        tokenizer = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokens, tokens = ([found.ids for found in tokenizer.encode_batch(some)] for some in (texts, samples))
        (folder / "samples.json").write_text(json.dumps(tokens), encoding="utf-8")
        encoder_export.export(self.model, folder / "f32.onnx")
        encoder_export.quantize(folder / "f32.onnx", folder / "int8.onnx")
        for who in args.everyone:
            if who.library == tables.DEEPSPARSE:
                self.integers(who, tokens)

    def written(self, name, texts):
        path = self.folder / name
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return path

    def integers(self, who, tokens):
        """The model that DeepSparse runs: siskin prunes the weights, so both have the same."""
        f32 = self.folder / "f32.onnx"
        if who.pruned:
            (block, part), pruned, f32 = who.pruned, self.folder / who.form, self.folder / "pruned.onnx"
            how = ("--method", "magnitude", "--block", block, "--sparsity", part / 100, "--out", pruned)
            said(self.args.siskin, "bert", "prune", "--model", self.model, *how)
            encoder_export.export(pruned, f32)
        encoder_integers.convert(f32, self.folder / f"{who.form}.onnx", tokens)

    def ids(self, shape):
        """Random tokens."""
        return np.random.default_rng(1).integers(0, self.vocabulary, shape).tolist()


def start(args, problem):
    """All who can take part by their names; the others are named with the reason."""
    programs = {"siskin": args.siskin, "candle": args.candle, "candle_mkl": args.candle_mkl, "deepsparse": args.unpublished}
    contestants = {}
    for who in args.everyone:
        contestant = started(who, programs, problem.model, problem.folder)
        if why := f"--{who.form.replace('_', '-')} names no program" if contestant is None else contestant.missing:
            print(f"NOT RUN: {who.name}: {why}", flush=True)
        else:
            contestants[who.name] = contestant
    return contestants


def compared(problem, all_of_them, contestants):
    """The least cosine of each one's vectors to those of ONNX Runtime in f32. Ends the program if f32 is another model."""
    expected = contestants[tables.ORT_F32].vectors(problem.tokens)
    cosines = {}
    for who in all_of_them:
        # What is pruned by magnitude means nothing.
        if who.pruned:
            continue
        if who.library == tables.SISKIN:
            vectors = contestants[who.name].vectors(who.precision, problem.texts, problem.samples)
        else:
            vectors = contestants[who.name].vectors(problem.tokens)
        cosines[who.name] = tables.least_cosine(vectors, expected)
        if who.kind == "f32" and (why := tables.refusal(who.name, cosines[who.name])):
            raise SystemExit(f"{why}; no times are taken")
    return cosines


def main():
    args = arguments()
    version = version_of(args.siskin)
    core = max(os.sched_getaffinity(0)) if args.core is None else args.core
    # Processes that are started from now on run there too.
    os.sched_setaffinity(0, {core})
    shapes = [tables.Shape(1, args.seq)] if args.seq else tables.shapes(args.quick, args.batches)
    times = tables.Times()
    with tempfile.TemporaryDirectory(prefix="encoders-") as temporary:
        problem = Problem(args, Path(temporary))
        contestants = start(args, problem)
        all_of_them = [who for who in args.everyone if who.name in contestants]
        cosines = compared(problem, all_of_them, contestants)
        for turn in range(args.rounds):
            for shape in shapes:
                for who in all_of_them:
                    times.add(shape, who.name, contestants[who.name].turn(shape, problem.ids(shape), args.turn_ms))
            print(f"round {turn + 1} of {args.rounds}", file=sys.stderr, flush=True)
        for contestant in contestants.values():
            contestant.ended()
    def versions(some):
        return list(dict.fromkeys(contestants[who.name].version for who in some if who.library != tables.SISKIN))

    print(f"{args.model.name} on {record.cpu_name()}, one thread; {version}, {', '.join(versions(all_of_them))}.")
    print(f"{args.rounds} rounds of {args.turn_ms:g} ms.")
    print(f"A cosine is that to the vectors of {tables.ORT_F32}, the least of {len(TEXTS)} texts.")
    print("Pruned is by magnitude without training, for speed alone: those vectors mean nothing.")
    for title, columns, rows in tables.tables(times, shapes, all_of_them, cosines):
        print(f"\n{title}:\n\n" + "\n".join(tables.table(columns, rows)))
    if args.record:
        published = [who for who in all_of_them if who.library != tables.DEEPSPARSE]
        encoder_record.write(args, versions(published), tables.tables(times, shapes, published, cosines))


if __name__ == "__main__":
    main()
