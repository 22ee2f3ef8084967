"""Sparse products of oneDNN: y' = w x', w being CSR. It has no blocks on CPUs."""

from ctypes import c_int64, c_void_p

import numpy as np
import scipy.sparse

from libraries.form import Form
from libraries.onednn import DST, SRC, TYPES, WEIGHTS, desc, implementation, made

INT32 = TYPES["i32"]


def form(engine, problem):
    row = problem.row
    m, n, k = row.m, row.n, row.k
    w = scipy.sparse.csr_matrix(problem.w)
    parts = [np.ascontiguousarray(w.data), w.indices.astype(np.int32), w.indptr.astype(np.int32)]
    csr = made("dnnl_memory_desc_create_with_csr_encoding", 2, (c_int64 * 2)(n, k), TYPES[row.w], c_int64(w.nnz), INT32, INT32)
    x, y = desc((k, m), row.x), desc((n, m), row.y)
    pd = made("dnnl_matmul_primitive_desc_create", engine.engine, csr, x, None, y, None)
    handles = (c_void_p * 3)(*(part.ctypes.data for part in parts))
    weights = made("dnnl_memory_create_v2", csr, engine.engine, 3, handles)
    out = engine.memory(y)
    call = engine.call(pd, {SRC: weights, WEIGHTS: engine.memory(x, problem.xt), DST: out})
    call.held += (parts,)
    return Form(f"matmul of CSR, {implementation(pd)}, transposed x and y", call, lambda: engine.read(out, (n, m), row.y).T)
