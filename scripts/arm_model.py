#!/usr/bin/env python3
"""What Arm cores would make of the hot loops: writes kernels/aarch64/MODEL.md, by LLVM's models of the cores.

Builds the library's assembly for aarch64-unknown-linux-gnu, takes the innermost loop of each kernel that matters, counts, and
has llvm-mca predict its cycles. A core's peak is what llvm-mca says of 16 independent products in a row.

Needs std for aarch64 (`rustup target add aarch64-unknown-linux-gnu`), aarch64-linux-gnu-gcc and llvm-mca of LLVM 20 or later:
scripts/model.py says where it is looked for.

    scripts/arm_model.py            writes the report
    scripts/arm_model.py --check    fails where a promise of the report does not hold
"""

import re
import subprocess
import sys

import model
from model import ROOT, symbol

REPORT = ROOT / "kernels/aarch64/MODEL.md"
TARGET = "aarch64-unknown-linux-gnu"
CORES = ["neoverse-n1", "neoverse-v1", "neoverse-v2", "apple-m1"]
# What each core's CPUs run: where a tier is above this, its loop is not that core's.
HAS_I8MM = HAS_SVE = ["neoverse-v1", "neoverse-v2"]
VERSIONS = model.VERSIONS[:3]
JUMP = r"(?:b\.?\w*|cbn?z|tbn?z)\s.*?(\.L\w+)$"

INT8, F32 = "sdot|udot", "fmla"
MATRIX, MATRIX_BF16, BF16 = "usmmla", "bfmmla", "bfdot"
# By their registers, as big as the core's.
SVE_INT8, SVE_F32 = "sdot\\s+z\\S+", "fmla\\s+z\\S+"


def dense(row, part, tiles, tokens, unroll=1):
    return symbol(row, part, tiles, "tile", numbers=[tokens, 1, unroll])


def blocks(row, layout, rows):
    return symbol(row, "bytes", "spill", layout, numbers=[rows, 4])


def attention(row, part, rows):
    return symbol(row, part, "multiply", "tile", numbers=[rows, 4])


