#!/usr/bin/env python3
"""What x86-64 cores can make of the hot loops: writes kernels/x86_64/MODEL.md, by LLVM's models of the cores.

Builds the library's assembly, takes the innermost loop of each kernel that matters, counts, and has llvm-mca predict its cycles and
what keeps it. A core's peak is what llvm-mca says of independent products in a row. Where a model is known to be wrong, another stands
in for it: the report says which. What was measured comes from docs/benchmarks.

Needs llvm-mca of LLVM 19 or later: scripts/model.py says where it is looked for.

    scripts/x86_model.py            writes the report
    scripts/x86_model.py --check    fails where a promise of the report does not hold
"""

import json
import re
from collections import namedtuple

import model
from model import ROOT, symbol

REPORT = ROOT / "kernels/x86_64/MODEL.md"
RECORDS = ROOT / "docs/benchmarks"
JUMP = r"j\w+\s+(\.L\w+)$"

# `own` is LLVM's model of the core; `model` the one that is used, with some instructions written as others, `instead`; `pairs` the one for
# products of pairs, if it is another. The text of the report says why.
Core = namedtuple("Core", "name record own model instead pairs", defaults=((), None))

BROADCAST = (r"\bvp?broadcast(?:d|q|ss|sd)(\s+[^%(,]*\()", r"vmovups\1")
WIDENING = (r"\bvpmov[sz]x\w+(\s+[^%(,]*\()", r"vpshufd $0,\1")
FMA_FOR_DOTS = (r"\b(vpdpbusd|vdpbf16ps)\b", "vfmadd231ps")
# Zen 5 does with 512 bits what Zen 4 does with 256.
HALVES = (
    (r"\b(vinserti|vextracti|vbroadcasti)64x4\b", r"\g<1>32x4"), (r"(32x4\s+\$1, )%ymm", r"\1%xmm"), ("zmm", "ymm"), (r"\{1to16\}", "{1to8}"),
)
AND_FOR_ADD = (r"\bvpadd[bwdq](\s.*%zmm)", r"vpandd\1")
ZEN3 = Core("Zen 3", "amd-25-1", "znver3", "znver3", (BROADCAST, WIDENING))
ZEN4 = Core("Zen 4", "amd-25-17", "znver4", "znver4", (BROADCAST, WIDENING, FMA_FOR_DOTS))
ZEN5 = Core("Zen 5", "amd-26-2", "znver5", "znver4", (BROADCAST, WIDENING, FMA_FOR_DOTS, *HALVES))
SKYLAKE = Core("Skylake-SP", None, "skylake-avx512", "skylake-avx512", (AND_FOR_ADD,))
ALDER_LAKE = Core("Alder Lake", None, "alderlake", "alderlake")
GOLDEN_COVE = Core("Golden Cove", "intel-6-207", "sapphirerapids", "skylake-avx512", (AND_FOR_ADD,), "sapphirerapids")
CORES = [ZEN3, ZEN4, ZEN5, SKYLAKE, ALDER_LAKE, GOLDEN_COVE]
NEW = [ZEN4, ZEN5, GOLDEN_COVE]
WIDE = [SKYLAKE, *NEW]

DOT, PAIRS, FMA, WORDS = r"(?:\{vex\}\s+)?vpdpbusd", "vdpbf16ps", r"vfmadd\w+ps", "vpmaddwd"
SHUFFLE = re.compile(r"vpunpck|vperm|vpshuf|vshuf|vpalignr|vinsert|vextract|vpextr|vpinsr|vpack|vpmov[sz]x|v\w*broadcast\w*\s+%")

INT8, FLOATS, ATTENTION = "int8", "floats", "attention"


def single(**more):
    """A row of single cases: its name is the case."""
    case = {"op": "linear", "m": 384, "n": 768, "k": 768} | more
    return "cases", f"`{json.dumps(case, separators=(',', ':'))}`"


# In the order in which they are looked for; a record of ranges has `f32` and `INT8` alone.
ATTENTION_OF = {
    dtype: [(ATTENTION, f"{dtype}, {tokens} tokens") for tokens in (1024, 384)] + [(ATTENTION, other)]
    for dtype, other in (("f32", "f32"), ("int8", "INT8"), ("bf16", "bf16"))
}
PACKED = {"in": "packed", "out": "packed"}
OF_FLOATS = {"w": "f32", "x": "f32", "y": "f32"}


def dense(row, part, tiles, tokens, panels=1, unroll=1):
    return symbol(row, part, tiles, "tile", numbers=[tokens, panels, unroll])


def blocks(row, layout, rows, registers):
    return symbol(row, "bytes", "spill", layout, numbers=[rows, registers])


