#!/usr/bin/env python3
"""Measures siskin on one CPU with `siskin bench --serve`, prints tables, and writes them into the record of the CPU.

    cargo build --release -p siskin-cli
    scripts/bert_table.py [--floats | --attention | --ecoformer] [--quick] [--json docs/benchmarks]
    scripts/benchmarks.py pages

`scripts/benchmarks.py measure` measures the tables of all four kinds in rounds, and compares them with what is recorded.

The layers are those of BERT-base and BERT-large in INT8; --floats takes them in f32, bfloat16 and with INT8 weights alone,
--attention measures attention with 12 heads of 64, --ecoformer one head of 64 by codes of 16 bits. --quick leaves out the longest
cases. Each case is a whole call, checked by siskin itself. --json names a record, or the folder where that of this CPU belongs;
--log writes each answer of siskin to a file.
"""

import argparse
import json
import statistics
import subprocess
from collections import namedtuple

import benchmarks

LAYERS = [(768, 768), (3072, 768), (768, 3072), (1024, 1024), (4096, 1024), (1024, 4096)]
SMALL = [(256, 256), (1024, 256), (256, 1024)]
LARGE = [(8192, 8192), (11008, 4096), (4096, 14336)]
FLOAT_BLOCKS = {
    "f32": ("16x1", "4x1", "4x4", "16x4", "16x16", "32x32", "1x4", "1x16"),
    "bf16": ("4x4", "16x4", "16x16", "32x32"),
}

# How much of each table is measured: tokens and shapes of layers, of which blocks, by sparsities of the lower and of the upper part and
# of the speed-ups; features of layers of few tokens; how often a case is taken that makes up a row alone; the layers that come from
# memory; tokens of attention, how many sequences are packed, and the keys of a cache; tokens of EcoFormer.
FIELDS = "tokens layers blocks float_blocks low high pruned few repeats large seqs sequences kv_lens codes"
Scope = namedtuple("Scope", FIELDS)
ALL = Scope(
    (128, 384, 1024), LAYERS, ("4x1", "1x4", "4x4", "16x4", "16x16", "32x32"), FLOAT_BLOCKS, (0.7, 0.75, 0.8), (0.85, 0.9), (0.7, 0.8, 0.9),
    (768, 4096), 5, LARGE, (128, 384, 512, 1024, 4096), 16, (4096, 32768, 131072), (784, 3136, 12544, 50176),
)
SHORT = ALL._replace(tokens=(128,), seqs=ALL.seqs[:-1], kv_lens=ALL.kv_lens[:-1])


def case(m, n, k, block="dense", sparsity=0.0, epilogue=("bias",), **more):
    base = dict(op="linear", m=m, n=n, k=k, x="u8", y="u8", block=block, sparsity=sparsity, epilogue=epilogue)
    return {**base, "threads": 1, "min_ms": 80, **more}


def packed(c):
    return {**c, "in": "packed", "out": "packed"}


