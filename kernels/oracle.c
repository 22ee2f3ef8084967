/* The same arithmetic as siskin's, written a second time to be compared with: one loop per sum,
 * 64-bit integers or doubles, nothing clever. Only tests call it. kernels/oracle.rs has checked every
 * length and every index before a call comes here.
 *
 * x is [m][k], w is [n][k], y is [m][n] = x * transpose(w). Rows lie next to each other. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum element { U8 = 0, I8 = 1, F32 = 2 };

/* A matrix and its zero points: none, one for all rows, or one a row. */
struct matrix {
    const void *data;
    const int32_t *zero;
    size_t zeros;
    size_t rows, cols;
    int32_t element;
};

/* The blocks of a matrix: block b of block row i for b in indptr[i] .. indptr[i + 1], at block column
 * indices[b], its br * bc values row by row at data[b * br * bc]. What no block covers is 0 (after
 * zero points), and what a block holds beyond the last row or column is nothing. */
struct blocks {
    const int64_t *indptr;
    const int64_t *indices;
    size_t br, bc;
};

static int32_t zero_point(const struct matrix *a, size_t row)
{
    if (a->zeros == 0)
        return 0;
    return a->zeros == 1 ? a->zero[0] : a->zero[row];
}

static int64_t integer(const struct matrix *a, size_t at)
{
    if (a->element == U8)
        return ((const uint8_t *)a->data)[at];
    return ((const int8_t *)a->data)[at];
}

static double real(const struct matrix *a, size_t at)
{
    if (a->element == F32)
        return ((const float *)a->data)[at];
    return (double)integer(a, at);
}

/* Where w's element (row, col) is stored; -1 for one that is not. Duplicated blocks are the
 * caller's error: only the first would count. */
static int64_t position(const struct matrix *w, const struct blocks *s, size_t row, size_t col)
{
    if (s == NULL)
        return (int64_t)(row * w->cols + col);
    for (int64_t b = s->indptr[row / s->br]; b < s->indptr[row / s->br + 1]; b++)
        if ((size_t)s->indices[b] == col / s->bc)
            return (b * (int64_t)s->br + (int64_t)(row % s->br)) * (int64_t)s->bc + (int64_t)(col % s->bc);
    return -1;
}

/* Exact. `s` is NULL for a dense w. Returns how many outputs do not fit an int32_t (they are left as
 * they were): never wrapped, never saturated. */
size_t siskin_oracle_matmul_i32(const struct matrix *x, const struct matrix *w, const struct blocks *s, int32_t *y)
{
    size_t unfit = 0;
    for (size_t i = 0; i < x->rows; i++)
        for (size_t j = 0; j < w->rows; j++) {
            int64_t sum = 0;
            for (size_t k = 0; k < x->cols; k++) {
                int64_t at = position(w, s, j, k);
                if (at >= 0)
                    sum += (integer(x, i * x->cols + k) - zero_point(x, i)) * (integer(w, (size_t)at) - zero_point(w, j));
            }
            if (sum < INT32_MIN || sum > INT32_MAX)
                unfit++;
            else
                y[i * w->rows + j] = (int32_t)sum;
        }
    return unfit;
}

/* The same in doubles, for floats; `size` is the sum of the products' magnitudes, which bounds what
 * another order of summation may differ by. */
void siskin_oracle_matmul_f64(const struct matrix *x, const struct matrix *w, const struct blocks *s, double *y,
                              double *size)
{
    for (size_t i = 0; i < x->rows; i++)
        for (size_t j = 0; j < w->rows; j++) {
            double sum = 0, magnitudes = 0;
            for (size_t k = 0; k < x->cols; k++) {
                int64_t at = position(w, s, j, k);
                if (at >= 0) {
                    double p = (real(x, i * x->cols + k) - zero_point(x, i)) * (real(w, (size_t)at) - zero_point(w, j));
                    sum += p;
                    magnitudes += fabs(p);
                }
            }
            y[i * w->rows + j] = sum;
            size[i * w->rows + j] = magnitudes;
        }
}

enum activation { IDENTITY = 0, RELU = 1, GELU_ERF = 2, GELU_TANH = 3, SILU = 4, CLAMP = 5 };

double siskin_oracle_activate(int32_t kind, double low, double high, double v)
{
    const double sqrt_half = 0.70710678118654752440, sqrt_2_over_pi = 0.79788456080286535588;
    switch (kind) {
    case RELU:
        return v < 0 ? 0 : v; /* NaN stays NaN */
    case GELU_ERF:
        return 0.5 * v * erfc(-v * sqrt_half);
    case GELU_TANH: {
        /* 0.5 v (1 + tanh u) = v / (1 + exp(-2u)), without the cancellation */
        double u = sqrt_2_over_pi * (v + 0.044715 * v * v * v);
        return v / (1 + exp(-2 * u));
    }
    case SILU:
        return v / (1 + exp(-v));
    case CLAMP:
        return v < low ? low : v > high ? high : v;
    default:
        return v;
    }
}

/* y[m][n] = activation(y * scale + bias + residual), in that order; scale and bias are one a column
 * of y, scale may also be one for all; bias and residual may be NULL. */
void siskin_oracle_epilogue(size_t m, size_t n, double *y, const double *scale, size_t scales, const double *bias,
                            const double *residual, int32_t kind, double low, double high)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double v = y[i * n + j];
            if (scales != 0)
                v *= scale[scales == 1 ? 0 : j];
            if (bias != NULL)
                v += bias[j];
            if (residual != NULL)
                v += residual[i * n + j];
            y[i * n + j] = siskin_oracle_activate(kind, low, high, v);
        }
}

/* The integer nearest to v / scale, the even one of two as near, plus zero, within low .. high; zero
 * for NaN. */
int32_t siskin_oracle_requantize(double v, double scale, int32_t zero, int32_t low, int32_t high)
{
    double steps = v / scale, below = floor(steps), rest = steps - below, q;
    if (isnan(steps))
        return zero;
    if (isinf(steps))
        return steps > 0 ? high : low;
    q = below;
    if (rest > 0.5 || (rest == 0.5 && fmod(below, 2) != 0))
        q += 1;
    q += zero;
    return q < low ? low : q > high ? high : (int32_t)q;
}