def few(row, tokens, registers):
    """Of any four columns, which is a constant before the numbers."""
    rest = symbol(row, "bytes", "few", numbers=[4, tokens, registers])
    return [*rest[:3], "Kb0_", *rest[3:]]


def attention(row, part, registers):
    return symbol(row, part, "multiply", "tile", numbers=[6, registers])


def new(zen4, zen5, golden_cove):
    return {ZEN4: zen4, ZEN5: zen5, GOLDEN_COVE: golden_cove}


# Instructions that use the stack, of loops that are known to.
SPILLS = {"INT8 attention, AVX2, 6 x 16": 10}

# Name, parts of the symbol, the instruction that counts as a product, cores, what of the peak is promised of which, and where it may be
# measured: a run and a row of a record, the first that there is.
LOOPS = [
    ("INT8 dense, AVX2, 6 x 16", dense("avx2", "bytes", "tiles", 6), WORDS, [ZEN3], {ZEN3: 60}, [(INT8, "dense, u8 to u8")]),
    ("INT8 4x1, AVX2, 4 x 64", blocks("avx2", "KMajor", 4, 2), WORDS, [ZEN3], {ZEN3: 53}, [(INT8, "4x1, packed to packed")]),
    ("INT8 4x4, AVX2, 4 x 64", blocks("avx2", "KMajor4", 4, 2), WORDS, [ZEN3], {ZEN3: 58}, [(INT8, "4x4, packed to packed")]),
    ("INT8 1x4, AVX2, 1 x 64", blocks("avx2", "KMajor4", 1, 4), WORDS, [ZEN3], {ZEN3: 52}, [(INT8, "1x4, packed to packed")]),
    ("INT8 attention, AVX2, 6 x 16", attention("avx2", "bytes", 2), WORDS, [ZEN3], {ZEN3: 60}, ATTENTION_OF["int8"]),
    ("INT8 4x1, few tokens, AVX2, 4 x 8", few("avx2", 8, 4), WORDS, [ZEN3], {}, []),
    ("INT8 4x1, few tokens, AVX2, 4 x 4", few("avx2", 4, 2), WORDS, [ZEN3], {}, []),
    ("INT8 dense, AVX-VNNI, 6 x 16", dense("avx_vnni", "bytes", "tiles", 6), DOT, [ALDER_LAKE], {ALDER_LAKE: 82}, []),
    ("INT8 4x1, AVX-VNNI, 4 x 64", blocks("avx_vnni", "KMajor", 4, 2), DOT, [ALDER_LAKE], {ALDER_LAKE: 65}, []),
    ("INT8 4x4, AVX-VNNI, 4 x 64", blocks("avx_vnni", "KMajor4", 4, 2), DOT, [ALDER_LAKE], {ALDER_LAKE: 75}, []),
    ("INT8 dense, AVX-512, 12 x 32", dense("avx512", "bytes", "tiles", 12), WORDS, [SKYLAKE], {SKYLAKE: 42}, []),
    ("INT8 4x1, AVX-512, 4 x 64", blocks("avx512", "KMajor", 4, 4), WORDS, [SKYLAKE], {SKYLAKE: 31}, []),
    ("INT8 4x4, AVX-512, 4 x 64", blocks("avx512", "KMajor4", 4, 4), WORDS, [SKYLAKE], {SKYLAKE: 34}, []),
    ("INT8 dense, 12 x 32", dense("avx512_vnni", "bytes", "tiles", 12), DOT, NEW, new(95, 95, 84), [(INT8, "dense, u8 to u8")]),
    ("INT8 dense, 1 x 32", dense("avx512_vnni", "bytes", "tiles", 1, unroll=4), DOT, NEW, {}, []),
    ("INT8 4x1, 4 x 64",
     blocks("avx512_vnni", "KMajor", 4, 4), DOT, NEW, new(95, 93, 54),
     [(INT8, "4x1, packed to packed"), single(block="4x1", sparsity=0.8, **PACKED)]),
    ("INT8 8x1 and more, 8 x 64", symbol("avx512_vnni", "bytes", "tall_sums"), DOT, NEW, new(95, 95, 65), []),
    ("INT8 4x4 and more, 4 x 64",
     blocks("avx512_vnni", "KMajor4", 4, 4), DOT, NEW, new(95, 95, 95), [(INT8, "4x4, packed to packed")]),
    ("INT8 1x1, 1 x 64",
     blocks("avx512_vnni", "KMajor", 1, 4), DOT, NEW, new(40, 35, 22), [single(m=128, n=3072, block="1x1", sparsity=0.8)]),
    ("INT8 1x4, 1 x 64", blocks("avx512_vnni", "KMajor4", 1, 4), DOT, NEW, new(95, 75, 54), [(INT8, "1x4, packed to packed")]),
    ("INT8 4x1, 4 x 32", blocks("avx512_vnni", "KMajor32", 4, 2), DOT, NEW, {}, []),
    ("INT8 4x1, without VBMI, 4 x 16", blocks("avx512_vnni", "KMajor16", 4, 1), DOT, NEW, {}, []),
    ("INT8 4x1, 4 x 16", symbol("avx512_vbmi", "bytes", "narrow", "KMajor16", numbers=[4, 1]), DOT, NEW, {}, []),
    ("INT8 4x1, few tokens, 4 x 8", few("avx512_vbmi", 8, 2), DOT, NEW, {}, []),
    ("INT8 4x1, few tokens, 4 x 4", few("avx512_vbmi", 4, 1), DOT, NEW, {}, []),
    ("INT8 4x4, 4 x 16", blocks("avx512_vnni", "KMajor4x16", 4, 1), DOT, NEW, new(93, 46, 36), []),
    ("INT8 4x1, one token, looked up", symbol("avx512_vbmi", "bytes", "look_up", numbers=[4, 1]), DOT, NEW, {}, []),
    ("INT8 4x1, two tokens, looked up", symbol("avx512_vbmi", "bytes", "look_up", numbers=[4, 2]), DOT, NEW, {}, []),
    ("INT8 attention, 6 x 64", attention("avx512_vnni", "bytes", 4), DOT, NEW, new(95, 95, 95), ATTENTION_OF["int8"]),
    ("f32 dense, AVX2, 6 x 16",
     dense("avx2", "floats", "f32_weights", 6), FMA, [ZEN3, ALDER_LAKE], {ZEN3: 95, ALDER_LAKE: 82}, [(FLOATS, "f32 dense")]),
    ("f32 4x1 and more, AVX2, 4 x 32",
     symbol("avx2", "floats", "gather", numbers=[1, 4, 2, 32]), FMA, [ZEN3, ALDER_LAKE], {ZEN3: 93, ALDER_LAKE: 93}, [(FLOATS, "f32 4x1")]),
    ("f32 2x1, AVX2, 2 x 32", symbol("avx2", "floats", "gather", numbers=[1, 2, 4, 32]), FMA, [ZEN3, ALDER_LAKE], {}, []),
    ("f32 1x1, AVX2, 2 rows x 32",
     symbol("avx2", "floats", "gather", numbers=[1, 1, 4, 32]), FMA, [ZEN3, ALDER_LAKE], {}, []),
    ("f32 single rows, AVX2, 4 x 32",
     symbol("avx2", "floats", "scatter", numbers=[2, 32]), FMA, [ZEN3, ALDER_LAKE], {ZEN3: 87, ALDER_LAKE: 89}, [(FLOATS, "f32 1x4")]),
    ("f32 attention, AVX2, 6 x 16",
     attention("avx2", "floats", 2), FMA, [ZEN3, ALDER_LAKE], {ZEN3: 95, ALDER_LAKE: 82}, ATTENTION_OF["f32"]),
    ("f32 dense, 12 x 32", dense("avx512", "floats", "f32_weights", 12), FMA, WIDE, new(95, 95, 84), [(FLOATS, "f32 dense")]),
    ("f32 dense, 1 x 128", dense("avx512", "floats", "f32_weights", 1, panels=4), FMA, WIDE, {}, []),
    ("f32 dense, bfloat16 weights, 12 x 32", dense("avx512", "floats", "bf16_weights", 12), FMA, WIDE, new(90, 87, 68), []),
    ("f32 4x1 and more, 4 x 32",
     symbol("avx512", "floats", "gather", numbers=[1, 4, 2, 32]), FMA, WIDE, new(95, 93, 75),
     [(FLOATS, "f32 4x1"), single(**OF_FLOATS, block="4x1", sparsity=0.8, **PACKED)]),
    ("f32 4x1 and more, two panels, 4 x 64", symbol("avx512", "floats", "gather", numbers=[2, 4, 2, 32]), FMA, WIDE, new(95, 95, 88), []),
    ("f32 2x1, two panels, 2 x 64", symbol("avx512", "floats", "gather", numbers=[2, 2, 2, 32]), FMA, WIDE, {}, []),
    ("f32 1x1, two panels, 2 rows x 64", symbol("avx512", "floats", "gather", numbers=[2, 1, 2, 32]), FMA, WIDE, {}, []),
    ("f32 4x1 and more, 4 x 16", symbol("avx512", "floats", "gather", numbers=[1, 4, 1, 16]), FMA, WIDE, {}, []),
    ("f32 single rows, 4 x 32",
     symbol("avx512", "floats", "scatter", numbers=[2, 32]), FMA, WIDE, new(93, 87, 74), [(FLOATS, "f32 1x4")]),
    ("f32 attention, 6 x 64", attention("avx512", "floats", 4), FMA, WIDE, new(95, 95, 95), ATTENTION_OF["f32"]),
    ("bf16 pairs, dense, 12 x 32",
     dense("avx512_bf16", "pairs", "bf16_weights", 12), PAIRS, NEW, new(95, 95, 95), [(FLOATS, "bf16 dense")]),
    ("bf16 pairs, 4x4 and more, 4 x 64",
     symbol("avx512_bf16", "pairs", "gather", numbers=[1, 4, 4, 64]), PAIRS, NEW, new(95, 95, 95), [(FLOATS, "bf16 4x4")]),
    ("bf16 pairs, single rows, 2 x 64", symbol("avx512_bf16", "pairs", "scatter", numbers=[4, 64]), PAIRS, NEW, new(95, 74, 95), []),
    ("bf16 pairs, attention, 6 x 64",
     attention("avx512_bf16", "pairs", 4), PAIRS, NEW, new(95, 95, 95), ATTENTION_OF["bf16"]),
    ("Softmax, exponentials of f32", symbol("avx512", "floats", "passes", "exp_floats"), FMA, WIDE, {}, []),
    ("EcoFormer, features of a hash", symbol("avx512", "floats", "features"), FMA, WIDE, {}, []),
    ("EcoFormer, rows added by codes", symbol("avx512", "floats", "add_rows"), "vaddps", WIDE, {}, []),
    ("EcoFormer, sums looked up", symbol("avx512", "floats", "lookup"), "vaddps", WIDE, {}, []),
    ("Hamming, AVX2, 2 codes of 48 bits x 16", symbol("avx2", "codes", "run", numbers=[3, 2]), "vpshufb", [ZEN3, ALDER_LAKE], {}, []),
    ("Hamming, 4 codes of 64 bits x 32", symbol("avx512_vbmi", "codes", "run", numbers=[4, 4]), "vpopcntw", NEW, {}, []),
]


