"""Who is compared of encoders, at which shapes, and the tables that come of it."""

import json
import math
import statistics
from collections import defaultdict
from typing import NamedTuple

SISKIN, CANDLE, ORT, DEEPSPARSE = "siskin", "candle", "onnxruntime", "deepsparse"
# To whose vectors those of all are compared.
ORT_F32 = "ONNX Runtime f32"
# Vectors of f32 differ by rounding alone.
NEAREST = 0.9999
PRUNED = [(block, part) for block in ("4x1", "4x4") for part in (80, 90)]


class Shape(NamedTuple):
    batch: int
    seq: int

    @property
    def name(self):
        return f"{self.batch}x{self.seq}"


class Who(NamedTuple):
    label: str
    # Siskin is compared with peers of the same kind: f32 or int8.
    kind: str
    # A file of encoder_libraries/ and one of its forms; or siskin; or candle, and the form is the flag that names its program.
    library: str
    form: str = ""
    # Of siskin: flags of `siskin bert bench`, and the precision of `siskin embed`.
    flags: tuple = ()
    precision: str | None = None
    # Block and percents.
    pruned: tuple | None = None

    @property
    def name(self):
        return f"{self.label}, {self.pruned[0]} {self.pruned[1]} % pruned" if self.pruned else self.label


def siskin():
    static = ("--dtype", "int8", "--static")
    pruned = [
        Who("siskin static INT8", "int8", SISKIN, flags=(*static, "--sparsity", str(part / 100), "--block", block), pruned=(block, part))
        for block, part in PRUNED
    ]
    return [
        Who("siskin f32", "f32", SISKIN, flags=("--dtype", "f32"), precision="f32"),
        Who("siskin INT8", "int8", SISKIN, flags=("--dtype", "int8"), precision="int8"),
        Who("siskin static INT8", "int8", SISKIN, flags=static, precision="int8-static"),
        *pruned,
    ]


def integers(pruned):
    """The name of the model that DeepSparse runs."""
    return "integers" if pruned is None else f"integers-{pruned[0]}-{pruned[1]}"


def everyone(unpublished=False):
    """ONNX Runtime first, to whose vectors the others are compared, and siskin last."""
    found = [
        Who(ORT_F32, "f32", ORT, "f32"),
        Who("ONNX Runtime dynamic INT8", "int8", ORT, "int8"),
        Who("ONNX Runtime dynamic INT8, tuned", "int8", ORT, "int8-tuned"),
        Who("OpenVINO f32", "f32", "openvino", "f32"),
        Who("OpenVINO INT8", "int8", "openvino", "int8"),
        Who("OpenVINO INT8, floats as it prefers", "int8", "openvino", "int8-preferred"),
        Who("PyTorch f32", "f32", "torch", "f32"),
        Who("PyTorch f32, compiled", "f32", "torch", "f32-compiled"),
        Who("PyTorch dynamic INT8", "int8", "torch", "int8"),
        Who("fastembed f32", "f32", "fastembed", "f32"),
        Who("candle f32", "f32", CANDLE, "candle"),
        Who("candle f32, MKL", "f32", CANDLE, "candle_mkl"),
    ]
    if unpublished:
        found += [Who("DeepSparse INT8", "int8", DEEPSPARSE, integers(pruned), pruned=pruned) for pruned in (None, *PRUNED)]
    return found + siskin()


def shapes(quick=False, batches=False):
    """Texts and tokens of each."""
    found = [Shape(1, 16), Shape(1, 128)] + [Shape(1, 512)] * (not quick)
    return found + [Shape(8, 128)] * batches


def times_of(answer):
    """The least and the median time in microseconds of what one who takes turns answered."""
    if "missing" in answer:
        raise SystemExit(answer["missing"])
    return answer["us_min"], answer["us_p50"]


def last_line(output):
    """What `siskin bert bench --json` printed."""
    return json.loads(output.strip().splitlines()[-1])


def least_cosine(some, others):
    """The least cosine of vectors and their counterparts."""

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    def plain(vectors):
        return [[float(x) for x in vector] for vector in vectors]

    return min(cosine(a, b) for a, b in zip(plain(some), plain(others), strict=True))


def refusal(name, cosine):
    """Why times are not comparable, or nothing."""
    # Not a number is not near either.
    if cosine >= NEAREST:
        return None
    return f"the vectors of {name} are not those of {ORT_F32}: the least cosine is {cosine:.6f}, expected {NEAREST} or more"


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


def rows_of_times(times, all_shapes, all_of_them, cosines):
    """Of each shape and each who took turns: its times, and the least cosine of its vectors if it has any."""
    return [
        [shape.name, who.name, round(times.least(shape, who.name), 1), round(times.median(shape, who.name), 1), cosines.get(who.name, "")]
        for shape in all_shapes
        for who in all_of_them
    ]


def peers_of(kind, all_of_them):
    """The labels of those that siskin is compared with."""
    return list(dict.fromkeys(who.label for who in all_of_them if who.kind == kind and who.library != SISKIN))


def rows_of_ratios(times, all_shapes, all_of_them, kind):
    """How many times as long as siskin each peer takes, by least times. One that runs pruned models stands beside siskin's of the same."""
    by_label = {(who.label, who.pruned): who for who in all_of_them}
    rows = []
    for shape in all_shapes:
        for who in all_of_them:
            if who.library == SISKIN and who.kind == kind:
                beside = [by_label.get((label, who.pruned)) or by_label[label, None] for label in peers_of(kind, all_of_them)]
                ratios = [round(times.least(shape, peer.name) / times.least(shape, who.name), 2) for peer in beside]
                rows.append([shape.name, who.name, *ratios])
    return rows


def table(columns, rows):
    """Lines of Markdown: times in whole microseconds, ratios with two digits, cosines with five."""
    formats = {"least us": ".0f", "median us": ".0f", "least cosine": ".5f"}

    def cell(column, value):
        return value if isinstance(value, str) else format(value, formats.get(column, ".2f"))

    align = ["--:" if any(not isinstance(v, str) for v in values) else "---" for values in zip(*rows)]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(align)}|"]
    return lines + [f"| {' | '.join(cell(c, v) for c, v in zip(columns, row, strict=True))} |" for row in rows]


TIMES = ["texts x tokens", "who", "least us", "median us", "least cosine"]


def tables(times, all_shapes, all_of_them, cosines):
    """Pairs of a title and of columns and rows."""
    yield "Least and median times of all rounds", TIMES, rows_of_times(times, all_shapes, all_of_them, cosines)
    for kind, title in (("f32", "f32"), ("int8", "INT8")):
        peers, rows = peers_of(kind, all_of_them), rows_of_ratios(times, all_shapes, all_of_them, kind)
        if peers and rows:
            yield f"How many times as long as siskin a peer takes, {title}, by least times", ["texts x tokens", "siskin", *peers], rows
