"""oneDNN, through the C API of its libdnnl: matmul and inner product in the layouts that it asks for itself, weights
reordered ahead. PEERS_LIBDNNL names the library to load."""

import ctypes
import math
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_uint, c_void_p
from functools import partial
from itertools import product

import ml_dtypes
import numpy as np

import problem as data
import rows
from libraries.form import Form
from libraries.loops import Call, OneDnn, address

TYPES = {"f16": 1, "bf16": 2, "f32": 3, "i32": 4, "i8": 5, "u8": 6}
NUMPY = {"bf16": ml_dtypes.bfloat16, "f32": np.float32, "i32": np.int32, "i8": np.int8, "u8": np.uint8}
SRC, DST, WEIGHTS, BIAS, SCALES, ZERO_POINTS = 1, 17, 33, 41, 4096, 8192
ANY, ALLOCATE, CPU, INFERENCE = 1, -1, 1, 96
IMPLEMENTATION, SRC_MD, WEIGHTS_MD, DST_MD = 8, 129, 131, 133


class Unimplemented(Exception):
    """What this version of oneDNN does not have for these types."""


class Version(ctypes.Structure):
    _fields_ = [(n, c_int) for n in ("major", "minor", "patch")] + [("hash", c_char_p), ("cpu", c_uint), ("gpu", c_uint)]


class Argument(ctypes.Structure):
    _fields_ = [("arg", c_int), ("memory", c_void_p)]


DNNL = ctypes.CDLL(os.environ.get("PEERS_LIBDNNL", "libdnnl.so.3"))
DNNL.dnnl_version.restype = POINTER(Version)
RUNTIMES = {1: "sequential", 2: "OpenMP", 4: "TBB", 512: "SYCL"}


def version():
    v = DNNL.dnnl_version().contents
    return f"oneDNN {v.major}.{v.minor}.{v.patch} ({RUNTIMES.get(v.cpu, v.cpu)})"


def do(name, *args):
    function = getattr(DNNL, name, None)
    status = function(*args) if function else 3
    if status == 3:
        raise Unimplemented(name)
    if status:
        raise OSError(f"{name} returns {status}")


def made(name, *args):
    """The handle that a function of oneDNN makes."""
    handle = c_void_p()
    do(name, byref(handle), *args)
    return handle


class Engine:
    def __init__(self):
        self.engine = made("dnnl_engine_create", CPU, ctypes.c_size_t(0))
        self.stream = made("dnnl_stream_create", self.engine, 1)
        sequential = DNNL.dnnl_version().contents.cpu in (1, 2)
        # A stream of these runtimes is done when the call returns.
        self.wait = None if sequential else address(DNNL.dnnl_stream_wait)

    def memory(self, desc, array=None):
        """Memory of this layout, with what is in an array of this very layout."""
        memory = made("dnnl_memory_create", desc, self.engine, c_void_p(ALLOCATE))
        if array is not None:
            pointer = c_void_p()
            do("dnnl_memory_get_data_handle", memory, byref(pointer))
            array = np.ascontiguousarray(array)
            ctypes.memmove(pointer, array.ctypes.data, array.nbytes)
        return memory

    def read(self, memory, shape, dtype):
        pointer = c_void_p()
        do("dnnl_memory_get_data_handle", memory, byref(pointer))
        array = np.empty(shape, NUMPY[dtype])
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)
        return array

    def reordered(self, memory, source, target):
        """The same in another layout."""
        if DNNL.dnnl_memory_desc_equal(source, target):
            return memory
        to = self.memory(target)
        pd = made("dnnl_reorder_primitive_desc_create", source, self.engine, target, self.engine, None)
        self.call(pd, {SRC: memory, DST: to}).once()
        return to

    def call(self, pd, memories):
        primitive = made("dnnl_primitive_create", pd)
        args = (Argument * len(memories))(*((arg, memory.value) for arg, memory in memories.items()))
        run = OneDnn(
            address(DNNL.dnnl_primitive_execute), self.wait, primitive.value, self.stream.value,
            ctypes.cast(args, c_void_p), len(memories),
        )
        return Call("onednn", run, args, memories)


