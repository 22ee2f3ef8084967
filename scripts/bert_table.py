#!/usr/bin/env python3
"""Measures BERT-base and BERT-large layers with `siskin bench --serve` and prints the README's table.

    cargo build --release -p siskin-cli && scripts/bert_table.py [--floats] [--quick] [--json FILE]

Each case is one process line: whole calls, epilogue included, as a share of the dot-product peak that the same process
measures around the case, on stored values. --quick takes m = 128 only, --floats the layers of f32, bfloat16 and of INT8
weights alone.
"""

import argparse
import json
import statistics
import subprocess

LAYERS = [(768, 768), (3072, 768), (768, 3072), (1024, 1024), (4096, 1024), (1024, 4096)]
SMALL = [(256, 256), (1024, 256), (256, 1024)]
LOW, HIGH = (0.7, 0.75, 0.8), (0.85, 0.9)


def case(m, n, k, block="dense", sparsity=0.0, epilogue=("bias",), **more):
    base = dict(op="linear", m=m, n=n, k=k, x="u8", y="u8", block=block, sparsity=sparsity, epilogue=epilogue)
    return {**base, "threads": 1, "min_ms": 80, **more}


def packed(c):
    return {**c, "in": "packed", "out": "packed"}


class Siskin:
    def __init__(self, path, log):
        self.process = subprocess.Popen([path, "bench", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.log = log

    def __call__(self, c):
        self.process.stdin.write(json.dumps(c) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer or not answer["checked"]:
            raise SystemExit(f"{c}: {answer}")
        if self.log:
            print(json.dumps(answer), file=self.log, flush=True)
        return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--siskin", default="target/release/siskin")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--floats", action="store_true")
    parser.add_argument("--json", type=argparse.FileType("w"))
    args = parser.parse_args()
    run = Siskin(args.siskin, args.json)
    tokens = (128,) if args.quick else (128, 384, 1024)

    def row(name, shares):
        print(f"| {name} | {statistics.median(shares):.0f} % | {min(shares):.0f} % | {max(shares):.0f} % | {len(shares)} |", flush=True)

    def share(cases):
        return [run(c)["pct_peak"] for c in cases]

    def layers(block, sparsities):
        return [case(m, n, k, block, s) for n, k in LAYERS for m in tokens for s in sparsities]

    print("| case | median | min | max | cases |\n|---|---|---|---|---|")
    if args.floats:
        return float_layers(run, row, share, layers, tokens)
    for block in ("4x1", "1x4", "4x4", "16x4", "16x16", "32x32"):
        row(f"{block}, packed to packed, 70-90 %", share(map(packed, layers(block, LOW + HIGH))))
        row(f"{block}, tokens to tokens, 70-80 %", share(layers(block, LOW)))
        row(f"{block}, tokens to tokens, 85-90 %", share(layers(block, HIGH)))
    small = [case(128, n, k, "4x1", 0.9) for n, k in SMALL]
    row("4x1, 256-wide layers, m = 128, 90 %, packed to packed", share(map(packed, small)))
    row("4x1, 256-wide layers, m = 128, 90 %, tokens to tokens", share(small))
    row("dense, u8 to u8", share([case(m, n, k) for n, k in LAYERS for m in tokens]))
    row("dense, AVX2 tier, of that tier's peak", share([case(128, n, k, isa="avx2") for n, k in LAYERS]))

    def ratio(name, a, b):
        pairs = [(run(x)["us_min"], run(y)["us_min"]) for x, y in zip(a, b)]
        ratios = [x / y for x, y in pairs]
        print(f"| {name} | {statistics.median(ratios):.2f} x | {min(ratios):.2f} x | {max(ratios):.2f} x | {len(ratios)} |", flush=True)

    print("\n| ratio of times | median | min | max | cases |\n|---|---|---|---|---|")
    gelu = [packed(case(384, 3072, 768, "4x1", 0.8)) for _ in range(5)]
    for name in ("gelu", "gelu_table"):
        with_it = [{**c, "epilogue": ["bias", name]} for c in gelu]
        ratio(f"{name} over requantize alone, 4x1, 80 %, 3072x768, m = 384", with_it, gelu)
    dense = [case(m, n, k) for n, k in LAYERS for m in tokens]
    floats = [{**c, "x": "f32", "y": "f32"} for c in dense]
    ratio("f32 in and out, quantized per token, over u8 to i32, dense", floats, [{**c, "y": "i32", "epilogue": []} for c in dense])
    halves = [packed(case(384, n, k, "4x1", 0.8)) for n, k in LAYERS] + [case(384, n, k) for n, k in LAYERS]
    ratio("one thread over two, 4x1 80 % and dense, m = 384", halves, [{**c, "threads": 2} for c in halves])
    best = [case(384, n, k) for n, k in LAYERS]
    for sparsity in (0.7, 0.8, 0.9):
        sparse = [{**c, "block": "4x1", "sparsity": sparsity} for c in best]
        ratio(f"dense over 4x1 at {sparsity:.0%}: the speed-up, tokens to tokens, m = 384", best, sparse)

    print("\n| m = 1, share of a plain loop's read bandwidth | median | min | max | cases |\n|---|---|---|---|---|")
    for block in ("dense", "4x4", "4x1"):
        answers = [run(case(1, n, k, block, 0.0 if block == "dense" else 0.8)) for n, k in LAYERS]
        row(block, [100 * a["read_gbps"] / a["loop_gbps"] for a in answers])
    print("\n| packed bytes a stored value, 4x1 | median | min | max | cases |\n|---|---|---|---|---|")
    sizes = [run(case(16, n, k, "4x1", s))["bytes_per_value"] for n, k in LAYERS for s in (0.8, 0.85, 0.9)]
    print(f"| 80-90 % | {statistics.median(sizes):.2f} | {min(sizes):.2f} | {max(sizes):.2f} | {len(sizes)} |")


def float_layers(run, row, share, layers, tokens):
    def of(dtype, cases):
        return [{**c, "w": dtype, "x": dtype, "y": dtype} for c in cases]

    dense = [case(m, n, k) for n, k in LAYERS for m in tokens]
    blocks = {"f32": ("16x1", "4x1", "4x4", "16x4", "16x16", "32x32", "1x4", "1x16"), "bf16": ("4x4", "16x4", "16x16", "32x32")}
    for dtype in ("f32", "bf16"):
        row(f"{dtype} dense", share(of(dtype, dense)))
        for block in blocks[dtype]:
            row(f"{dtype} {block}, 70-90 %", share(of(dtype, layers(block, LOW + HIGH))))
    row("f32 dense, AVX2 tier, of its peak", share(of("f32", [case(128, n, k, isa="avx2") for n, k in LAYERS])))
    row("f32 4x1, AVX2 tier, of its peak, 80 %", share(of("f32", [case(128, n, k, "4x1", 0.8, isa="avx2") for n, k in LAYERS])))

    print("\n| ratio of times | median | min | max | cases |\n|---|---|---|---|---|")
    for dtype in ("f32", "bf16"):
        for block in ("dense", "4x4"):
            cases = of(dtype, [case(384, n, k, block, 0.8) for n, k in LAYERS])
            pairs = [(run(c)["us_min"], run({**c, "threads": 2})["us_min"]) for c in cases]
            ratios = [a / b for a, b in pairs]
            print(f"| one thread over two, {dtype} {block}, m = 384 | {statistics.median(ratios):.2f} x | {min(ratios):.2f} x | {max(ratios):.2f} x | {len(ratios)} |", flush=True)

    print("\n| m = 1, share of a plain loop's read bandwidth | median | min | max | cases |\n|---|---|---|---|---|")
    decode = {"f32": {"w": "f32"}, "bf16": {"w": "bf16", "x": "bf16", "y": "bf16"}, "INT8 weights": {"weight_only": True}, "INT8 weights in groups of 64": {"group_size": 64}}
    for where, shapes in (("in the caches", LAYERS), ("in memory", [(8192, 8192), (11008, 4096), (4096, 14336)])):
        for name, more in decode.items():
            cases = [{**case(1, n, k), "x": "f32", "y": "f32", **more} for n, k in shapes]
            row(f"{name}, dense, {where}", [100 * a["read_gbps"] / a["loop_gbps"] for a in map(run, cases)])


main()
