"""PyTorch: linear layers of floats, quantized ones, sparse matrices, and attention. Measured where it is installed."""

import warnings

import torch

import problem as data
import rows
from libraries.form import Lacks
from libraries.interpreted import form


def version():
    return f"PyTorch {torch.__version__.split('+')[0]}"


# Of sparse tensors, that they are in beta state, and of quantized ones, that they are on their way out.
warnings.filterwarnings("ignore", category=UserWarning)
ONE = torch.ones(1, 1)


def one():
    return torch.nn.functional.linear(ONE, ONE)


def tensor(array):
    if array.dtype == data.BF16:
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def answer(y):
    return y.float().numpy() if y.dtype == torch.bfloat16 else y.numpy()


def forms(problem, threads):
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    row = problem.row
    if isinstance(row, rows.Attention):
        return attention(problem)
    if row.w == "i8":
        return of_bytes(problem)
    return of_floats(problem)


def of_floats(problem):
    row, x, w = problem.row, tensor(problem.x), tensor(problem.w)
    to = ", to bf16" * (row.w == "bf16")
    if row.w == "f32":
        xt = x.T.contiguous()
        if row.block != "dense":
            csr, (height, width) = w.to_sparse_csr(), map(int, row.block.split("x"))
            yield form("CSR @ x'", lambda: csr @ xt, lambda y: y.T.numpy(), one)
            if height == width:
                bsr = w.to_sparse_bsr((height, width))
                yield form("BSR @ x'", lambda: bsr @ xt, lambda y: y.T.numpy(), one)
    yield form("linear" + to, lambda: torch.nn.functional.linear(x, w), answer, one, rough=row.w == "bf16")
    if torch.backends.mkldnn.is_available():
        # As torch.compile packs the weights of a frozen model.
        packed = torch.ops.mkldnn._reorder_linear_weight(w, row.m)
        call = torch.ops.mkldnn._linear_pointwise
        yield form("linear, packed by oneDNN" + to, lambda: call(x, packed, None, "none", [], ""), answer, one, rough=row.w == "bf16")


def of_bytes(problem):
    row = problem.row
    if (row.x, row.y) != ("u8", "u8"):
        raise Lacks("no layer of bytes but of u8 to u8")
    x = torch._make_per_tensor_quantized_tensor(tensor(problem.x), data.X_SCALE, 0)
    scales = tensor(problem.w_scale).double()
    zeros = torch.zeros(row.n, dtype=torch.int64)
    w = torch._make_per_channel_quantized_tensor(tensor(problem.w), scales, zeros, 0)
    bias = tensor(problem.bias)
    for engine in ("x86", "fbgemm", "onednn"):
        if engine not in torch.backends.quantized.supported_engines:
            continue
        torch.backends.quantized.engine = engine
        packed, call = torch.ops.quantized.linear_prepack(w, bias), torch.ops.quantized.linear
        run = lambda packed=packed: call(x, packed, data.Y_SCALE, data.Y_ZERO_POINT)
        yield form(f"quantized.linear, {engine}", run, lambda y: y.int_repr().numpy(), one)


def attention(problem):
    row = problem.row
    q, k, v = (tensor(getattr(problem, name))[None] for name in "qkv")
    if row.softmax == "standard":
        sdpa = torch.nn.functional.scaled_dot_product_attention
        yield form("scaled_dot_product_attention", lambda: sdpa(q, k, v), lambda y: answer(y[0]), one)
        return
    gamma, zeta = rows.CLIPPED["gamma"], rows.CLIPPED["zeta"]

    def clipped():
        p = torch.softmax(q @ k.transpose(-1, -2) * rows.HEAD_DIM**-0.5, -1)
        return torch.clip((zeta - gamma) * p + gamma, 0, 1) @ v

    yield form("single operators", clipped, lambda y: answer(y[0]), one)
