"""The table of rows: each is a problem that siskin and its peers solve."""

from typing import NamedTuple

LAYERS = [(768, 768), (3072, 768), (768, 3072)]
TOKENS = (1, 8, 32, 128, 384, 1024)
SEQS = (128, 384, 1024)
# Types of x, w and y of dense layers. With y of u8 there is a bias, and the sums are requantized.
DENSE = [("f32", "f32", "f32"), ("u8", "i8", "i32"), ("u8", "i8", "u8"), ("i8", "i8", "i32"), ("bf16", "bf16", "f32")]
SPARSE = [
    (("u8", "i8", "u8"), ("4x1", "4x4", "16x4")),
    (("f32", "f32", "f32"), ("4x1", "4x4", "16x16")),
    (("bf16", "bf16", "f32"), ("4x4",)),
]
SPARSITIES = (0.8, 0.9)
HEADS, HEAD_DIM = 12, 64
# Of the authors of Quantizable Transformers, for BERT.
CLIPPED = {"gamma": -0.025, "zeta": 1.0}


class Linear(NamedTuple):
    """y = x w', x of m tokens, w of n x k."""

    m: int
    n: int
    k: int
    x: str
    w: str
    y: str
    block: str = "dense"
    sparsity: float = 0.0

    @property
    def kind(self):
        if self.block != "dense":
            return f"sparse {'INT8' if self.w == 'i8' else self.w}"
        return {"i8": "dense INT8", "f32": "dense f32", "bf16": "dense bf16"}[self.w]

    @property
    def name(self):
        of = self.block if self.block == "dense" else f"{self.block} {100 * self.sparsity:.0f} %"
        types = self.x if self.x == self.w == self.y else f"{self.x} {self.w} -> {self.y}"
        return f"{of} {types}, {self.n}x{self.k}, {self.m} token{'s' if self.m > 1 else ''}"


class Attention(NamedTuple):
    """softmax(q k' / 8) v of 12 heads of 64 features."""

    dtype: str
    seq: int
    softmax: str

    kind = "attention"

    @property
    def name(self):
        return f"attention {self.dtype}, {self.softmax}, {self.seq} tokens"


def rows(quick=False):
    layers, tokens, seqs = (LAYERS[:1], (1, 32, 384), SEQS[1:2]) if quick else (LAYERS, TOKENS, SEQS)
    shapes = [(m, n, k) for n, k in layers for m in tokens]
    made = [Linear(*shape, *types) for types in DENSE for shape in shapes]
    for types, blocks in SPARSE:
        made += [
            Linear(*shape, *types, block, sparsity)
            for block in (blocks[:2] if quick else blocks)
            for sparsity in (SPARSITIES[:1] if quick else SPARSITIES)
            for shape in shapes
        ]
    made += [Attention(dtype, seq, softmax) for dtype in ("f32", "bf16") for softmax in ("standard", "clipped") for seq in seqs]
    return made
