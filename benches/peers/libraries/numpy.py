"""NumPy: products of floats, by the OpenBLAS that it brings."""

import numpy

import rows
from libraries.form import Lacks
from libraries.interpreted import form


def version():
    return f"NumPy {numpy.__version__}"


ONE = numpy.ones((1, 1), numpy.float32)


def one():
    numpy.matmul(ONE, ONE, out=ONE)


def forms(problem, threads):
    row = problem.row
    if isinstance(row, rows.Attention) or row.w != "f32":
        raise Lacks("no product of anything but f32 that is fast")
    x, w, wt, y = problem.x, problem.w, problem.wt, numpy.empty((row.m, row.n), numpy.float32)
    yield form("matmul, w", lambda: numpy.matmul(x, w.T, out=y), lambda y: y, one)
    yield form("matmul, w'", lambda: numpy.matmul(x, wt, out=y), lambda y: y, one)
