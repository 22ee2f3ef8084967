#!/usr/bin/env python3
"""Measures BERT-base and BERT-large layers with `siskin bench --serve` and prints the README's table.

    cargo build --release -p siskin-cli && scripts/bert_table.py [--floats | --attention | --ecoformer] [--quick] [--json FILE]

Each case is one process line: whole calls, epilogue included, as a share of the dot-product peak that the same process
measures around the case, on stored values. --quick takes m = 128 only, --floats the layers of f32, bfloat16 and of INT8
weights alone, --attention attention with 12 heads of 64, --ecoformer one head of 64 by codes of 16 bits.
"""

import argparse
import json
import statistics
import subprocess

LAYERS = [(768, 768), (3072, 768), (768, 3072), (1024, 1024), (4096, 1024), (1024, 4096)]
SMALL = [(256, 256), (1024, 256), (256, 1024)]
LARGE = [(8192, 8192), (11008, 4096), (4096, 14336)]
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


class Table:
    def __init__(self, run, tokens):
        self.run, self.tokens = run, tokens

    def head(self, *columns):
        print("\n| " + " | ".join([*columns, "median", "min", "max", "cases"]) + " |\n|" + "---|" * (len(columns) + 4))

    def row(self, name, values, unit="%", digits=0):
        cells = [f"{f(values):.{digits}f} {unit}" for f in (statistics.median, min, max)]
        print(f"| {name} | {' | '.join(cells)} | {len(values)} |", flush=True)

    def share(self, name, cases):
        """Of the peak."""
        self.row(name, [self.run(c)["pct_peak"] for c in cases])

    def ratio(self, name, a, b):
        """How many times as long the cases of a take."""
        self.row(name, [self.run(x)["us_min"] / self.run(y)["us_min"] for x, y in zip(a, b)], "x", 2)

    def reading(self, name, cases):
        """Of a plain loop's bandwidth."""
        answers = [self.run(c) for c in cases]
        self.row(name, [100 * a["read_gbps"] / a["loop_gbps"] for a in answers])

    def layers(self, block="dense", sparsities=(0.0,)):
        return [case(m, n, k, block, s) for n, k in LAYERS for m in self.tokens for s in sparsities]


def int8(t):
    t.head("case")
    for block in ("4x1", "1x4", "4x4", "16x4", "16x16", "32x32"):
        t.share(f"{block}, packed to packed, 70-90 %", map(packed, t.layers(block, LOW + HIGH)))
        t.share(f"{block}, tokens to tokens, 70-80 %", t.layers(block, LOW))
        t.share(f"{block}, tokens to tokens, 85-90 %", t.layers(block, HIGH))
    small = [case(128, n, k, "4x1", 0.9) for n, k in SMALL]
    t.share("4x1, 256-wide layers, m = 128, 90 %, packed to packed", map(packed, small))
    t.share("4x1, 256-wide layers, m = 128, 90 %, tokens to tokens", small)
    t.share("dense, u8 to u8", t.layers())
    t.share("dense, AVX2 tier, of that tier's peak", [case(128, n, k, isa="avx2") for n, k in LAYERS])

    t.head("ratio of times")
    gelu = [packed(case(384, 3072, 768, "4x1", 0.8)) for _ in range(5)]
    for name in ("gelu", "gelu_table"):
        with_it = [{**c, "epilogue": ["bias", name]} for c in gelu]
        t.ratio(f"{name} over requantize alone, 4x1, 80 %, 3072x768, m = 384", with_it, gelu)
    floats = [{**c, "x": "f32", "y": "f32"} for c in t.layers()]
    sums = [{**c, "y": "i32", "epilogue": []} for c in t.layers()]
    t.ratio("f32 in and out, quantized per token, over u8 to i32, dense", floats, sums)
    dense = [case(384, n, k) for n, k in LAYERS]
    both = [packed({**c, "block": "4x1", "sparsity": 0.8}) for c in dense] + dense
    t.ratio("one thread over two, 4x1 80 % and dense, m = 384", both, [{**c, "threads": 2} for c in both])
    for sparsity in (0.7, 0.8, 0.9):
        sparse = [{**c, "block": "4x1", "sparsity": sparsity} for c in dense]
        t.ratio(f"dense over 4x1 at {sparsity:.0%}: the speed-up, tokens to tokens, m = 384", dense, sparse)

    t.head("m = 1, share of a plain loop's read bandwidth")
    for block in ("dense", "4x4", "4x1"):
        t.reading(block, [case(1, n, k, block, 0.8) for n, k in LAYERS])
    t.head("packed bytes a stored value")
    sizes = [case(16, n, k, "4x1", s) for n, k in LAYERS for s in (0.8, 0.85, 0.9)]
    t.row("4x1, 80-90 %", [t.run(c)["bytes_per_value"] for c in sizes], "", 2)


