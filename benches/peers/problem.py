"""The data of a row: made once, given to everyone. Answers are compared before times are.

A problem is a folder of arrays and a row.json, because each library runs in a process of its own.
"""

import json
import math
from functools import cached_property
from pathlib import Path

import ml_dtypes
import numpy as np

import rows

BF16 = ml_dtypes.bfloat16
# How the bytes of an output are made of sums.
X_SCALE, Y_SCALE, Y_ZERO_POINT = 0.02, 4.0, 128


def floats(rng, shape, dtype):
    return rng.standard_normal(shape, dtype=np.float32).astype(BF16 if dtype == "bf16" else np.float32)


def make(row, folder):
    """Writes the arrays of a row into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    arrays = attention(row, rng) if isinstance(row, rows.Attention) else linear(row, rng)
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        np.save(folder / f"{name}.npy", array.view(np.uint16) if array.dtype == BF16 else array)
    (folder / "row.json").write_text(json.dumps([type(row).__name__, *row]), encoding="utf-8")


def linear(row, rng):
    m, n, k = row.m, row.n, row.k
    if row.w == "i8":
        x = rng.integers(*((0, 256) if row.x == "u8" else (-128, 128)), (m, k), dtype=np.uint8 if row.x == "u8" else np.int8)
        w = rng.integers(-127, 128, (n, k), dtype=np.int8)
    else:
        x, w = floats(rng, (m, k), row.x), floats(rng, (n, k), row.w)
    if row.block != "dense":
        r, c = map(int, row.block.split("x"))
        blocks = np.zeros(n // r * (k // c), bool)
        kept = round(blocks.size * (1 - row.sparsity))
        blocks[rng.permutation(blocks.size)[:kept]] = True
        w = w * np.kron(blocks.reshape(n // r, k // c), np.ones((r, c), bool)).astype(w.dtype)
    sums = x.astype(np.float64) @ w.astype(np.float64).T
    arrays = {"x": x, "w": w}
    if row.y == "u8":
        w_scale = (0.005 * (1 + rng.random(n))).astype(np.float32)
        bias = rng.standard_normal(n, dtype=np.float32) * 10
        values = sums * X_SCALE * w_scale + bias
        y = np.clip(np.rint(values / Y_SCALE) + Y_ZERO_POINT, 0, 255).astype(np.uint8)
        arrays |= {"w_scale": w_scale, "bias": bias}
    else:
        y = sums.astype(np.int32 if row.y == "i32" else np.float32)
    return arrays | {"expected": y}


def attention(row, rng):
    q, k, v = (floats(rng, (rows.HEADS, row.seq, rows.HEAD_DIM), row.dtype) for _ in range(3))
    q = (q.astype(np.float32) * 2).astype(q.dtype)
    weights = np.einsum("htd,hsd->hts", *(a.astype(np.float64) for a in (q, k)), optimize=True) / math.sqrt(rows.HEAD_DIM)
    weights = np.exp(weights - weights.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    if row.softmax == "clipped":
        gamma, zeta = rows.CLIPPED["gamma"], rows.CLIPPED["zeta"]
        weights = np.clip((zeta - gamma) * weights + gamma, 0, 1)
    return {"q": q, "k": k, "v": v, "expected": (weights @ v.astype(np.float64)).astype(np.float32)}


class Problem:
    """What `make` wrote: arrays are attributes."""

    def __init__(self, folder):
        self.folder = Path(folder)
        name, *fields = json.loads((self.folder / "row.json").read_text(encoding="utf-8"))
        self.row = getattr(rows, name)(*fields)

    def __getattr__(self, name):
        path = self.folder / f"{name}.npy"
        if name.startswith("_") or not path.exists():
            raise AttributeError(name)
        array = np.load(path)
        array = array.view(BF16) if array.dtype == np.uint16 else array
        setattr(self, name, array)
        return array

    @cached_property
    def wt(self):
        return np.ascontiguousarray(self.w.T)

    @cached_property
    def xt(self):
        return np.ascontiguousarray(self.x.T)

    def wrong(self, answer, rough=False):
        """What is wrong with an answer, which may have been rounded to bfloat16, or nothing."""
        expected = self.expected
        if answer.shape != expected.shape:
            return f"the answer has the shape {answer.shape}, not {expected.shape}"
        off = np.abs(answer.astype(np.float64) - expected).max()
        allowed = self.tolerance() + rough * 2**-8 * float(np.abs(expected).max())
        if not off <= allowed:
            return f"an answer is off by {off:.3g}, and {allowed:.3g} would do"
        return None

    def tolerance(self):
        """Sums of bytes are exact, and a byte may be rounded the other way. Sums of bfloat16 products are of f32 at least, their
        inputs being the same; but weights of attention may be rounded to bfloat16 before they are multiplied by v."""
        row, most = self.row, float(np.abs(self.expected).max())
        if isinstance(row, rows.Attention):
            return most * (2e-2 if row.dtype == "bf16" else 1e-4)
        return {"i32": 0, "u8": 1, "f32": most * 1e-4}[row.y]
