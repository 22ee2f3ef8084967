#!/usr/bin/env python3
"""The linear layers (and with --torch the attention) of BERT-base on siskin and on other libraries, by turns, one thread each.

Prints a Markdown table, and with --json writes the least times into a record of docs/benchmarks. Installs the libraries into
target/peers on the first run.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import benchmarks  # noqa: E402

VENV = ROOT / "target" / "peers"
PINS = ["numpy==2.4.6", "scipy==1.17.1", "onnx==1.23.2", "onnxruntime==1.32.0"]
TORCH = "torch==2.8.0"
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}

M = 384
SHAPES = [(768, 768), (3072, 768), (768, 3072)]
SPARSITY = 0.8
BLOCKS = [(4, 1), (4, 4), (16, 16)]
SEQS = [128, 384, 1024]
CLIPPED = {"gamma": -0.001, "zeta": 1.0}


def enter_venv(args):
    """Starts this script again with the Python of target/peers and one thread."""
    python = VENV / "bin" / "python"
    if not python.exists():
        venv.create(VENV, with_pip=True)
    pins = PINS + [TORCH] * args.torch
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins], check=True)
    os.execve(python, [str(python), *sys.argv], {**os.environ, **ONE_THREAD})


class Siskin:
    """`siskin bench --serve`: makes its own random weights and checks every result against its scalar kernels."""

    def __init__(self, binary):
        self.process = subprocess.Popen(
            [binary, "bench", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def linear(self, n, k, w, x, y, block):
        case = {"op": "linear", "m": M, "n": n, "k": k, "w": w, "x": x, "y": y, "block": block}
        return self.turn(case | {"sparsity": SPARSITY, "epilogue": [], "in": "tokens", "out": "tokens"})

    def attention(self, dtype, seq, softmax):
        return self.turn({"op": "attention", "dtype": dtype, "seq": seq, "softmax": softmax})

    def turn(self, case):
        def turn(ms):
            print(json.dumps(case | {"threads": 1, "min_ms": ms}), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline())
            if not answer.get("checked"):
                sys.exit(f"siskin: {answer}")
            return answer["us_min"], answer["us_median"]

        return turn


def peer_turn(call, shapes):
    """A turn of a call that returns its result, of one of these shapes."""
    if tuple(call().shape) not in shapes:
        sys.exit(f"a result of shape {tuple(call().shape)}")

    def turn(ms):
        call()
        times = []
        end = time.perf_counter() + ms / 1e3
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e6)
        return min(times), statistics.median(times)

    return turn


def onnx_call(op, x, n, output, domain="", **weights):
    """A model of one node; the weights are initializers, so that they are packed once."""
    import numpy as np
    import onnxruntime as ort
    from onnx import helper, numpy_helper

    dtype = helper.np_dtype_to_tensor_dtype
    y = np.empty((M, n), output)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *weights], ["y"], domain=domain)],
        op,
        [helper.make_tensor_value_info("x", dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info("y", dtype(y.dtype), y.shape)],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)

    def call():
        session.run_with_iobinding(binding)
        return y

    return call


def peers(n, k, with_torch):
    """(siskin's case, the peer, the peer's call) of one shape."""
    import numpy as np
    import scipy.sparse

    rng = np.random.default_rng(1)
    x_u8 = rng.integers(0, 256, (M, k), dtype=np.uint8)
    w_s8 = rng.integers(-127, 128, (n, k), dtype=np.int8)
    x = rng.standard_normal((M, k), dtype=np.float32)
    w = rng.standard_normal((n, k), dtype=np.float32)
    xt, wt, wt_s8 = (np.ascontiguousarray(a.T) for a in (x, w, w_s8))
    scale = np.float32(0.01)

    dense_int = ("i8", "u8", "i32", "dense")
    quantized = ("i8", "f32", "f32", "dense")
    dense_float = ("f32", "f32", "f32", "dense")
    names = [f"{r}x{c}" for r, c in BLOCKS]
    sparse = {}
    for r, c in BLOCKS:
        kept = rng.random((n // r, k // c)) >= SPARSITY
        sparse[r, c] = w * np.kron(kept, np.ones((r, c), np.float32))

    int_matmul = onnx_call("MatMulInteger", x_u8, n, np.int32, w=wt_s8)
    dynamic = onnx_call("DynamicQuantizeMatMul", x, n, np.float32, "com.microsoft", w=wt_s8, scale=scale)
    yield dense_int, "onnxruntime MatMulInteger", int_matmul
    yield quantized, "onnxruntime DynamicQuantizeMatMul", dynamic
    yield dense_float, "onnxruntime MatMul f32", onnx_call("MatMul", x, n, np.float32, w=wt)
    yield dense_float, "numpy matmul f32", lambda: x @ wt
    for name in names:
        yield ("i8", "u8", "i32", name), "onnxruntime MatMulInteger, dense", int_matmul
    for name, (block, pruned) in zip(names, sparse.items()):
        bsr = scipy.sparse.bsr_matrix(pruned, blocksize=block)
        yield ("f32", "f32", "f32", name), "scipy bsr f32", lambda bsr=bsr: bsr @ xt
        csr = scipy.sparse.csr_matrix(pruned)
        yield ("f32", "f32", "f32", name), "scipy csr f32", lambda csr=csr: csr @ xt
    if with_torch:
        yield from torch_peers(x, w, sparse, (dense_float, quantized), names)


def torch_peers(x, w, sparse, cases, names):
    import torch

    dense_float, quantized = cases
    torch.set_num_threads(1)
    x, w = torch.from_numpy(x), torch.from_numpy(w)
    xt = x.T.contiguous()
    linear = torch.nn.functional.linear
    yield dense_float, "torch linear f32", lambda: linear(x, w)
    qx = torch.quantize_per_tensor(x, 0.03, 128, torch.quint8)
    qw = torch.quantize_per_tensor(w, 0.03, 0, torch.qint8)
    for engine in ("fbgemm", "onednn"):
        torch.backends.quantized.engine = engine
        # One pack for each: onednn's, once used by the one, crashes the other.
        for op, x_in, args, case in [
            (torch.ops.quantized.linear, qx, (1.0, 128), ("i8", "u8", "u8", "dense")),
            (torch.ops.quantized.linear_dynamic, x, (), quantized),
        ]:
            call = partial(op, x_in, torch.ops.quantized.linear_prepack(qw, None), *args)
            yield case, f"torch quantized {op.__name__}, {engine}", call
    for name, (block, pruned) in zip(names, sparse.items()):
        if block[0] == block[1]:  # torch multiplies by no others, and by these with MKL
            bsr = torch.from_numpy(pruned).to_sparse_bsr(block)
            yield ("f32", "f32", "f32", name), "torch bsr f32", lambda bsr=bsr: bsr @ xt
        csr = torch.from_numpy(pruned).to_sparse_csr()
        yield ("f32", "f32", "f32", name), "torch csr f32", lambda csr=csr: csr @ xt


def torch_attention(seq):
    """12 heads of 64: PyTorch's own attention, and a clipped softmax as the authors write it."""
    import torch

    torch.set_num_threads(1)
    gamma, zeta = CLIPPED["gamma"], CLIPPED["zeta"]

    def clipped(q, k, v):
        p = torch.softmax(q @ k.transpose(-1, -2) * 0.125, -1)
        return torch.clip((zeta - gamma) * p + gamma, 0, 1) @ v

    for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        q, k, v = (torch.randn(1, 12, seq, 64).to(dtype) for _ in range(3))
        sdpa = torch.nn.functional.scaled_dot_product_attention
        yield (name, seq, "standard"), f"torch sdpa {name}", partial(sdpa, q, k, v)
        yield (name, seq, "clipped"), f"torch clipped softmax, eager {name}", partial(clipped, q, k, v)