def floats(t):
    def of(dtype, cases):
        return [{**c, "w": dtype, "x": dtype, "y": dtype} for c in cases]

    t.head("case")
    blocks = {
        "f32": ("16x1", "4x1", "4x4", "16x4", "16x16", "32x32", "1x4", "1x16"),
        "bf16": ("4x4", "16x4", "16x16", "32x32"),
    }
    for dtype in ("f32", "bf16"):
        t.share(f"{dtype} dense", of(dtype, t.layers()))
        for block in blocks[dtype]:
            t.share(f"{dtype} {block}, 70-90 %", of(dtype, t.layers(block, LOW + HIGH)))
    for block in ("dense", "4x1"):
        cases = [case(128, n, k, block, 0.8, isa="avx2") for n, k in LAYERS]
        t.share(f"f32 {block}, 80 %, m = 128, AVX2 tier, of that tier's peak", of("f32", cases))

    t.head("ratio of times")
    dense = [case(384, n, k) for n, k in LAYERS]
    for dtype in ("f32", "bf16"):
        both = of(dtype, dense + [{**c, "block": "4x4", "sparsity": 0.8} for c in dense])
        t.ratio(f"one thread over two, {dtype}, dense and 4x4 80 %, m = 384", both, [{**c, "threads": 2} for c in both])
    for sparsity in (0.7, 0.8, 0.9):
        sparse = [{**c, "block": "4x1", "sparsity": sparsity} for c in dense]
        t.ratio(f"dense f32 over 4x1 f32 at {sparsity:.0%}: the speed-up, m = 384", of("f32", dense), of("f32", sparse))

    t.head("m = 1, share of a plain loop's read bandwidth")
    kinds = {
        "f32": {"w": "f32"},
        "bf16": {"w": "bf16"},
        "f16": {"w": "f16"},
        "INT8 weights, x f32": {"weight_only": True, "x": "f32", "y": "f32"},
        "INT8 weights by 64, x f32": {"group_size": 64, "x": "f32", "y": "f32"},
    }
    for where, shapes in (("in the caches", LAYERS), ("in memory", LARGE)):
        for name, kind in kinds.items():
            of_kind = [{f: v for f, v in case(1, n, k).items() if f not in "xy"} | kind for n, k in shapes]
            t.reading(f"{name}, dense, {where}", of_kind)


