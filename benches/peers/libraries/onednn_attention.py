"""Attention of oneDNN's primitives: a matmul that scales, a softmax that clips, a matmul; for all heads at once, or head by head,
whose scores then stay in a cache."""

import math
from ctypes import c_float, c_void_p

import numpy as np

import rows
from libraries.form import Form
from libraries.loops import several
from libraries.onednn import DST, INFERENCE, SRC, WEIGHTS, desc, do, made

LINEAR, CLIP, SOFTMAX = 0x26, 0x2E, 0x30000


def after(*steps):
    """Attributes: what is done to each result."""
    attr, post = made("dnnl_primitive_attr_create"), made("dnnl_post_ops_create")
    for step, alpha, beta in steps:
        do("dnnl_post_ops_append_eltwise", post, step, c_float(alpha), c_float(beta))
    do("dnnl_primitive_attr_set_post_ops", attr, post)
    return attr


def forms(engine, problem):
    yield form(engine, problem, rows.HEADS, "all heads at once")
    yield form(engine, problem, 1, "head by head")


def form(engine, problem, count, name):
    row = problem.row
    seq, dim, dtype = row.seq, rows.HEAD_DIM, row.dtype
    heads, square = (count, seq, dim), (count, seq, seq)
    of_heads, scores, weights, y = desc(heads, dtype), desc(square, "f32"), desc(square, dtype), desc(heads, "f32")
    transposed = desc((count, dim, seq), dtype, [seq * dim, 1, dim])
    clip = c_void_p()
    if row.softmax == "clipped":
        gamma, zeta = rows.CLIPPED["gamma"], rows.CLIPPED["zeta"]
        clip = after((LINEAR, zeta - gamma, gamma), (CLIP, 0, 1))
    scale, e = after((LINEAR, 1 / math.sqrt(dim), 0)), engine.engine
    qk = made("dnnl_matmul_primitive_desc_create", e, of_heads, transposed, None, scores, scale)
    softmax = made("dnnl_softmax_forward_primitive_desc_create", e, INFERENCE, SOFTMAX, scores, weights, 2, clip)
    pv = made("dnnl_matmul_primitive_desc_create", e, weights, of_heads, None, y, None)
    p = engine.memory(scores)
    w = p if dtype == "f32" else engine.memory(weights)
    calls, outputs = [], []
    for first in range(0, rows.HEADS, count):
        part = [np.ascontiguousarray(getattr(problem, tensor)[first : first + count]) for tensor in "qkv"]
        q, k, v = (engine.memory(layout, a) for layout, a in zip((of_heads, transposed, of_heads), part))
        outputs.append(engine.memory(y))
        calls += [
            engine.call(qk, {SRC: q, WEIGHTS: k, DST: p}),
            engine.call(softmax, {SRC: p, DST: w}),
            engine.call(pv, {SRC: w, WEIGHTS: v, DST: outputs[-1]}),
        ]
    answer = lambda: np.concatenate([engine.read(output, heads, "f32") for output in outputs])
    return Form(f"matmul, softmax, matmul, {name}", several(calls), answer)