def measure(pairs, turns, args):
    times = {key: [] for key in turns}
    for _ in range(args.rounds):
        for key, turn in turns.items():
            times[key].append(turn(args.turn_ms))
    least = {key: min(t for t, _ in rounds) for key, rounds in times.items()}
    median = {key: statistics.median(t for _, t in rounds) for key, rounds in times.items()}
    rows = []
    for case, where, what, peer, call in pairs:
        rows.append([where, what, round(least[case]), peer, round(least[call]), round(least[call] / least[case], 2)])
        print(
            f"| {where} | {what} | {peer} | {least[case]:.0f} | {least[call]:.0f} | {least[call] / least[case]:.2f}"
            f" | {median[case]:.0f} | {median[call]:.0f} |",
            flush=True,
        )
    return rows


def record(args, name, title, about, first, rows):
    """A table of the least times, as a run of the record args.json."""
    flags = "".join([" --attention" * args.attention, " --torch" * (args.torch and not args.attention)])
    columns = [first, "siskin", "siskin us", "peer", "peer us", "peer / siskin"]
    table = {"title": "Least times in microseconds", "unit": "x", "digits": 1, "bar": "peer / siskin"}
    run = {
        "name": name,
        "title": title,
        "about": about,
        "command": f"cargo build --release -p siskin-cli && benches/peers/peers.py{flags} --rounds {args.rounds}",
        "tables": [table | {"columns": columns, "rows": rows}],
    }
    benchmarks.record_run(args.json, run)


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--siskin", default=ROOT / "target" / "release" / "siskin", help="the siskin to measure")
    parser.add_argument("--torch", action="store_true", help="measure torch too; a download of some GB")
    parser.add_argument("--attention", action="store_true", help="attention alone, with torch")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--turn-ms", type=int, default=30, help="milliseconds each library has in a round")
    parser.add_argument("--json", metavar="RECORD", help="a record, or the folder where that of this CPU belongs")
    args = parser.parse_args()
    args.torch |= args.attention
    if Path(sys.prefix) != VENV:
        enter_venv(args)

    siskin = Siskin(args.siskin)
    versions = ", ".join(PINS + [TORCH] * args.torch).replace("==", " ")
    print(f"{cpu_model()}, 1 thread; {versions}, Python {platform.python_version()}.")
    print(f"{M} tokens; block formats at {SPARSITY:.0%} sparsity; least and median of {args.rounds} rounds, in us.\n")
    print("| n x k | siskin | peer | siskin min | peer min | peer / siskin | siskin median | peer median |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    linear, attention = [], []
    for n, k in () if args.attention else SHAPES:
        pairs = list(peers(n, k, args.torch))
        turns = {case: siskin.linear(n, k, *case) for case, _, _ in pairs}
        turns |= {call: peer_turn(call, [(M, n), (n, M)]) for _, _, call in pairs}
        rows = [(c, f"{n} x {k}", f"{c[3]} {c[0]}, {c[1]} -> {c[2]}", peer, call) for c, peer, call in pairs]
        linear += measure(rows, turns, args)
    for seq in SEQS if args.torch else ():
        pairs = list(torch_attention(seq))
        softmax = {"standard": "standard", "clipped": CLIPPED}
        turns = {case: siskin.attention(*case[:2], softmax[case[2]]) for case, _, _ in pairs}
        turns |= {call: peer_turn(call, [(1, 12, seq, 64)]) for _, _, call in pairs}
        rows = [(c, f"{seq} tokens", f"attention {c[0]}, {c[2]}", peer, call) for c, peer, call in pairs]
        attention += measure(rows, turns, args)
    if args.json and linear:
        about = (
            f"{M} tokens, by turns within the same minutes, the least of {args.rounds} rounds; {versions}. All weights are random; a "
            f"pruned layer has {100 * SPARSITY:g} % of its blocks pruned. torch multiplies BSR and CSR matrices with Intel MKL. A bar is how "
            "many times as long the peer takes. [benches/peers](../../benches/peers/README.md) explains the measurement."
        )
        record(args, "peers", "Linear layers beside other libraries", [about], "out x in", linear)
    if args.json and attention:
        about = (
            f"12 heads of 64 features, by turns within the same minutes, the least of {args.rounds} rounds; {TORCH.replace('==', ' ')}. "
            "Clipped is gamma = -0.001, zeta = 1, which torch runs as separate operations, as the authors of Quantizable "
            "Transformers write it. A bar is how many times as long the peer takes."
        )
        record(args, "peers-attention", "Attention beside PyTorch", [about], "tokens", attention)


if __name__ == "__main__":
    main()
