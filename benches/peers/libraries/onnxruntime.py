"""ONNX Runtime, through the C API of its libonnxruntime, without its Python module: models of a node or a few, whose weights are
initializers, so that they are packed once."""

import ctypes
import importlib.metadata
import importlib.util
import math
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper

import problem as data
import rows
from libraries.form import Form, Lacks
from libraries.loops import Call, Ort

# The functions of OrtApi that are called here, by their place in that structure, which never changes.
CREATE_ENV, CREATE_SESSION_FROM_ARRAY, RUN, CREATE_SESSION_OPTIONS = 3, 8, 9, 10
SET_INTRA_OP_THREADS, CREATE_TENSOR_WITH_DATA, CREATE_CPU_MEMORY_INFO = 24, 49, 69
GET_ERROR_MESSAGE, DISABLE_TELEMETRY = 2, 6


def version():
    return f"ONNX Runtime {importlib.metadata.version('onnxruntime')}"


class Base(ctypes.Structure):
    _fields_ = [("get_api", ctypes.CFUNCTYPE(c_void_p, ctypes.c_uint32)), ("version", c_void_p)]


def api():
    package = importlib.util.find_spec("onnxruntime")
    if package is None:
        raise ImportError("there is no onnxruntime")
    (path,) = (Path(package.origin).parent / "capi").glob("libonnxruntime.so*")
    library = ctypes.CDLL(str(path))
    library.OrtGetApiBase.restype = ctypes.POINTER(Base)
    functions = library.OrtGetApiBase().contents.get_api(1)
    return ctypes.cast(functions, ctypes.POINTER(c_void_p))


API = api()


def do(place, *args):
    status = ctypes.CFUNCTYPE(c_void_p)(API[place])
    status.argtypes = None
    if failed := status(*args):
        message = ctypes.CFUNCTYPE(c_char_p, c_void_p)(API[GET_ERROR_MESSAGE])(failed)
        raise RuntimeError(message.decode())


ENV = c_void_p()
do(CREATE_ENV, c_int(3), c_char_p(b"peers"), byref(ENV))
do(DISABLE_TELEMETRY, ENV)


