#!/usr/bin/env python3
"""Prints the tables of kernels/activation_tables.rs: STEP * h(a), h(a) = a * (1 - F(a)), by piecewise polynomials.

Segment i of 16 is centred at a = i / STEP and covers half a segment on both sides; the polynomial is in
d = a * STEP - i, -1/2 <= d <= 1/2: interpolation at Chebyshev nodes in high precision, which is within a few per cent
of the best polynomial of its degree. Needs mpmath. Usage: scripts/activation_tables.py > kernels/activation_tables.rs
"""
import struct

from mpmath import mp, mpf, erfc, sqrt, tanh, pi, cos, matrix, lu_solve

mp.dps = 40
DEGREE, SEGMENTS, STEP = 5, 16, 2


def erf_tail(a):
    return a * erfc(a / sqrt(2)) / 2


def tanh_tail(a):
    return a * (1 - tanh(sqrt(2 / pi) * (a + mpf("0.044715") * a**3))) / 2


def shortest(value):
    """The shortest decimal that reads back as the same f32."""
    single = struct.pack("f", value)
    (value,) = struct.unpack("f", single)
    texts = (f"{value:.{digits}e}" for digits in range(9))
    return next(text for text in texts if struct.pack("f", float(text)) == single)


def fit(f, i):
    n = DEGREE + 1
    nodes = [cos(pi * (2 * j + 1) / (2 * n)) / 2 for j in range(n)]
    if i == 0:  # only d >= 0 is used, and f(0) is exactly 0
        nodes = [mpf(0)] + [(1 + cos(pi * (2 * j + 1) / (2 * n - 2))) / 4 for j in range(n - 1)]
    a = matrix(n, n)
    b = matrix(n, 1)
    for r, d in enumerate(nodes):
        for c in range(n):
            a[r, c] = d**c
        b[r] = STEP * f((i + d) / mpf(STEP))
    return lu_solve(a, b)


def table(name, doc, f):
    rows = [fit(f, i) for i in range(SEGMENTS)]
    print(f"\n/// {doc}")
    print("#[rustfmt::skip]")
    print(f"pub const {name}: [[f32; {SEGMENTS}]; {DEGREE + 1}] = [")
    for c in range(DEGREE + 1):
        print("    [")
        for k in range(0, SEGMENTS, 4):
            print("        " + " ".join(f"{shortest(float(rows[i][c]))}," for i in range(k, k + 4)))
        print("    ],")
    print("];")


print("//! Made by scripts/activation_tables.py: coefficient c of segment i is `TABLE[c][i]`.")
print(f"\n/// Segments per unit: a power of two, so that scaling by it is exact.\npub const STEP: f32 = {STEP}.0;")
table("GELU", "`STEP * h` of GELU with erf.", erf_tail)
table("GELU_TANH", "`STEP * h` of GELU with tanh.", tanh_tail)
