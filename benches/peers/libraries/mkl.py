"""Intel MKL, through the C API of its libmkl_rt: products with weights packed ahead or as they are, and of sparse matrices in
the formats that it inspects ahead (BSR of square blocks, CSR). It has no INT8 product of signed x, none that requantizes,
and no sparse one of anything but f32 among those measured here."""

import ctypes
from ctypes import byref, c_int, c_size_t, c_void_p

import numpy as np
import scipy.sparse

import rows
from libraries.form import Form, Lacks
from libraries.loops import Call, Gemm, Sparse, address

MKL = ctypes.CDLL("libmkl_rt.so.3")
ROWS, COLUMNS, PLAIN, TRANSPOSED, PACKED, B_MATRIX = 101, 102, 111, 112, 151, 162
GENERAL, AGGRESSIVE = 20, 81


def version():
    text = ctypes.create_string_buffer(200)
    MKL.mkl_get_version_string(text, 200)
    return f"MKL {text.value.decode().split('Version ')[-1].split()[0].split('-')[0]}"


def forms(problem, threads):
    row = problem.row
    if isinstance(row, rows.Attention):
        raise Lacks("no attention")
    if row.block != "dense" and row.w == "f32":
        yield from sparse(problem)
    kind = {("f32", "f32"): "s", ("u8", "i32"): "i", ("bf16", "f32"): "b"}.get((row.x, row.y))
    if not kind:
        raise Lacks(f"no product of {row.x} to {row.y}")
    yield from dense(problem, kind)


def dense(problem, kind):
    row, x = problem.row, problem.x
    m, n, k = row.m, row.n, row.k
    y = np.empty((m, n), np.int32 if kind == "i" else np.float32)
    name = {"s": "sgemm", "i": "gemm_s8u8s32", "b": "gemm_bf16bf16f32"}[kind]

    def gemm(function, run, label, tb, b, ldb):
        call = Gemm(address(getattr(MKL, function)), ROWS, PLAIN, tb, m, n, k, x.ctypes.data, b, y.ctypes.data, k, ldb, n)
        return Form(label, Call(run, call, x, y, b), lambda: y)

    plain = {"s": "sgemm", "i": "igemm", "b": "sgemm"}[kind]
    compute = {"s": "sgemm_compute", "i": "igemm", "b": "bgemm_compute"}[kind]
    size = getattr(MKL, f"cblas_{name}_pack_get_size")
    size.restype = c_size_t
    packed = aligned(size(B_MATRIX, m, n, k))
    one = (ctypes.c_float(1),) if kind == "s" else ()
    w = problem.w
    getattr(MKL, f"cblas_{name}_pack")(
        ROWS, B_MATRIX, TRANSPOSED, m, n, k, *one, c_void_p(w.ctypes.data), k, c_void_p(packed.ctypes.data)
    )
    packed_form = gemm(f"cblas_{name}_compute", compute, f"{name}, packed", PACKED, packed.ctypes.data, k)
    yield held(packed_form, packed)
    yield held(gemm(f"cblas_{name}", plain, f"{name}, w", TRANSPOSED, w.ctypes.data, k), w)
    wt = problem.wt
    yield held(gemm(f"cblas_{name}", plain, f"{name}, w'", PLAIN, wt.ctypes.data, n), wt)
    if kind == "s" and m == 1:
        yield held(gemm("cblas_sgemv", "sgemv", "sgemv, w", PLAIN, w.ctypes.data, k), w)


def held(form, *what):
    form.held = what
    return form


def aligned(size):
    buffer = np.empty(size + 64, np.uint8)
    return buffer[-buffer.ctypes.data % 64 :][:size]


def sparse(problem):
    row, w = problem.row, problem.w
    height, width = map(int, row.block.split("x"))
    formats = {"CSR": scipy.sparse.csr_matrix(w)}
    if height == width:
        formats["BSR"] = scipy.sparse.bsr_matrix(w, blocksize=(height, width))
    for name, matrix in formats.items():
        for layout in (ROWS, COLUMNS):
            yield from sparse_form(problem, name, matrix, layout)


def sparse_form(problem, name, matrix, layout):
    """y' = w x': of columns, x and y are as they are; of rows, both are transposed."""
    row = problem.row
    m, n, k = row.m, row.n, row.k
    indptr, indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    values = np.ascontiguousarray(matrix.data)
    x, y = (problem.xt, np.empty((n, m), np.float32)) if layout == ROWS else (problem.x, np.empty((m, n), np.float32))
    handle, at = c_void_p(), lambda array, skip=0: c_void_p(array.ctypes.data + skip)
    parts = (at(indptr), at(indptr, 4), at(indices), at(values))
    if name == "CSR":
        status = MKL.mkl_sparse_s_create_csr(byref(handle), 0, n, k, *parts)
    else:
        size = values.shape[1]
        status = MKL.mkl_sparse_s_create_bsr(byref(handle), 0, ROWS, n // size, k // size, size, *parts)

    class Description(ctypes.Structure):
        _fields_ = [(field, c_int) for field in ("type", "mode", "diagonal")]

    general = Description(GENERAL, 0, 0)
    status = status or MKL.mkl_sparse_set_memory_hint(handle, AGGRESSIVE)
    # Not every format takes these hints; without them it is multiplied as it is.
    if m == 1:
        MKL.mkl_sparse_set_mv_hint(handle, 10, general, 1000)
    else:
        MKL.mkl_sparse_set_mm_hint(handle, 10, general, layout, m, 1000)
    status = status or MKL.mkl_sparse_optimize(handle)
    if status:
        return
    function = "mkl_sparse_s_mv" if m == 1 else "mkl_sparse_s_mm"
    strides = (m, m) if layout == ROWS else (k, n)
    call = Sparse(address(getattr(MKL, function)), handle, x.ctypes.data, y.ctypes.data, layout, m, *strides)
    label = f"{function}, {name}, {'transposed x and y' if layout == ROWS else 'x and y'}"
    answer = (lambda: y.T) if layout == ROWS else (lambda: y)
    run = Call("sparse_mv" if m == 1 else "sparse_mm", call, x, y, values, indices, indptr)
    yield Form(label, run, answer)