class Siskin:
    def __init__(self, path, log, min_ms):
        self.process = subprocess.Popen([path, "bench", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.log, self.min_ms = log, min_ms
        self.isa, self.peaks = None, {}

    def __call__(self, c):
        if self.min_ms:
            c = {**c, "min_ms": self.min_ms}
        self.process.stdin.write(json.dumps(c) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer or not answer["checked"]:
            raise SystemExit(f"{c}: {answer}")
        if self.log:
            print(json.dumps(answer), file=self.log, flush=True)
        if "isa" not in c and c["threads"] == 1:
            self.isa = answer["isa"]
            if "peak_of" in answer:
                self.peaks.setdefault(answer["peak_of"], []).append(answer["peak_gops"])
        return answer


class Tables:
    """The tables of a run: printed as they come, and kept for the record."""

    def __init__(self, run, scope, say=print):
        self.run, self.scope, self.say, self.tables = run, scope, say, []

    def table(self, title, unit="%", digits=0, better=None):
        columns = ["case", "median", "min", "max", "cases"]
        self.tables.append({"title": title, "unit": unit, "digits": digits, "columns": columns, "rows": []})
        if better:
            self.tables[-1]["better"] = better
        self.say(f"\n{title}\n\n| {' | '.join(columns)} |\n|---|--:|--:|--:|--:|")

    def row(self, name, values):
        values = list(values)
        table = self.tables[-1]
        row = [name, *(round(f(values), table["digits"] + 2) for f in (statistics.median, min, max)), len(values)]
        table["rows"].append(row)
        cells = (benchmarks.text(table, column, value) for column, value in zip(table["columns"], row))
        self.say(f"| {' | '.join(cells)} |")

    def share(self, name, cases):
        """Of the peak."""
        self.row(name, (self.run(c)["pct_peak"] for c in cases))

    def ratio(self, name, a, b):
        """How many times as long the cases of a take."""
        self.row(name, (self.run(x)["us_min"] / self.run(y)["us_min"] for x, y in zip(a, b)))

    def reading(self, name, cases):
        """Of a plain loop's bandwidth."""
        answers = map(self.run, cases)
        self.row(name, (100 * a["read_gbps"] / a["loop_gbps"] for a in answers))

    def speed_up(self, of, dense, blocks):
        """Of pruned layers over these dense ones."""
        self.table(f"Speed-up over dense {of}, 384 tokens", "x", 1)
        for block in blocks:
            for sparsity in self.scope.pruned:
                sparse = [{**c, "block": block, "sparsity": sparsity} for c in dense]
                self.ratio(f"{of} {block}, {round(100 * sparsity)} % pruned", dense, sparse)

    def layers(self, block="dense", sparsities=(0.0,)):
        return [case(m, n, k, block, s) for n, k in self.scope.layers for m in self.scope.tokens for s in sparsities]


def percent(sparsities):
    least, most = (round(100 * f(sparsities)) for f in (min, max))
    return f"{least}-{most} %" if least < most else f"{least} %"


def the_same(case, times):
    return [dict(case) for _ in range(times)]


def int8(t):
    low, high, layers = t.scope.low, t.scope.high, t.scope.layers
    t.table("Share of the dot-product peak")
    for block in t.scope.blocks:
        t.share(f"{block}, packed to packed, {percent(low + high)}", map(packed, t.layers(block, low + high)))
        t.share(f"{block}, tokens to tokens, {percent(low)}", t.layers(block, low))
        t.share(f"{block}, tokens to tokens, {percent(high)}", t.layers(block, high))
    small = [case(128, n, k, "4x1", 0.9) for n, k in SMALL]
    t.share("4x1, 256-wide layers, m = 128, 90 %, packed to packed", map(packed, small))
    t.share("4x1, 256-wide layers, m = 128, 90 %, tokens to tokens", small)
    t.share("dense, u8 to u8", t.layers())
    t.share("dense on the AVX2 tier, of that tier's own peak", [case(128, n, k, isa="avx2") for n, k in layers])

    dense = [case(384, n, k) for n, k in layers]
    t.speed_up("INT8", dense, ("4x1", "4x4"))

    t.table("Ratios of times, less is better", "x", 2, "lower")
    gelu = the_same(packed(case(384, 3072, 768, "4x1", 0.8)), t.scope.repeats)
    for epilogue, name in (("gelu", "exact GELU (f32)"), ("gelu_table", "GELU by table")):
        with_it = [{**c, "epilogue": ["bias", epilogue]} for c in gelu]
        t.ratio(f"{name} over requantize alone, 4x1, 80 %, 3072x768, m = 384", with_it, gelu)
    floats = [{**c, "x": "f32", "y": "f32"} for c in t.layers()]
    sums = [{**c, "y": "i32", "epilogue": []} for c in t.layers()]
    t.ratio("f32 in and out, quantized per token, over u8 to i32, dense", floats, sums)
    t.table("Ratios of times, more is better", "x", 2)
    both = [packed({**c, "block": "4x1", "sparsity": 0.8}) for c in dense] + dense
    t.ratio("one thread over two, 4x1 at 80 % and dense, m = 384", both, [{**c, "threads": 2} for c in both])

    t.table("A single token: share of what a plain loop over the same bytes reads")
    for block in ("dense", "4x4", "4x1"):
        t.reading(f"{block}{', 80 %' if block != 'dense' else ''}", [case(1, n, k, block, 0.8) for n, k in layers])
    t.table("Few tokens: the time of dense over that of 4x1 at 80 %", "x", 2)
    for n in t.scope.few:
        for m in (1, 2, 4, 8, 16, 32, 64):
            one = case(m, n, n)
            t.ratio(f"{n}x{n}, {m} token{'s' if m > 1 else ''}", [one], [{**one, "block": "4x1", "sparsity": 0.8}])
    t.table("Packed bytes for each stored value", "", 2)
    sizes = [case(16, n, k, "4x1", s) for n, k in layers for s in (0.8, 0.85, 0.9)]
    t.row("4x1, 80-90 %", (t.run(c)["bytes_per_value"] for c in sizes))


def floats(t):
    def of(dtype, cases):
        return [{**c, "w": dtype, "x": dtype, "y": dtype} for c in cases]

    sparsities = t.scope.low + t.scope.high
    t.table("Share of the peak of the element type")
    for dtype, blocks in t.scope.float_blocks.items():
        t.share(f"{dtype} dense", of(dtype, t.layers()))
        for block in blocks:
            t.share(f"{dtype} {block}, {percent(sparsities)}", of(dtype, t.layers(block, sparsities)))
    for block, name in (("dense", "dense"), ("4x1", "4x1, 80 %")):
        cases = [case(128, n, k, block, 0.8, isa="avx2") for n, k in t.scope.layers]
        t.share(f"f32 {name}, m = 128, on the AVX2 tier, of that tier's own peak", of("f32", cases))

    dense = [case(384, n, k) for n, k in t.scope.layers]
    t.speed_up("f32", of("f32", dense), ("4x1", "4x4"))

    t.table("Ratios of times, more is better", "x", 1)
    for dtype in ("f32", "bf16"):
        both = of(dtype, dense + [{**c, "block": "4x4", "sparsity": 0.8} for c in dense])
        t.ratio(f"one thread over two, {dtype}, dense and 4x4 at 80 %, m = 384", both, [{**c, "threads": 2} for c in both])

    t.table("A single token, dense: share of what a plain loop over the same bytes reads")
    kinds = {
        "f32": {"w": "f32"},
        "bf16": {"w": "bf16"},
        "f16": {"w": "f16"},
        "INT8 weights, x f32": {"weight_only": True, "x": "f32", "y": "f32"},
        "INT8 weights in groups of 64, x f32": {"group_size": 64, "x": "f32", "y": "f32"},
    }
    for where, shapes in (("in the caches", t.scope.layers), ("from memory", t.scope.large)):
        for name, kind in kinds.items() if shapes else ():
            of_kind = [{f: v for f, v in case(1, n, k).items() if f not in "xy"} | kind for n, k in shapes]
            t.reading(f"{name}, {where}", of_kind)


def attention(t):
    def case(dtype, seq, **more):
        return {"op": "attention", "dtype": dtype, "seq": seq, "threads": 1, "min_ms": 200, **more}

    dtypes, repeats = ("f32", "bf16", "int8"), t.scope.repeats
    seeds = [{"seed": i} for i in range(repeats)]
    # So weak a clip that it skips nothing, of rows so flat.
    weak = {"scores": "flat", "softmax": {"gamma": -1e-5, "zeta": 1.0}}
    t.table("Share of the peak of the element type")
    for dtype in dtypes:
        for seq in t.scope.seqs:
            t.share(f"{dtype}, {seq} tokens", the_same(case(dtype, seq), repeats))
    t.share("f32, 384 tokens, on the AVX2 tier, of that tier's own peak", the_same(case("f32", 384, isa="avx2"), repeats))

    t.table("Ratios of times, less is better", "x", 2, "lower")
    for dtype in dtypes:
        flat = the_same(case(dtype, 384, scores="flat"), repeats + repeats // 2)
        t.ratio(f"{dtype}, 384 tokens: clipped, nothing skipped, over standard", [c | weak for c in flat], flat)
    count = t.scope.sequences
    lengths = [round(512 * (0.2 + 0.8 * i / (count - 1))) for i in range(count)]  # 0.6 of 512 in the mean
    cu_seqlens = [sum(lengths[:i]) for i in range(count + 1)]
    share = sum(n * n for n in lengths) / (count * 512 * 512)
    for dtype in dtypes:
        padded = the_same(case(dtype, 512, batch=count), repeats)
        packed = the_same({k: v for k, v in case(dtype, 0, cu_seqlens=cu_seqlens).items() if k != "seq"}, repeats)
        t.ratio(f"{dtype}, {count} sequences of 102 to 512, packed over padded (operations: {share:.2f})", packed, padded)
    t.table("Ratios of times, more is better", "x", 2)
    recipes = {"BERT": (128, {"gamma": -0.025, "zeta": 1.0}), "OPT": (512, {"alpha": 12, "max_len": 512})}
    for dtype in dtypes:
        for name, (seq, softmax) in recipes.items():
            peaked = [case(dtype, seq, scores="peaked", causal=name == "OPT", **seed) for seed in seeds]
            clipped = [c | {"softmax": softmax} for c in peaked]
            t.ratio(f"{dtype}, {name}'s clip, peaked scores: standard over clipped", peaked, clipped)
    for dtype in dtypes:
        one = [case(dtype, seq) for seq in (384, 512, 1024) if seq in t.scope.seqs]
        t.ratio(f"{dtype}, one thread over two", one, [c | {"threads": 2} for c in one])

    few = min(3, repeats)
    t.table("A query against a cache: share of a plain loop's read bandwidth")
    for dtype in dtypes:
        for kv_len in t.scope.kv_lens:
            cases = the_same(case(dtype, 1, kv_len=kv_len), few)
            t.row(f"{dtype}, {kv_len} keys", (t.run(c)["pct_read"] for c in cases))
    t.table("A query against a cache, clipped, peaked scores: standard over clipped", "x", 2)
    kv_len = min(32768, max(t.scope.kv_lens))
    for dtype in dtypes:
        one = [case(dtype, 1, kv_len=kv_len, scores="peaked", **seed) for seed in seeds[:few]]
        clipped = [c | {"softmax": {"gamma": -0.001, "zeta": 1.0}} for c in one]
        t.ratio(f"{dtype}, {kv_len} keys", one, clipped)


def ecoformer(t):
    def case(n, **more):
        return {"op": "ecoformer", "n": n, "heads": 1, "head_dim": 64, "threads": 1, "min_ms": 100, **more}

    repeats = t.scope.repeats

    def cases(n, **more):
        return [t.run(c) for c in the_same(case(n, **more), repeats)]

    t.table("Shares of what the CPU allows")
    for n in t.scope.codes:
        answers = cases(n)
        t.row(f"{n} tokens, hash: its products, of the FMA peak", (a["hash_pct_peak"] for a in answers))
        t.row(f"{n} tokens, hash: its products and exponentials at their peaks", (a["hash_pct_bound"] for a in answers))
        t.row(f"{n} tokens, attention: of what its additions allow", (a["attend_pct"] for a in answers))
    for v in ("bf16", "int8"):
        t.row(f"3136 tokens, attention, v {v}", (a["attend_pct"] for a in cases(3136, v=v)))

    t.table("Speed-up over softmax attention in f32, the hash included", "x")
    for n in (784, 3136):
        t.row(f"{n} tokens", (a["softmax_ratio"] for a in cases(n, softmax=True)))
    t.table("Ratios of times, the hash included, less is better", "x", 2, "lower")
    for n in (784, 1568, 3136, 6272, 12544, 25088):
        if 2 * n <= max(t.scope.codes):
            t.ratio(f"{2 * n} over {n} tokens", the_same(case(2 * n), repeats), the_same(case(n), repeats))
    causal = case(3136, numerator="consistent", causal=True)
    t.ratio("3136 tokens, causal over not", the_same(causal, repeats), the_same(case(3136), repeats))
    t.table("Ratios of times, the hash included, more is better", "x", 2)
    one, two = (the_same(case(3136, heads=8, threads=threads), repeats) for threads in (1, 2))
    t.ratio("3136 tokens, 8 heads, one thread over two", one, two)

    t.table("Distances between codes: share of the population counts' peak")
    for bits in (16, 64, 128, 256):
        one = {"op": "hamming", "m": 512, "n": 512, "bits": bits, "threads": 1, "min_ms": 100}
        t.share(f"512 x 512 codes of {bits} bits", the_same(one, repeats))


KINDS = (int8, floats, attention, ecoformer)
# What a page says of each kind of run before its tables.
TITLES = {
    int8: "Linear layers of INT8",
    floats: "Linear layers of floats",
    attention: "Attention",
    ecoformer: "EcoFormer",
}
ABOUT = {
    int8: [
        "BERT-base and BERT-large layers (768x768, 3072x768, 768x3072, 1024x1024, 4096x1024, 1024x4096; out x in) of 128, 384 and "
        "1024 tokens (m). Times are of whole calls: packing, bias and requantization to u8 included. Shares count the operations of "
        "stored weights only. *Packed to packed* is a layer inside a chain; *tokens to tokens* has bytes, token by token, on both "
        "sides, and so have the layers whose speed-up is stated.",
    ],
    floats: [
        "The layers of BERT-base and BERT-large in f32 and bfloat16, token by token on both sides, bias included. Shares are of the "
        "fused multiply-add peak (f32) or of the peak of `vdpbf16ps` (bf16, on CPUs that have it), and count the operations of stored "
        "weights only. A single token reads these layers from the caches, and layers of 8192x8192, 11008x4096 and 4096x14336 from "
        "memory.",
    ],
    attention: [
        "12 heads of 64 features in one sequence, q, k and v as `[tokens, heads, head_dim]`; everything between them and the context is "
        "included (INT8: u8 in and out). Shares are of 4 x heads x tokens^2 x head_dim operations, of the peak of the element type.",
        "A query against a cache reads k once, and v once, or with a clip the rows of v whose weight is not 0. The plain loop that it "
        "is compared with reads as many bytes in order; from caches it reads several times as fast as from memory.",
    ],
    ecoformer: [
        "One head of 64 features, 25 anchors, codes of 16 bits, the sequence's own bandwidth, the published form. The hash is held to "
        "the FMA peak by its matrix products alone (2 x tokens x anchors x (head_dim + bits) operations), and to what these and its "
        "exponentials take at their peaks; attention to what its additions (2 x tokens x bits x head_dim) would take at one addition a "
        "lane and cycle: of floats it takes less, because four bits of a code are one addition.",
    ],
}


def run_of(kind, siskin, tables, command):
    """What is recorded of a kind of run."""
    return {
        "name": kind.__name__,
        "title": TITLES[kind],
        "about": ABOUT[kind],
        "command": command,
        "isa": siskin.isa,
        "peaks": {of: round(statistics.median(peaks)) for of, peaks in siskin.peaks.items()},
        "tables": tables,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--siskin", default="target/release/siskin")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--floats", action="store_true")
    parser.add_argument("--attention", action="store_true")
    parser.add_argument("--ecoformer", action="store_true")
    parser.add_argument("--min-ms", type=int, help="time each case for so long, instead of the script's own choice")
    parser.add_argument("--json", metavar="RECORD")
    parser.add_argument("--log", type=argparse.FileType("w"))
    args = parser.parse_args()
    kind = ecoformer if args.ecoformer else attention if args.attention else floats if args.floats else int8
    siskin = Siskin(args.siskin, args.log, args.min_ms)
    tables = Tables(siskin, SHORT if args.quick else ALL, lambda line: print(line, flush=True))
    kind(tables)
    if args.json:
        flags = "".join([f" --{kind.__name__}" * (kind is not int8), " --quick" * args.quick])
        flags += f" --min-ms {args.min_ms}" if args.min_ms else ""
        command = f"cargo build --release -p siskin-cli && scripts/bert_table.py{flags}"
        run = run_of(kind, siskin, tables.tables, command)
        benchmarks.record_run(args.json, run)


if __name__ == "__main__":
    main()
