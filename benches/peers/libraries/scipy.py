"""SciPy: products of sparse matrices of f32."""

import numpy
import scipy.sparse

import rows
from libraries.form import Lacks
from libraries.interpreted import form


def version():
    return f"SciPy {scipy.__version__}"


ONE = numpy.ones((1, 1), numpy.float32)
CSR = scipy.sparse.csr_matrix(ONE)


def one():
    return CSR @ ONE


def forms(problem, threads):
    row = problem.row
    if isinstance(row, rows.Attention) or row.w != "f32" or row.block == "dense":
        raise Lacks("nothing but sparse products of f32")
    w, xt = problem.w, problem.xt
    csr = scipy.sparse.csr_matrix(w)
    bsr = scipy.sparse.bsr_matrix(w, blocksize=tuple(map(int, row.block.split("x"))))
    yield form("csr_matrix @ x'", lambda: csr @ xt, lambda y: y.T, one)
    yield form("bsr_matrix @ x'", lambda: bsr @ xt, lambda y: y.T, one)
