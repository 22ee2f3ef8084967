"""Who is compared of encoders, at which shapes, and the table that comes of it."""

import json
import math
import statistics
from collections import defaultdict
from typing import NamedTuple

ORT_F32, ORT_INT8, ORT_TUNED = "ONNX Runtime f32", "ONNX Runtime dynamic INT8", "ONNX Runtime dynamic INT8, tuned"
# Vectors of f32 differ by rounding alone.
NEAREST = 0.9999


class Shape(NamedTuple):
    batch: int
    seq: int

    @property
    def name(self):
        return f"{self.batch}x{self.seq}"


class Who(NamedTuple):
    name: str
    # Whose time is divided by this one's.
    peer: str
    # Of siskin: flags of `siskin bert bench`, and the precision of `siskin embed` if the vectors mean anything.
    flags: tuple = ()
    precision: str | None = None


def everyone():
    """ONNX Runtime first, whose times the others are compared with."""
    static = ("--dtype", "int8", "--static")
    pruned = [
        Who(f"siskin static INT8, {block} {part} % pruned", ORT_TUNED, (*static, "--sparsity", str(part / 100), "--block", block))
        for block in ("4x1", "4x4")
        for part in (80, 90)
    ]
    return [
        Who(ORT_F32, ORT_F32),
        Who(ORT_INT8, ORT_TUNED),
        Who(ORT_TUNED, ORT_TUNED),
        Who("siskin f32", ORT_F32, ("--dtype", "f32"), "f32"),
        Who("siskin INT8", ORT_TUNED, ("--dtype", "int8"), "int8"),
        Who("siskin static INT8", ORT_TUNED, static, "int8-static"),
        *pruned,
    ]


def shapes(quick=False, batches=False):
    """Texts and tokens of each."""
    found = [Shape(1, 16), Shape(1, 128)] + [Shape(1, 512)] * (not quick)
    return found + [Shape(8, 128)] * batches


def times_of(output):
    """The least and the median time in microseconds of what `siskin bert bench --json` printed."""
    found = json.loads(output.strip().splitlines()[-1])
    return found["us_min"], found["us_p50"]


def least_cosine(some, others):
    """The least cosine of vectors and their counterparts."""

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    def plain(vectors):
        return [[float(x) for x in vector] for vector in vectors]

    return min(cosine(a, b) for a, b in zip(plain(some), plain(others), strict=True))


def refusal(cosine):
    """Why times are not comparable, or nothing."""
    # Not a number is not near either.
    if cosine >= NEAREST:
        return None
    return f"siskin's f32 vectors are not those of ONNX Runtime: the least cosine is {cosine:.6f}, expected {NEAREST} or more"


class Times:
    """The least and the median time of each turn, by shape and by who took it."""

    def __init__(self):
        self.turns = defaultdict(list)

    def add(self, shape, name, turn):
        self.turns[shape, name].append(turn)

    def least(self, shape, name):
        return min(least for least, _ in self.turns[shape, name])

    def median(self, shape, name):
        return statistics.median(median for _, median in self.turns[shape, name])


def table(times, all_shapes, all_of_them, cosines):
    """Lines of Markdown. A ratio is how many times as long the peer takes, by least times and by medians."""
    lines = [
        "| texts x tokens | | least us | median us | peer | peer / this, least | peer / this, median | least cosine |",
        "|---|---|--:|--:|---|--:|--:|--:|",
    ]
    for shape in all_shapes:
        for who in all_of_them:
            least, median = times.least(shape, who.name), times.median(shape, who.name)
            ratios = times.least(shape, who.peer) / least, times.median(shape, who.peer) / median
            cosine = f"{cosines[who.name]:.5f}" if who.name in cosines else ""
            cells = [shape.name, who.name, f"{least:.0f}", f"{median:.0f}", who.peer, *(f"{ratio:.2f}" for ratio in ratios), cosine]
            lines.append(f"| {' | '.join(cells)} |")
    return lines