# Name, parts of the symbol, the instruction, multiply-adds of it (of SVE: in 128 bits), cores, and what of the peak is promised of which.
LOOPS = [
    ("INT8 dense, 5 tokens x 16", dense("neon_dot", "bytes", "tiles", 5), INT8, 16, CORES, {"neoverse-n1": 95, "neoverse-v1": 95}),
    ("INT8 dense, 4 tokens x 16", dense("neon_dot", "bytes", "tiles", 4), INT8, 16, CORES, {"neoverse-n1": 90, "neoverse-v1": 90}),
    ("INT8 dense, 1 token x 16", dense("neon_dot", "bytes", "tiles", 1, unroll=4), INT8, 16, CORES, {}),
    ("INT8 dense, i8mm, 6 tokens x 16", dense("neon_i8mm", "bytes", "tiles", 6), MATRIX, 32, HAS_I8MM, {"neoverse-v1": 170, "neoverse-v2": 150}),
    ("INT8 blocks of 4x4 and more", blocks("neon_dot", "KMajor4", 4), INT8, 16, CORES, {"neoverse-n1": 90, "neoverse-v1": 90}),
    ("INT8 blocks of 4x4, i8mm", blocks("neon_i8mm", "KMajor4", 4), MATRIX, 32, HAS_I8MM, {"neoverse-v1": 115, "neoverse-v2": 100}),
    ("INT8 blocks of 4x1", blocks("neon_dot", "KMajor", 4), INT8, 16, CORES, {}),
    ("INT8 blocks of 4x1, i8mm", blocks("neon_i8mm", "KMajor", 4), MATRIX, 32, HAS_I8MM, {"neoverse-v1": 70, "neoverse-v2": 70}),
    ("INT8 blocks of 1x4", blocks("neon_dot", "KMajor4", 1), INT8, 16, CORES, {}),
    ("INT8 attention, 5 rows x 16", attention("neon_dot", "bytes", 5), INT8, 16, CORES, {}),
    ("INT8 attention, i8mm, 6 rows x 16", attention("neon_i8mm", "bytes", 6), MATRIX, 32, HAS_I8MM, {"neoverse-v1": 130, "neoverse-v2": 125}),
    ("INT8 dense, NEON alone, 2 x 8", dense("neon", "bytes", "tiles", 2), "smull2?", 8, ["neoverse-n1"], {}),
    ("f32 dense, 4 tokens x 16", dense("neon", "floats", "f32_weights", 4), F32, 4, CORES, {c: 90 for c in CORES[:3]}),
    ("f32 dense, bfloat16 weights", dense("neon", "floats", "bf16_weights", 4), F32, 4, CORES, {}),
    ("f32 blocks of 4x1 and more", symbol("neon", "floats", "gather", numbers=[4, 4, 32]), F32, 4, CORES, {c: 90 for c in CORES[:3]}),
    ("f32 blocks of 1x4", symbol("neon", "floats", "scatter", numbers=[4, 32]), F32, 4, CORES, {}),
    ("f32 attention, 4 rows x 16", attention("neon", "floats", 4), F32, 4, CORES, {}),
    ("bfloat16 dense, 6 tokens x 16", dense("neon_bf16", "pairs", "bf16_weights", 6), MATRIX_BF16, 16, HAS_I8MM, {"neoverse-v1": 170, "neoverse-v2": 150}),
    ("bfloat16 blocks of 4x1 and more", symbol("neon_bf16", "pairs", "gather", numbers=[4, 4, 64]), BF16, 8, HAS_I8MM, {"neoverse-v1": 90, "neoverse-v2": 90}),
    ("bfloat16 attention, 6 rows x 16", attention("neon_bf16", "pairs", 6), MATRIX_BF16, 16, HAS_I8MM, {"neoverse-v1": 130, "neoverse-v2": 125}),
    ("INT8 dense, SVE", ["siskin_sve_dense_i8_4"], SVE_INT8, 16, HAS_SVE, {}),
    ("INT8 blocks of 4x4 and more, SVE", ["siskin_sve_quads"], SVE_INT8, 16, HAS_SVE, {}),
    ("f32 dense, SVE", ["siskin_sve_dense_f32_4"], SVE_F32, 4, HAS_SVE, {}),
    ("f32 blocks of 4x1 and more, SVE", ["siskin_sve_gather"], SVE_F32, 4, HAS_SVE, {}),
]


def arguments(core):
    return ["-mtriple=aarch64", f"-mcpu={core}", "-mattr=+dotprod,+i8mm,+bf16,+sve"]


def peak(mca, line, core):
    """Products like this one in a cycle, where they do not wait for each other."""
    name, rest = line.split(maxsplit=1)
    first, rest = rest.split(",", 1)
    register, shape = first.strip().split(".")
    # Of SVE the last register is one of the first few.
    *others, last = [re.sub(r"[vz]\d+", f"{register[0]}31", other) for other in rest.split(",")]
    last = last if register[0] == "v" else re.sub(r"z31", "z7", last)
    chains = range(8, 24)
    return round(16 / mca.cycles([f"{name} {register[0]}{i}.{shape},{','.join([*others, last])}" for i in chains], arguments(core)))


def assembly():
    rust = model.rust_assembly(model.target_dir() / "model", "--target", TARGET)
    return (rust + sve()).splitlines()