def model_of(core, product):
    """Of a core and a product: arguments of llvm-mca, and what to write instead."""
    cpu = core.pairs if core.pairs and product == PAIRS else core.model
    return ("-mtriple=x86_64", f"-mcpu={cpu}"), core.instead


def rewritten(body, instead):
    for pattern, other in instead:
        body = [re.sub(pattern, other, line) for line in body]
    return body


def predict(mca, body, core, product):
    arguments, instead = model_of(core, product)
    return mca.predict(tuple(rewritten(body, instead)), arguments)


def of_registers(line):
    """This product with no operand in memory."""
    mnemonic, size = re.match(r"((?:\{vex\}\s+)?\S+).*%(.mm)\d+$", line).groups()
    return f"{mnemonic} %{size}0, " + ("" if mnemonic == "vpopcntw" else f"%{size}1, ") + f"%{size}2"


def peak(mca, line, core, product):
    """Instructions like this one in a cycle, where they do not wait for each other."""
    body = [re.sub(r"\d+$", str(i), line) for i in range(2, 16)]
    return round(len(body) / predict(mca, body, core, product).cycles, 1)


# What loops of nothing else do in a cycle, of 512 bits: an instruction, and what was measured, where it was.
FACTS = [
    ("vpdpbusd", "vpdpbusd %zmm0, %zmm1, %zmm2", {ZEN4: "1", ZEN5: "2", GOLDEN_COVE: "2"}),
    ("vfmadd231ps", "vfmadd231ps %zmm0, %zmm1, %zmm2", {ZEN4: "1", ZEN5: "2", GOLDEN_COVE: "2"}),
    ("vdpbf16ps", "vdpbf16ps %zmm0, %zmm1, %zmm2", {ZEN4: "1", ZEN5: "1.85", GOLDEN_COVE: "0.5"}),
    ("vpunpcklbw", "vpunpcklbw %zmm0, %zmm1, %zmm2", {GOLDEN_COVE: "1"}),
    ("vpaddd", "vpaddd %zmm0, %zmm1, %zmm2", {}),
    ("load", "vmovups (%rax), %zmm2", {GOLDEN_COVE: "2"}),
    ("vpbroadcastd from memory", "vpbroadcastd (%rax), %zmm2", {GOLDEN_COVE: "2"}),
]