def attention(t):
    def case(dtype, seq, **more):
        return {"op": "attention", "dtype": dtype, "seq": seq, "threads": 1, "min_ms": 200, **more}

    dtypes = ("f32", "bf16", "int8")
    # So weak a clip that it skips nothing, of rows so flat.
    weak = {"scores": "flat", "softmax": {"gamma": -1e-5, "zeta": 1.0}}
    t.head("case")
    for dtype in dtypes:
        for seq in (128, 384, 512, 1024) if len(t.tokens) == 1 else (128, 384, 512, 1024, 4096):
            t.share(f"{dtype}, {seq} tokens", [case(dtype, seq) for _ in range(5)])
    t.share("f32, 384 tokens, AVX2 tier, of that tier's peak", [case("f32", 384, isa="avx2") for _ in range(5)])

    t.head("ratio of times")
    for dtype in dtypes:
        flat = [case(dtype, 384, scores="flat") for _ in range(7)]
        t.ratio(f"{dtype}, 384 tokens: clipped, nothing skipped, over standard", [c | weak for c in flat], flat)
    recipes = {"BERT": (128, {"gamma": -0.025, "zeta": 1.0}), "OPT": (512, {"alpha": 12, "max_len": 512})}
    for dtype in dtypes:
        for name, (seq, softmax) in recipes.items():
            peaked = [case(dtype, seq, scores="peaked", causal=name == "OPT", seed=i) for i in range(5)]
            clipped = [c | {"softmax": softmax} for c in peaked]
            t.ratio(f"{dtype}, {name}'s clip, peaked scores: standard over clipped", peaked, clipped)
    lengths = [round(512 * (0.2 + 0.8 * i / 15)) for i in range(16)]  # 0.6 of 512 in the mean
    cu_seqlens = [sum(lengths[:i]) for i in range(17)]
    share = sum(n * n for n in lengths) / (16 * 512 * 512)
    for dtype in dtypes:
        padded = [case(dtype, 512, batch=16) for _ in range(5)]
        packed = [{k: v for k, v in case(dtype, 0, cu_seqlens=cu_seqlens).items() if k != "seq"} for _ in range(5)]
        t.ratio(f"{dtype}, 16 sequences of 102 to 512, packed over padded (of operations: {share:.2f})", packed, padded)
    for dtype in dtypes:
        one = [case(dtype, seq) for seq in (384, 512, 1024)]
        t.ratio(f"{dtype}, one thread over two", one, [c | {"threads": 2} for c in one])

    t.head("a query against a cache, share of a plain loop's read bandwidth")
    for dtype in dtypes:
        for kv_len in (4096, 32768) if len(t.tokens) == 1 else (4096, 32768, 131072):
            cases = [case(dtype, 1, kv_len=kv_len) for _ in range(3)]
            t.row(f"{dtype}, {kv_len} keys", [t.run(c)["pct_read"] for c in cases])
    t.head("the same, clipped, peaked scores: standard over clipped")
    for dtype in dtypes:
        one = [case(dtype, 1, kv_len=32768, scores="peaked", seed=i) for i in range(3)]
        clipped = [c | {"softmax": {"gamma": -0.001, "zeta": 1.0}} for c in one]
        t.ratio(f"{dtype}, 32768 keys", one, clipped)


def ecoformer(t):
    def case(n, **more):
        return {"op": "ecoformer", "n": n, "heads": 1, "head_dim": 64, "threads": 1, "min_ms": 100, **more}

    def cases(n, **more):
        return [t.run(case(n, **more)) for _ in range(5)]

    t.head("one head of 64 features")
    for n in (784, 3136, 12544, 50176):
        answers = cases(n)
        t.row(f"{n} tokens, hash: matrix operations, of the FMA peak", [a["hash_pct_peak"] for a in answers])
        t.row(f"{n} tokens, hash: of these and its exponentials at their peaks", [a["hash_pct_bound"] for a in answers])
        t.row(f"{n} tokens, attention: of what its additions allow", [a["attend_pct"] for a in answers])
    for v in ("bf16", "int8"):
        t.row(f"3136 tokens, attention, v {v}", [a["attend_pct"] for a in cases(3136, v=v)])

    t.head("ratio of times, hash included")
    for n in (784, 3136):
        t.row(f"{n} tokens: f32 softmax attention over EcoFormer", [a["softmax_ratio"] for a in cases(n, softmax=True)], "x")
    for n in (784, 1568, 3136, 6272, 12544, 25088):
        t.ratio(f"{2 * n} over {n} tokens", [case(2 * n) for _ in range(5)], [case(n) for _ in range(5)])
    t.ratio("3136 tokens, causal over not", [case(3136, numerator="consistent", causal=True)] * 5, [case(3136)] * 5)
    t.ratio("3136 tokens, one thread over two", [case(3136, heads=8)] * 5, [case(3136, heads=8, threads=2)] * 5)

    t.head("distances between codes, of the population counts' peak")
    for bits in (16, 64, 128, 256):
        one = {"op": "hamming", "m": 512, "n": 512, "bits": bits, "threads": 1, "min_ms": 100}
        t.share(f"512 x 512 codes of {bits} bits", [one] * 5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--siskin", default="target/release/siskin")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--floats", action="store_true")
    parser.add_argument("--attention", action="store_true")
    parser.add_argument("--ecoformer", action="store_true")
    parser.add_argument("--json", type=argparse.FileType("w"))
    args = parser.parse_args()
    table = Table(Siskin(args.siskin, args.json), (128,) if args.quick else (128, 384, 1024))
    kind = ecoformer if args.ecoformer else attention if args.attention else floats if args.floats else int8
    kind(table)


main()
