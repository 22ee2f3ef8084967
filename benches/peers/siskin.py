"""Siskin as one who takes turns: its answers by `siskin run`, its times by `siskin bench --serve`, which has random data of the same
shape, types and sparsity."""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np

import problem as data
import rows

NAME = "siskin"
# Dtypes of safetensors.
DTYPES = {"uint8": "U8", "int8": "I8", "int32": "I32", "float32": "F32", "bfloat16": "BF16"}
# Forms that are so much slower than the fastest when the problem is prepared are left out.
SLOWER = 1.1


def version_of(binary):
    """What tells a build from others."""
    if not Path(binary).exists():
        raise SystemExit(f"there is no {binary}: cargo build --release -p siskin-cli")
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{said} ({hashlib.sha256(Path(binary).read_bytes()).hexdigest()[:8]})"


class Siskin:
    def __init__(self, binary, threads):
        self.binary, self.threads, self.kept = binary, threads, []
        self.process = subprocess.Popen(
            [binary, "bench", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = version_of(binary)

    def least(self, case, ms):
        print(json.dumps(case | {"threads": self.threads, "min_ms": round(ms)}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if not answer.get("checked"):
            raise SystemExit(f"siskin: {case}: {answer}")
        return answer["us_min"]

    def solve(self, problem):
        """Prepares a problem: its forms and the time of each, and what is wrong."""
        if wrong := problem.wrong(self.answer(problem)):
            raise SystemExit(f"siskin: {problem.row.name}: {wrong}")
        forms = cases(problem.row)
        said = {name: self.least(case, 8) for name, case in forms.items()}
        best = min(said.values())
        # How x and y lie is of interest by itself, so the plain form stays.
        plain = next(iter(forms))
        self.kept = [(name, forms[name]) for name in forms if name == plain or said[name] <= SLOWER * best]
        return {"forms": said, "failed": []}

    @staticmethod
    def is_plain(form):
        """Whether x and y of a form lie token by token."""
        return form.startswith("tokens")

    def turn(self, ms):
        """The least time of each form."""
        return {name: self.least(case, ms / len(self.kept)) for name, case in self.kept}

    def answer(self, problem):
        row, folder = problem.row, problem.folder
        if isinstance(row, rows.Attention):
            tokens = lambda a: np.ascontiguousarray(a.transpose(1, 0, 2))
            tensors = {name: tokens(getattr(problem, name)) for name in "qkv"}
            params = rows.CLIPPED if row.softmax == "clipped" else {}
        else:
            tensors, params = {"x": problem.x} | weights(problem), {"y": row.y, "shape": [row.n, row.k]}
            if row.block == "dense":
                del params["shape"]
            if row.w == "i8":
                tensors["x_scale"] = np.float32([data.X_SCALE])
            if row.y == "u8":
                tensors |= {"w_scale": problem.w_scale, "bias": problem.bias}
                tensors |= {"y_scale": np.float32([data.Y_SCALE]), "y_zero_point": np.int32([data.Y_ZERO_POINT])}
        write(folder / "siskin.safetensors", tensors)
        operation = "attention" if isinstance(row, rows.Attention) else "linear"
        command = [self.binary, "run", operation, "--in", folder / "siskin.safetensors", "--out", folder / "y.safetensors"]
        subprocess.run([*command, "--params", json.dumps(params)], check=True, stdout=subprocess.DEVNULL)
        y = read(folder / "y.safetensors", "y")
        return y.transpose(1, 0, 2) if operation == "attention" else y


def weights(problem):
    """Dense, or the blocks of weights that are not pruned."""
    w, block = problem.w, problem.row.block
    if block == "dense":
        return {"w": w}
    r, c = map(int, block.split("x"))
    blocks = w.reshape(w.shape[0] // r, r, w.shape[1] // c, c).transpose(0, 2, 1, 3)
    there = (blocks != 0).any((2, 3))
    indptr = np.concatenate([[0], there.sum(1).cumsum()]).astype(np.int32)
    return {"values": blocks[there], "indices": np.nonzero(there)[1].astype(np.int32), "indptr": indptr}


def cases(row):
    """The forms that a caller may choose from, plain tokens first: cases of `siskin bench`."""
    if isinstance(row, rows.Attention):
        softmax = rows.CLIPPED if row.softmax == "clipped" else "standard"
        case = {"op": "attention", "dtype": row.dtype, "seq": row.seq, "softmax": softmax}
        return {layout: case | {"layout": layout} for layout in ("tokens", "heads", "fused")}
    case = {"op": "linear", **{field: getattr(row, field) for field in ("m", "n", "k", "x", "w", "y", "block", "sparsity")}}
    case |= {"epilogue": ["bias"] if row.y == "u8" else []}
    forms = {"tokens": case, "packed x": case | {"in": "packed"}}
    if row.y not in ("i32", "i8"):
        forms["packed x and y"] = case | {"in": "packed", "out": "packed"}
    if row.block != "dense":
        forms["tokens, as a dense layer"] = case | {"block": "dense"}
    if row.w == "bf16":
        forms |= {f"{name}, pairs": form | {"bf16_pairs": "always"} for name, form in forms.items()}
    return forms


def write(path, tensors):
    header, parts, at = {}, [], 0
    for name, array in tensors.items():
        array = np.ascontiguousarray(array)
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
        parts.append(array.tobytes())
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def read(path, name):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    tensor = json.loads(content[8 : 8 + length])[name]
    start, end = tensor["data_offsets"]
    dtype = {code: numpy for numpy, code in DTYPES.items()}[tensor["dtype"]]
    return np.frombuffer(content[8 + length :][start:end], dtype).reshape(tensor["shape"])