class Model:
    """Nodes, constants by name, and inputs by name; the output is y."""

    def __init__(self, nodes, inputs, constants, shape, dtype, threads):
        element = helper.np_dtype_to_tensor_dtype
        self.y = np.empty(shape, dtype)
        self.inputs = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        graph = helper.make_graph(
            nodes, "peers",
            [helper.make_tensor_value_info(name, element(a.dtype), a.shape) for name, a in self.inputs.items()],
            [helper.make_tensor_value_info("y", element(self.y.dtype), shape)],
            [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        content = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        options, session, memory = c_void_p(), c_void_p(), c_void_p()
        do(CREATE_SESSION_OPTIONS, byref(options))
        do(SET_INTRA_OP_THREADS, options, c_int(threads))
        do(CREATE_SESSION_FROM_ARRAY, ENV, c_char_p(content), c_size_t(len(content)), options, byref(session))
        do(CREATE_CPU_MEMORY_INFO, c_int(1), c_int(0), byref(memory))

        def value(array):
            made, dims = c_void_p(), (c_int64 * array.ndim)(*array.shape)
            pointer, size = c_void_p(array.ctypes.data), c_size_t(array.nbytes)
            kind = c_int(element(array.dtype))
            do(CREATE_TENSOR_WITH_DATA, memory, pointer, size, dims, c_size_t(array.ndim), kind, byref(made))
            return made.value

        names = (c_char_p * len(inputs))(*(name.encode() for name in self.inputs))
        values = (c_void_p * len(inputs))(*map(value, self.inputs.values()))
        outputs, output = (c_char_p * 1)(b"y"), (c_void_p * 1)(value(self.y))
        at = lambda array: ctypes.cast(array, c_void_p)
        call = Ort(API[RUN], session.value, at(names), at(values), len(inputs), at(outputs), at(output))
        self.call = Call("ort", call, self, names, values, outputs, output)

    def form(self, name, answer=None):
        return Form(name, self.call, answer or (lambda: self.y))


def node(op, inputs, output="y", domain="", **attributes):
    return helper.make_node(op, inputs, [output], domain=domain, **attributes)


def forms(problem, threads):
    row = problem.row
    if isinstance(row, rows.Attention):
        yield from attention(problem, threads)
        return
    shape, types = (row.m, row.n), (row.x, row.y)
    if types == ("f32", "f32"):
        yield Model([node("MatMul", ["x", "w"])], {"x": problem.x}, {"w": problem.wt}, shape, np.float32, threads).form("MatMul")
        gemm = node("Gemm", ["x", "w"], transB=1)
        yield Model([gemm], {"x": problem.x}, {"w": problem.w}, shape, np.float32, threads).form("Gemm")
    elif row.y == "i32":
        integer = node("MatMulInteger", ["x", "w"])
        yield Model([integer], {"x": problem.x}, {"w": problem.wt}, shape, np.int32, threads).form("MatMulInteger")
    elif row.y == "u8":
        yield requantized(problem, threads)
    else:
        raise Lacks(f"no product of {row.x} to {row.y} on CPUs")


def requantized(problem, threads):
    x_scale = np.float32(data.X_SCALE)
    constants = {
        "x_scale": x_scale, "x_zero": np.uint8(0), "w": problem.w, "w_scale": problem.w_scale,
        "w_zero": np.zeros(problem.row.n, np.int8),
        "bias": np.rint(problem.bias / (x_scale * problem.w_scale)).astype(np.int32),
        "y_scale": np.float32(data.Y_SCALE), "y_zero": np.uint8(data.Y_ZERO_POINT),
    }
    names = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "bias", "y_scale", "y_zero"]
    gemm = node("QGemm", names, domain="com.microsoft", transB=1)
    return Model([gemm], {"x": problem.x}, constants, problem.expected.shape, np.uint8, threads).form("QGemm")


def attention(problem, threads):
    row = problem.row
    if row.dtype != "f32":
        raise Lacks(f"no attention of {row.dtype} on CPUs")
    heads = {name: getattr(problem, name)[None] for name in "qkv"}
    shape = (1, rows.HEADS, row.seq, rows.HEAD_DIM)
    scale = np.float32(1 / math.sqrt(rows.HEAD_DIM))
    if row.softmax == "standard":
        tokens = {n: a.transpose(0, 2, 1, 3).reshape(1, row.seq, rows.HEADS * rows.HEAD_DIM) for n, a in heads.items()}
        nodes = [node("MultiHeadAttention", ["q", "k", "v"], domain="com.microsoft", num_heads=rows.HEADS)]
        model = Model(nodes, tokens, {}, (1, row.seq, rows.HEADS * rows.HEAD_DIM), np.float32, threads)
        answer = lambda: model.y.reshape(row.seq, rows.HEADS, rows.HEAD_DIM).transpose(1, 0, 2)
        yield model.form("MultiHeadAttention", answer)
    nodes = [
        node("Transpose", ["k"], "kt", perm=[0, 1, 3, 2]), node("MatMul", ["q", "kt"], "qk"),
        node("Mul", ["qk", "scale"], "scores"), node("Softmax", ["scores"], "p", axis=-1),
    ]
    constants = {"scale": scale}
    if row.softmax == "clipped":
        gamma, zeta = rows.CLIPPED["gamma"], rows.CLIPPED["zeta"]
        constants |= {"stretch": np.float32(zeta - gamma), "gamma": np.float32(gamma), "zero": np.float32(0), "one": np.float32(1)}
        nodes += [node("Mul", ["p", "stretch"], "wide"), node("Add", ["wide", "gamma"], "low")]
        nodes += [node("Clip", ["low", "zero", "one"], "weights")]
    weights = "weights" if row.softmax == "clipped" else "p"
    model = Model([*nodes, node("MatMul", [weights, "v"])], heads, constants, shape, np.float32, threads)
    yield model.form("single operators", lambda: model.y[0])