def facts(mca):
    """A table: of each core LLVM's own model, the one that is used, and what was measured."""
    lines = []
    for name, line, measured in FACTS:
        cells = []
        for core in NEW:
            product = PAIRS if "bf16" in line else None
            own = core._replace(model=core.own, instead=(), pairs=None)
            cells += [f"{peak(mca, line, c, product):g}" for c in (own, core)] + [measured.get(core, "")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |".replace("`load`", "load").replace("`vpbroadcastd from memory`", "`vpbroadcastd` from memory"))
    return "\n".join(lines)


def measured(core, places):
    """The first of these rows that the record of the core has, as words: of full runs before quick ones. A row may say more behind a comma."""
    path = RECORDS / f"{core.record}.json"
    if not core.record or not path.exists():
        return ""
    runs = {run["name"]: run for run in json.loads(path.read_text(encoding="utf-8"))["runs"]}
    for ending in ("", "-quick"):
        for name, first in places:
            for table in runs.get(name + ending, {"tables": []})["tables"]:
                for row in table["rows"]:
                    if f"{row[0]},".startswith(f"{first},"):
                        return words(dict(zip(table["columns"], row)))
    return ""


def words(cells):
    if "share of the peak" in cells:
        return cells["share of the peak"]
    if "median" not in cells:
        return f"{cells['from']:g} to {cells['to']:g} %"
    spread = f" ({cells['min']:g} to {cells['max']:g})" if "min" in cells else ""
    return f"{cells['median']:g}{spread} %"


def binding(prediction):
    """The resources that are busy all but a tenth of the time, or the busiest, if it is none."""
    share = {name: taken / prediction.cycles for name, taken in prediction.busy.items()}
    most = max(share.values())
    named = sorted(resource(name) for name, part in share.items() if part >= max(0.9, most - 0.08))
    if named:
        return ", ".join(named)
    busiest = max(share, key=share.get)
    return f"results are waited for ({resource(busiest)}: {100 * most:.0f} %)"


def resource(name):
    if name == model.FRONT:
        return "front end"
    name = re.sub(r"^(Zn\d|SKX|SPR|ADLP)", "", name)
    return re.sub(r"^Port0?(\d+)$", r"port \1", {"FP45": "FP4, FP5", "LSU": "loads and stores"}.get(name, name))


def loads(line):
    line = re.sub(r"\s*\{[^}]*\}", "", line)
    return "(" in line and not line.endswith(")") and not line.startswith(("lea", "prefetch", "nop"))


def main():
    try:
        mca = model.Mca()
    except model.Missing as missing:
        mca = model.missing("cycles on models of x86-64 cores", missing)
    lines = model.rust_assembly(model.target_dir() / "tmp/codegen").splitlines()
    counts, tables, broken = [], {core: [] for core in CORES}, []
    for name, parts, product, cores, promised, places in LOOPS:
        body, products = model.hottest(model.innermost(model.function(lines, parts, name), JUMP), product, name)
        spills = sum(line.startswith(("v", "{")) and "%rsp" in line for line in body)
        if spills > SPILLS.get(name, 0):
            broken.append(f"{name}: {spills} spills, not {SPILLS.get(name, 0)}")
        one = next(line for line in body if re.match(f"({product})\\s", line))
        instruction = re.sub(r"^\{vex\}\s+", "", one).split()[0]
        counts.append(f"| {name} | {products} `{instruction}` | {len(body)} | {len(body) / products:.2f} | "
                      f"{sum(map(loads, body)) / products:.2f} | {sum(bool(SHUFFLE.match(line)) for line in body) / products:.2f} | {spills} |")
        for core in cores if mca else ():
            prediction, most = predict(mca, body, core, product), peak(mca, of_registers(one), core, product)
            share = 100 * products / most / prediction.cycles
            tables[core].append(f"| {name} | {prediction.cycles:.1f} | {share:.0f} | {binding(prediction)} | {measured(core, places)} |")
            if share < promised.get(core, 0):
                broken.append(f"{name}: {share:.0f} % of the peak of {core.name}, not {promised[core]}")
    if not mca:
        model.finish(None, "", counts, broken)
    sections = [f"## {core.name}\n\n{ABOUT[core]}\n\n{HEAD}\n" + "\n".join(tables[core]) for core in CORES]
    text = TEXT.format(llvm=mca.version, counts="\n".join(counts), cores="\n\n".join(sections), facts=facts(mca))
    model.finish(REPORT, text, [row for rows in (counts, *tables.values()) for row in rows], broken)


HEAD = """| loop | cycles | % of the most products | kept busy | measured, of whole calls |
|---|--:|--:|---|---|"""

ABOUT = {
    ZEN3: """The AVX2 tier: two multiplications a cycle, on FP0 and FP1 those of floats, on FP0 and FP3 those of 16-bit integers.
LLVM's model gives additions of integers to pipes that only products could use, so of INT8 it expects less than there is: the
dense loop, on this tier of a Zen 4, was measured at 85 % of the peak.""",
    ZEN4: """One product of 512 bits a cycle, which takes both of FP0 and FP1 (a register passes through a pipe in two halves).
The model does two loads of 512 bits in a cycle where AMD's guide says one, so it expects too much of *1x4*, which loads a
register for each product.""",
    ZEN5: """Zen 4's model with half the width, which is what LLVM has that is nearest: two products of 512 bits a cycle. Its
front end takes six operations a cycle, the real one eight.""",
    SKYLAKE: """The tier without VNNI: a dot product of bytes is a `vpmaddwd` for each half of the bytes, and an addition to each.
All of these are of 512 bits, so they run on port 0 and port 5 alone: half of these slots, and less with what unpacks bytes, are
products. A dot product of four bytes is two of the products counted here.""",
    ALDER_LAKE: """The AVX-VNNI tier, and floats of AVX2. Dots and multiply-adds run on port 0 and port 1, which also take integer
arithmetic: the model wastes some of them on it.""",
    GOLDEN_COVE: """Products of 512 bits run on port 0 and port 5. The model that stands in has four ports for integers, of which two are these;
the real core has a fifth, so it does better where pointers are moved: dense INT8 was measured at 96 %.""",
}

TEXT = """# Hot loops on models of x86-64 cores

Made by `scripts/x86_model.py` from the release build's assembly, by llvm-mca of LLVM {llvm}. Cycles are of one turn of the loop,
with all of its loads in the first-level cache, and the percentage is that of the products that the model of the core can do at
most, if they are all that it does. *Kept busy* names what is busy for nine tenths of the time or more: ports, in Intel's numbers;
of AMD's cores FP0 to FP3, the pipes of vectors, FP4 and FP5, which take loads and stores of vectors; the front end, if as many
operations come in as can. If nothing is, an operation waits for the result of another. What was measured is the share of the peak
of whole calls, from [docs/benchmarks](../../docs/benchmarks/README.md): packing, the end of tiles and misses of the caches are in
it, and of attention the softmax, so that it can but be below what the loop alone does. Where a record has no such figure, nothing
stands there.

## The loops

A product is the instruction that is named; what the loops do beside it is counted for each product. Names end with the tile:
tokens x output features of dense layers, rows x tokens of sparse ones, queries x keys.

| loop | products | instructions | per product | loads per product | shuffles per product | spills |
|---|--:|--:|--:|--:|--:|--:|
{counts}

{cores}

## Where LLVM's models are wrong

How many of an instruction, of 512 bits, start in a cycle: by LLVM's own model of the core, by what stands in for it here, and as
measured by loops of nothing else.

| instruction | Zen 4: LLVM | used | measured | Zen 5: LLVM | used | measured | Golden Cove: LLVM | used | measured |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
{facts}

* **Golden Cove** (`sapphirerapids`): the model multiplies 512 bits on port 0 alone and does not know that port 5 does too; and it
  does three loads of 512 bits a cycle, where there are two. The model of Skylake with AVX-512 has both right, and the latencies
  of a multiply-add (4) and a dot product (5). It stands in, with `vpandd` for additions of integers, which it would do on port 1
  too. For products of bfloat16 LLVM's own model is taken.
* **Zen 4** (`znver4`): `vpdpbusd` and `vdpbf16ps` are given two and three cycles. A multiply-add stands in, as which they were
  measured. A broadcast from memory is given a pipe that multiplies, and an extension of bytes or words from memory two: a plain
  load and a shuffle stand in, for dense layers were measured at 94 % with one broadcast to two products. The same is done for Zen
  3.
* **Zen 5** (`znver5`) has no model but that of Zen 4, of half the width. Registers of 256 bits stand in for those of 512.

## What binds them

**INT8 4x1.** Four lines of x become four registers of quads by eight byte shuffles, for sixteen dot products. A Golden Cove has
one port for shuffles, port 5, and every second dot product needs it too: 8 + 16 operations on two ports take 12 cycles, so two
thirds of the peak are the most. The model expects 57 %, because it lets a dot product take port 5 where a shuffle could have
gone, and 60 to 63 % were measured. On Zen the shuffles have FP2 to themselves and just fit beside the dot products, which bind.
On Alder Lake (256 bits) shuffles have two ports, and the front end binds as soon as the ports do.

**INT8 4x4 and wider** needs no shuffle: sixteen dot products, four lines of x and four broadcast weights. The dot products bind
everywhere but on Alder Lake, whose tile is eight registers of sums: a dot product takes five cycles and two start in each, so
that ten chains would be needed, and eight give 80 %.

**INT8 single rows.** *1x4* loads a register of x for each dot product, and a weight for four: ten loads for eight products, at
two loads a cycle five cycles instead of four, so 80 % of the peak is the most on Golden Cove and Zen 5. *1x1* shuffles too, two
to a product: a quarter of the peak on Golden Cove, which is reached.

**INT8 4x1 in narrow panels.** *16 tokens*: with VBMI three masked broadcasts from memory and one `vpermb` make a register of quads
for four dot products, eight operations of port 0 and port 5 on an Intel core; without, eight shuffles of 16 bytes and three
insertions, which reaches a sixth of the peak there. *Few tokens*, 4 or 8, have rows in the lanes: one load is all weights of an
entry, so it takes three masked broadcasts, a `vpermb` and a dot product for four tokens, and one more of each for eight. Products
are few by design, for an entry costs about as much as its loads; entries by turns have sums of their own, so that chains do not bind.
*32 tokens*: two `vpunpck` and two `vpermw` for eight dot products.

**One token.** A dense layer loads a register of weights for each product: loads bind, and where weights come from memory, that does
long before. Through 4x1 of INT8 the columns of x are looked up in tables of 128 bytes (`vpermt2b`, two operations of port 5 on
Golden Cove), so products are few: look-ups and the front end bind.

**f32.** Dense layers and attention have 24 chains, and products bind (on Intel's models the arithmetic of pointers takes some of
their ports: twelve rows of x are twelve addresses). *4x1 and more* has 8 chains with
one panel of 32 tokens: on Golden Cove and Zen 5 two multiply-adds start a cycle and take four, so eight are just enough and nothing
may come late. 77 to 79 % is what a loop of its own was measured to do on Golden Cove; sixteen chains, of two panels side by side, did
87 to 90 % there. So AVX-512 takes two neighbouring panels at once where there are two. *2x1* and *1x1* (two rows of it side by side)
load as many lines as they multiply, or half as many: loads bind. *Single rows* load and
store two registers of sums for eight products.

**Weights of bfloat16, widened**, take two shuffles and two shifts a step, which share ports 0 and 5 with 24 multiply-adds: 28
slots, 86 %.

**Pairs of bfloat16** (`vdpbf16ps`, twice the work of a multiply-add). Zen 4 starts one a cycle, as many as multiply-adds: pairs
are twice as fast as f32. Zen 5 starts 1.85. On Golden Cove one starts every second cycle, where four multiply-adds start: pairs
do half the work of f32, and widening wins, although it has more instructions. All loops of pairs reach what the instruction
allows.

**Softmax and hash.** An exponential is seven multiply-adds (where it becomes a byte, five) and a `vscalefps`, which is two operations on Intel; maxima,
comparisons and additions beside them run on the same ports, so these are busy without a gap while fewer than all of their
operations are products.

**EcoFormer's look-up** adds four registers from memory for four bits of a code; the arithmetic of the address is more
instructions than the additions.

**EcoFormer's rows added by codes** store a register for each addition. Zen 4 stores 512 bits every second cycle: 32 cycles for a row of
64 features and a code of 16 bits, and 33 were measured. A core that stores 512 bits in each cycle is bound by its front end.

**Hamming distances.** An exclusive or, a count and about one addition for each 16 bits share two or four pipes: the count alone
is no bound, and the loop keeps its pipes busy without a gap on Zen 4 and Golden Cove. On AVX2 a count is two look-ups by nibbles
and their masks.

**Spills.** One loop keeps registers on the stack: attention of bytes on AVX2. Its twelve registers of sums and the columns, two
registers that are unpacked to four, are all sixteen, and the rows of x need some too.

## What is short of its aim, and why

Aims were set for a Golden Cove (Emerald Rapids, one thread). What was reached there is of builds 4618e2f and 791d379
([record](../../docs/benchmarks/intel-6-207.md)); what changed since was measured on a Zen 4 only. Shares are of the peak of dot products or
multiply-adds, of whole calls.

| work | aim | reached | what stands in the way | designs that were tried |
|---|---|---|---|---|
| INT8 4x1, 768x768, packed to packed, 70 / 80 / 90 % | 64 / 63 / 60 % | 63 / 61 / 56 % | port 5: 8 shuffles beside 16 dot products on ports 0 and 5 allow 66.7 %; what is left is the requantizing of each group, whose packs are port 5's too, and weighs more the fewer entries a group has | one group at a time; half lines shared by eight rows (72 %, but for blocks of eight rows only). Not built: the next group interleaved ahead, and pairs of columns interleaved once a panel, which gained 2 to 4 points each in experiments |
| INT8 4x1, tokens to tokens | 60 / 58 / 52 % | 57 / 54 / 46 % | port 5 as above, and the transposition of bytes on both sides, which is shuffles | panels token by token; squares of whole lines (packing 384x768 28 -> 12 us) |
| INT8 1x4, packed to packed | 60 % | 53 / 48 / 40 % | ports 2 and 3: ten loads for eight products allow 80 % from the first-level cache, and the lines of 768 columns are in the second | all of K row by row; blocks of K with sums in memory (faster), smaller blocks (20 to 30 % slower) |
| INT8 1x1, 80 % | 27 % | 25 % | port 5: 8 shuffles for 4 dot products | rows as they are; dense where less than 72 % is pruned, which is faster there. Pairs of similar rows gained 2 points in an experiment |
| f32 1x1, 80 %, 3072x768, 128 tokens | 55 % | 44 % | ports 2 and 3: a line for each product, 66 % from the first-level cache; sums go through memory between blocks of K | single rows over all of K (27 %); two rows side by side by blocks of K |
| few tokens, INT8 4x1, 80 %, 768x768, 1 / 2 / 4 / 8 / 16 / 32 / 64 tokens, us | 3.2 / 5 / 9 / 10 / 17 / 26 / 36 | 4.8 / 6.1 / 9.7 / 11.8 / 16.6 / 29.3 / 39.5 | port 5 (look-ups and gathering of quads), and for one and two tokens the front end. Two tokens take as long as dense, which loads its 576 KiB from the second-level cache once | columns searched in windows of 256 (7.1 and 9.4 us for one and two tokens); columns placed in windows of 64 when weights are packed |
| dense f32, 128 tokens; 384 tokens, 3072x768 | as MKL | 0.99; 0.96 of its speed | 768x768 is at 96 % of the peak; 3072x768 streams 9 MB of weights for each block of tokens from beyond the second-level cache | packed rows; rows as they lie, weights of the next panel prefetched by shares |
| attention f32, 128 / 384 / 1024 tokens | 75 / 82 / 82 % | 66 / 73 / 75 % | ports 0 and 5: products take 64 cycles for 16 keys of a row, exponentials 7 (`vscalefps` is two operations), maxima and weights 2 or 3 more: 86 % at most | scores of a tile of 24 to 48 rows kept in the second-level cache; of 12 rows in the first |
| attention INT8, 128 / 384 / 1024 tokens; heads of 32, 128 tokens | 50 / 58 / 58 %; 40 % | 31 / 45 / 42 %; 21 % | ports 0 and 5: products take 16 cycles for 16 keys of a row, exponentials 7, conversion to bytes 4 to 5: 55 to 60 % at most, and half of that with heads of 32 | two passes over a row; one pass to bytes, shorter exponentials (both later than these figures: a tenth of a Zen 4's time with heads of 32) |
| EcoFormer over softmax f32, 784 / 3136 tokens | 25 x / 110 x | 15 x / 67 x | ports 0 and 5 in the hash, whose products and exponentials alone are half of its time there; stores in attention | sums as products with signs; by four bits of a code (later: on a Zen 4 19 -> 23 x and 79 -> 96 x) |

On a **Zen 4** the bounds above are what FP0 and FP1 can do, one product of 512 bits a cycle. Dense INT8 and bfloat16 and INT8 in blocks of four rows,
packed, reach 94 to 96 % of it. Short of 93 % are:

| work | reached | what stands in the way |
|---|---|---|
| INT8 1x4, packed to packed | 64 % | one 512-bit load a cycle, and each product loads its line: 79 % of a loop of nothing else from the first-level cache, 50 to 55 % from the second |
| INT8 1x1 | 44 % by the model | FP1 and FP2: shuffles |
| INT8 4x1 and 4x4, tokens to tokens, 90 % | 74 to 77 % | packing x and unpacking y, which cost the same however few weights there are |
| f32 and bfloat16, block-sparse, tokens to tokens | 86 to 89 % | packing x and writing y, as above |
| f32 dense, 3072x768 | 89 to 94 % | 9 MB of weights from beyond the second-level cache, for each block of tokens; rows of y that are not a multiple of 4 KiB apart gain 0 to 3 points |
| two tokens, INT8 4x1, 768x768: over dense | 1.21 x | the front end: 43 instructions for 4 dot products |
| attention f32 / bfloat16 / INT8, 384 tokens | 84 / 73 / 64 % | FP0 and FP1: exponentials and maxima beside products, which would be alone 93 / 86 / 75 % |
"""

if __name__ == "__main__":
    main()
