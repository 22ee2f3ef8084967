"""OpenVINO, through its C API: models of one layer or of attention, in memory, with the precision that the problem asks for.
Layers of bytes are such as its quantizer leaves them, and run in INT8. It offers its weights' sparsity (a property of the
CPU plugin) for layers of bytes."""

import ctypes
import math
import tempfile
from ctypes import byref, c_char_p, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as op

import problem as data
import rows
from libraries.form import Form, Lacks
from libraries.loops import Call, One, address

(PATH,) = (Path(openvino.__file__).parent / "libs").glob("libopenvino_c.so*")
LIBRARY = ctypes.CDLL(str(PATH))


def version():
    return f"OpenVINO {openvino.__version__.split('-')[0]}"


def do(name, *args):
    if status := getattr(LIBRARY, name)(*args):
        raise RuntimeError(f"{name} returns {status}")


def request(model, properties):
    """An inference request that is made of a model by the C API."""
    core, read, compiled, made = (c_void_p() for _ in range(4))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.xml")
        openvino.save_model(model, path, compress_to_fp16=False)
        do("ov_core_create", byref(core))
        do("ov_core_read_model", core, path.encode(), None, byref(read))
        options = [c_char_p(text.encode()) for pair in properties.items() for text in pair]
        do("ov_core_compile_model", core, read, c_char_p(b"CPU"), c_size_t(len(options)), byref(compiled), *options)
        do("ov_compiled_model_create_infer_request", compiled, byref(made))
    return made


def array(request, getter, dtype, shape):
    """The memory of a tensor of a request."""
    tensor, pointer = c_void_p(), c_void_p()
    do(getter[0], request, *getter[1:], byref(tensor))
    do("ov_tensor_data", tensor, byref(pointer))
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(pointer.value), dtype).reshape(shape)


def form(name, model, inputs, shape, dtype, threads, answer=lambda y: y, **properties):
    properties = {
        "INFERENCE_NUM_THREADS": str(threads), "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": "NO",
    } | properties
    made = request(model, properties)
    for i, value in enumerate(inputs):
        array(made, ("ov_infer_request_get_input_tensor_by_index", c_size_t(i)), value.dtype, value.shape)[...] = value
    call = Call("one", One(address(LIBRARY.ov_infer_request_infer), made.value))
    getter = ("ov_infer_request_get_output_tensor_by_index", c_size_t(0))
    return Form(name, call, lambda: answer(array(made, getter, dtype, shape)))


def forms(problem, threads):
    row = problem.row
    if isinstance(row, rows.Attention):
        yield from attention(problem, threads)
    elif row.w == "i8":
        if row.y != "u8":
            raise Lacks("no layer of bytes whose output are sums")
        yield from of_bytes(problem, threads)
    else:
        x = op.parameter(problem.x.shape, getattr(openvino.Type, row.x))
        w = op.constant(problem.w.astype(np.float32), getattr(openvino.Type, row.w))
        y = op.matmul(op.convert(x, "f32"), op.convert(w, "f32"), False, True)
        model = openvino.Model([y if row.w == "f32" else op.convert(y, "f32")], [x])
        precision = {"f32": "f32", "bf16": "bf16"}[row.w]
        yield form("MatMul", model, [problem.x], (row.m, row.n), np.float32, threads, INFERENCE_PRECISION_HINT=precision)


def of_bytes(problem, threads):
    row = problem.row
    x = op.parameter(problem.x.shape, getattr(openvino.Type, row.x))
    scalar = lambda value: op.constant(np.float32(value))
    top = 255 * data.X_SCALE
    # A quantizer whose levels are those of the bytes that come in: the plugin sees that it changes nothing.
    real_x = op.multiply(op.convert(x, "f32"), scalar(data.X_SCALE))
    quantized = op.fake_quantize(real_x, scalar(0), scalar(top), scalar(0), scalar(top), 256)
    w = op.multiply(op.convert(op.constant(problem.w), "f32"), op.constant(problem.w_scale[:, None]))
    y = op.add(op.matmul(quantized, w, False, True), op.constant(problem.bias[None, :]))
    low, high = (scalar((q - data.Y_ZERO_POINT) * data.Y_SCALE) for q in (0, 255))
    y = op.fake_quantize(y, low, high, scalar(0), scalar(255), 256)
    model = openvino.Model([op.convert(y, "u8")], [x])
    for name, more in (("MatMul of bytes", {}), ("MatMul of bytes, sparse weights", {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": "0.7"})):
        if more and row.block == "dense":
            continue
        yield form(name, model, [problem.x], (row.m, row.n), np.uint8, threads, **more)


def attention(problem, threads):
    row = problem.row
    heads = [getattr(problem, name)[None] for name in "qkv"]
    parameters = [op.parameter(a.shape, getattr(openvino.Type, row.dtype)) for a in heads]
    q, k, v = (op.convert(p, "f32") for p in parameters)
    precision = {"INFERENCE_PRECISION_HINT": row.dtype}
    shape = heads[0].shape
    if row.softmax == "standard":
        y = op.scaled_dot_product_attention(q, k, v)
        model = openvino.Model([op.convert(y, "f32")], parameters)
        yield form("ScaledDotProductAttention", model, heads, shape, np.float32, threads, lambda y: y[0], **precision)
    scores = op.multiply(op.matmul(q, k, False, True), op.constant(np.float32(1 / math.sqrt(rows.HEAD_DIM))))
    weights = op.softmax(scores, 3)
    if row.softmax == "clipped":
        gamma, zeta = rows.CLIPPED["gamma"], rows.CLIPPED["zeta"]
        wide = op.multiply(weights, op.constant(np.float32(zeta - gamma)))
        weights = op.clamp(op.add(wide, op.constant(np.float32(gamma))), 0, 1)
    model = openvino.Model([op.convert(op.matmul(weights, v, False, False), "f32")], parameters)
    yield form("single operators", model, heads, shape, np.float32, threads, lambda y: y[0], **precision)
