#!/usr/bin/env python3
"""An encoder of the BERT family through siskin and through ONNX Runtime, by turns on one core. README.md says how to install it."""

import argparse
import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
try:
    from tokenizers import Tokenizer

    import encoder_export
    from encoder_turns import OnnxRuntime, Siskin
    from siskin import version_of
except ImportError as missing:
    raise SystemExit(f"{missing}: run this with the Python of the virtual environment that README.md makes")
import encoder_table as tables
import record

# Texts of a few tokens to some 200, on which vectors are compared.
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
# It makes one operator of each sum of a residual and the norm behind it, which in INT8 models takes longer than the two.
SLOWING = "SkipLayerNormFusion"
QUICK, FULL = {"rounds": 3, "turn_ms": 100}, {"rounds": 7, "turn_ms": 400}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2", help="the folder of a checkpoint")
    parser.add_argument("--siskin", type=Path, default=ROOT / "target" / "release" / "siskin", help="the siskin to measure")
    parser.add_argument("--quick", action="store_true", help="texts of 16 and 128 tokens and few rounds, in less than 2 minutes")
    parser.add_argument("--batches", action="store_true", help="measure 8 texts of 128 tokens too")
    parser.add_argument("--core", type=int, help="the core on which all run; the last one that may be used, if not given")
    parser.add_argument("--rounds", type=int, help=f"how often each has a turn: {FULL['rounds']}, or {QUICK['rounds']} with --quick")
    parser.add_argument("--turn-ms", type=float, help=f"milliseconds of a turn: {FULL['turn_ms']}, or {QUICK['turn_ms']} with --quick")
    args = parser.parse_args()
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    if not (args.model / "model.safetensors").exists():
        parser.error(f"there is no model.safetensors in {args.model}: bert/fetch_minilm.sh fetches one")
    return args


def sessions(model, folder):
    """ONNX Runtime in its three forms."""
    plain, quantized = folder / "f32.onnx", folder / "int8.onnx"
    encoder_export.export(model, plain)
    encoder_export.quantize(plain, quantized)
    return {
        tables.ORT_F32: OnnxRuntime(plain),
        tables.ORT_INT8: OnnxRuntime(quantized),
        tables.ORT_TUNED: OnnxRuntime(quantized, [SLOWING]),
    }


def compared(args, contestants, all_of_them, folder):
    """The least cosine of each one's vectors to those of ONNX Runtime in f32. Ends the program if siskin's f32 is another model."""
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokens = [found.ids for found in tokenizer.encode_batch(TEXTS)]
    expected = contestants[tables.ORT_F32].padded(tokens)
    cosines = {}
    for who in all_of_them:
        if who.precision:
            vectors = contestants[who.name].vectors(who.precision, TEXTS, folder)
        elif not who.flags:
            # One text a call, as times are taken: a range of bytes is then that of one text.
            vectors = contestants[who.name].alone(tokens)
        else:
            continue
        cosines[who.name] = tables.least_cosine(vectors, expected)
        if who.precision == "f32" and (why := tables.refusal(cosines[who.name])):
            raise SystemExit(f"{why}; no times are taken")
    return cosines


def main():
    args = arguments()
    version = version_of(args.siskin)
    core = max(os.sched_getaffinity(0)) if args.core is None else args.core
    # Processes that are started from now on run there too.
    os.sched_setaffinity(0, {core})
    all_of_them, shapes = tables.everyone(), tables.shapes(args.quick, args.batches)
    vocabulary, times = encoder_export.config_of(args.model)["vocab_size"], tables.Times()
    with tempfile.TemporaryDirectory(prefix="encoders-") as temporary:
        folder = Path(temporary)
        contestants = sessions(args.model, folder)
        contestants |= {who.name: Siskin(args.siskin, args.model, who.flags) for who in all_of_them if who.flags}
        cosines = compared(args, contestants, all_of_them, folder)
    for turn in range(args.rounds):
        for shape in shapes:
            for who in all_of_them:
                times.add(shape, who.name, contestants[who.name].turn(shape, vocabulary, args.turn_ms))
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr, flush=True)
    ort = f"ONNX Runtime {importlib.metadata.version('onnxruntime')}"
    print(f"{args.model.name} on {record.cpu_name()}, one thread; {version}, {ort}, {args.rounds} rounds of {args.turn_ms:g} ms.")
    print(f"Tuned is without the optimizer {SLOWING}.")
    print(f"A cosine is that to the vectors of {tables.ORT_F32}, the least of {len(TEXTS)} texts.")
    print("Pruned is by magnitude without training, for speed alone: those vectors mean nothing.\n")
    print("\n".join(tables.table(times, shapes, all_of_them, cosines)))


if __name__ == "__main__":
    main()