def sve():
    """Of the C code, with the flags that build.rs gives."""
    build = (ROOT / "build.rs").read_text()
    flags = re.findall(r'\.flag(?:_if_supported)?\("(\S+)"\)', build)
    command = ["aarch64-linux-gnu-gcc", "-std=c11", "-O2", *flags, "-S", "-o", "-", ROOT / "kernels/aarch64/sve.c"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def is_spill(line):
    return re.match(r"(ld|st)\w*\s+[vqdsz]\d+.*\[sp", line)


def main():
    try:
        mca = model.Mca(VERSIONS)
    except model.Missing as missing:
        mca = model.missing("cycles on models of Arm cores", missing)
    lines = assembly()
    rows, broken = [], []
    for name, parts, product, adds, cores, promised in LOOPS:
        body, products = model.hottest(model.innermost(model.function(lines, parts, name), JUMP), product, name)
        spills = sum(bool(is_spill(line)) for line in body)
        loads = sum(line.startswith("ld") for line in body)
        if spills:
            broken.append(f"{name}: {spills} spills")
        one = next(line for line in body if re.match(f"({product})\\s", line))
        shares = []
        for core in CORES:
            if core not in cores or not mca:
                shares.append("")
                continue
            most, taken = peak(mca, one, core), mca.cycles(body, arguments(core))
            share = 100 * products / most / taken * (2 if product in (MATRIX, MATRIX_BF16) else 1)
            shares.append(f"{taken:.1f} ({share:.0f} %)")
            if share < promised.get(core, 0):
                broken.append(f"{name}: {share:.0f} % of the peak of {core}, not {promised[core]}")
        rows.append(f"| {name} | {products} | {len(body)} | {len(body) / products / adds:.3f} | {loads / products:.2f} | {spills} | "
                    + " | ".join(shares) + " |")
    if not mca:
        model.finish(None, "", rows, broken)
    ones = "sdot v0.4s, v1.16b, v2.4b[1]", "fmla v0.4s, v1.4s, v2.s[1]"
    peaks = {core: [peak(mca, one, core) for one in ones] for core in CORES}
    text = TEXT.format(
        cores=" | ".join(CORES),
        rule="|---" * (6 + len(CORES)) + "|",
        rows="\n".join(rows),
        peaks="; ".join(f"{core} {dots} and {fmas}" for core, (dots, fmas) in peaks.items()),
    )
    model.finish(REPORT, text, rows, broken)


TEXT = """# Hot loops on models of real cores

Made by `scripts/arm_model.py` from the release build's assembly: no Arm core was measured. Cycles are llvm-mca's, of one turn of
the loop, and in brackets the share of the dot products (of floats: of the fused multiply-adds) that its model of the core can
do at most. Where products are of elements, a dot product is 16 multiply-adds (of bfloat16 8), a fused one 4, a product of matrices 32 (16): it
counts as two dot products, so that the most is 200 %. Peaks, in dot products and in fused multiply-adds a cycle: {peaks}.
(Apple's real M1 has four such pipes; the model has three.) SVE is counted in 128 bits of its registers, of which the Neoverse V1 has
256 and the V2 128.

| loop | products | instructions | instructions per multiply-add | loads per product | spills | {cores} |
{rule}
{rows}

**4x1.** Four lines of x become four registers of quads by eight `zip`, on the pipes that multiply: with dot products 16 of 24
operations are products, so two thirds of the peak is the most, and no other pairing of two registers at a time needs fewer: each of the
four results needs bytes of all four lines. Tables of four registers (`tbl`) are three operations for one result on these cores.
The model of the N1 takes three operations a cycle, and a line is three (its number masked out of four, and a load with an offset in
a register, which is two there), so that loop is bound by these before it is by the pipes. Products of matrices need another eight
`zip`, to pair eight columns, but then do all the products in half as many operations: three quarters of the peak.

**Products of matrices.** Weights of dense layers are packed for them, eight of K side by side, so nothing is shuffled but x: a row's
eight bytes go beside the next row's. Blocks of bytes and attention zip two quads to eight bytes on the way. Of bfloat16 dense layers
and attention take `bfmmla`, which the architecture defines as two `bfdot`, one after the other: so blocks, single tokens and
single queries, which have one row of sums or wait for their loads, take that and get the same bits.
"""

if __name__ == "__main__":
    main()