def desc(dims, dtype, strides=None):
    """Of an array in row-major order, or of strides, or (`ANY`) of the layout that a primitive likes best."""
    sizes = (c_int64 * len(dims))(*dims)
    if strides == ANY:
        return made("dnnl_memory_desc_create_with_tag", len(dims), sizes, TYPES[dtype], ANY)
    strides = strides or [math.prod(dims[i + 1 :]) for i in range(len(dims))]
    return made("dnnl_memory_desc_create_with_strides", len(dims), sizes, TYPES[dtype], (c_int64 * len(dims))(*strides))


def queried(pd, what):
    DNNL.dnnl_primitive_desc_query_md.restype = c_void_p
    return c_void_p(DNNL.dnnl_primitive_desc_query_md(pd, what, 0))


def implementation(pd):
    name = c_char_p()
    do("dnnl_primitive_desc_query", pd, IMPLEMENTATION, 0, byref(name))
    return name.value.decode()


def forms(problem, threads):
    from libraries import onednn_attention, onednn_sparse

    row, engine = problem.row, Engine()
    if isinstance(row, rows.Attention):
        yield from onednn_attention.forms(engine, problem)
        return
    ways = [partial(linear_form, engine, problem, *way) for way in product(("matmul", "inner product"), ("plain", "its own"))]
    if row.block != "dense" and row.w == "f32":
        ways.append(partial(onednn_sparse.form, engine, problem))
    for way in ways:
        try:
            yield way()
        except Unimplemented:
            # Such as inner products of s8 in some versions.
            continue


def linear_form(engine, problem, primitive, activations):
    row = problem.row
    m, n, k = row.m, row.n, row.k
    layout = ANY if activations == "its own" else None
    x, y = desc((m, k), row.x, layout), desc((m, n), row.y, layout)
    attr, extra, bias = c_void_p(), {}, None
    matmul = primitive == "matmul"
    of_rows = 2 if matmul else 1
    if row.y == "u8":
        attr = made("dnnl_primitive_attr_create")
        for arg, mask in ((SRC, 0), (WEIGHTS, of_rows), (DST, 0)):
            do("dnnl_primitive_attr_set_scales_mask", attr, arg, mask)
        do("dnnl_primitive_attr_set_zero_points_mask", attr, DST, 0)
        one = desc((1,), "f32")
        extra = {
            SCALES | SRC: engine.memory(one, np.float32([data.X_SCALE])),
            SCALES | WEIGHTS: engine.memory(desc((n,), "f32"), problem.w_scale),
            SCALES | DST: engine.memory(one, np.float32([data.Y_SCALE])),
            ZERO_POINTS | DST: engine.memory(desc((1,), "i32"), np.int32([data.Y_ZERO_POINT])),
        }
        bias = desc((1, n) if matmul else (n,), "f32")
        extra[BIAS] = engine.memory(bias, problem.bias)
    if matmul:
        w, plain_w = desc((k, n), row.w, ANY), desc((k, n), row.w, [1, k])
        pd = made("dnnl_matmul_primitive_desc_create", engine.engine, x, w, bias, y, attr)
    else:
        w, plain_w = desc((n, k), row.w, ANY), desc((n, k), row.w)
        pd = made("dnnl_inner_product_forward_primitive_desc_create", engine.engine, INFERENCE, x, w, bias, y, attr)
    plain_x, plain_y = desc((m, k), row.x), desc((m, n), row.y)
    src = engine.reordered(engine.memory(plain_x, problem.x), plain_x, queried(pd, SRC_MD))
    weights = engine.reordered(engine.memory(plain_w, problem.w), plain_w, queried(pd, WEIGHTS_MD))
    dst_desc = queried(pd, DST_MD)
    dst = engine.memory(dst_desc)
    call = engine.call(pd, {SRC: src, WEIGHTS: weights, DST: dst} | extra)
    answer = lambda: engine.read(engine.reordered(dst, dst_desc, plain_y), (m, n), row.y)
    return Form(f"{primitive}, {implementation(pd)}, {activations} layout of x and y", call, answer)


