/* Tiles of SVE, of vectors of any length: Rust has no types for them. Bytes of x are signed, as those of NEON are.
 *
 * Each takes 4 vectors of features or tokens at a time, as often as its 64 or 32 need; what is beyond them is masked off. Quads
 * of the other operand come four at a time, repeated in each 16 bytes of a vector, and are multiplied as elements. */
#include <arm_sve.h>
#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define EACH_VECTOR(f) f(0) f(1) f(2) f(3)

/* Four masks p0 .. p3 of the lanes from `first` on that are below `lanes`. */
#define MASKS(first, lanes)                                                                                            \
    const size_t own = svcntw();                                                                                       \
    const svbool_t p0 = svwhilelt_b32_u64((first), (lanes)), p1 = svwhilelt_b32_u64((first) + own, (lanes)),           \
                   p2 = svwhilelt_b32_u64((first) + 2 * own, (lanes)), p3 = svwhilelt_b32_u64((first) + 3 * own, (lanes));

/* Rows r = 0 .. 3 of sums, s<row><vector>, as far as there are `rows`. */
#define IF_ROW(r, ...) if (rows > r) { __VA_ARGS__ }
#define ROW_OF(f, r) IF_ROW(r, f(r, 0) f(r, 1) f(r, 2) f(r, 3))
#define ALL(f) ROW_OF(f, 0) ROW_OF(f, 1) ROW_OF(f, 2) ROW_OF(f, 3)
#define DECLARE(type)                                                                                                  \
    type s00, s01, s02, s03, s10, s11, s12, s13, s20, s21, s22, s23, s30, s31, s32, s33;

/* `rows` tokens times 64 features, from `init`; the sums of a token `out_stride` behind those of the one before. */
#define FEATURES 64
INLINE void dense_i8(const int rows, const int8_t *x, size_t stride, const int8_t *w, size_t steps, const int32_t *init,
                     int32_t *out, size_t out_stride) {
    const svbool_t all = svptrue_b8();
    for (size_t first = 0; first < FEATURES; first += 4 * svcntw()) {
        MASKS(first, FEATURES)
        DECLARE(svint32_t)
#define START(r, v) s##r##v = svld1_s32(p##v, init + first + v * own);
        ALL(START)
        size_t step = 0;
        const int8_t *columns = w + 4 * first;
#define QUADS(r) svint8_t x##r = svld1rq_s8(all, x + (rows > r ? r * stride : 0) + 4 * step);
#define COLUMNS(v) const svint8_t w##v = svreinterpret_s8_s32(svld1_s32(p##v, (const int32_t *)columns + v * own));
#define STEP(i)                                                                                                        \
    {                                                                                                                  \
        EACH_VECTOR(COLUMNS)                                                                                           \
        ALL(DOT_##i)                                                                                                   \
        columns += 4 * FEATURES;                                                                                       \
    }
#define DOT_0(r, v) s##r##v = svdot_lane_s32(s##r##v, w##v, x##r, 0);
#define DOT_1(r, v) s##r##v = svdot_lane_s32(s##r##v, w##v, x##r, 1);
#define DOT_2(r, v) s##r##v = svdot_lane_s32(s##r##v, w##v, x##r, 2);
#define DOT_3(r, v) s##r##v = svdot_lane_s32(s##r##v, w##v, x##r, 3);
        for (; step + 4 <= steps; step += 4) {
            QUADS(0) QUADS(1) QUADS(2) QUADS(3)
            STEP(0) STEP(1) STEP(2) STEP(3)
        }
#undef QUADS
#define QUADS(r)                                                                                                       \
    int32_t one##r;                                                                                                    \
    __builtin_memcpy(&one##r, x + (rows > r ? r * stride : 0) + 4 * step, 4);                                          \
    const svint8_t x##r = svreinterpret_s8_s32(svdup_s32(one##r));
        for (; step < steps; step++) {
            QUADS(0) QUADS(1) QUADS(2) QUADS(3)
            STEP(0)
        }
#define STORE(r, v) svst1_s32(p##v, out + r * out_stride + first + v * own, s##r##v);
        ALL(STORE)
    }
}
#undef QUADS
#undef COLUMNS
#undef START
#undef STORE
#undef DOT_0
#undef DOT_1
#undef DOT_2
#undef DOT_3

/* The same of floats, on from what is in `out` where `resume`. */
INLINE void dense_f32(const int rows, const float *x, size_t stride, const float *w, size_t steps, int resume, float *out,
                      size_t out_stride) {
    const svbool_t all = svptrue_b32();
    for (size_t first = 0; first < FEATURES; first += 4 * svcntw()) {
        MASKS(first, FEATURES)
        DECLARE(svfloat32_t)
#define START(r, v) s##r##v = resume ? svld1_f32(p##v, out + r * out_stride + first + v * own) : svdup_f32(0);
        ALL(START)
        size_t step = 0;
        const float *columns = w + first;
#define QUADS(r) svfloat32_t x##r = svld1rq_f32(all, (const float *)((const char *)x + (rows > r ? r * stride : 0)) + step);
#define COLUMNS(v) const svfloat32_t w##v = svld1_f32(p##v, columns + v * own);
#undef STEP
#define STEP(i)                                                                                                        \
    {                                                                                                                  \
        EACH_VECTOR(COLUMNS)                                                                                           \
        ALL(DOT_##i)                                                                                                   \
        columns += FEATURES;                                                                                           \
    }
#define DOT_0(r, v) s##r##v = svmla_lane_f32(s##r##v, w##v, x##r, 0);
#define DOT_1(r, v) s##r##v = svmla_lane_f32(s##r##v, w##v, x##r, 1);
#define DOT_2(r, v) s##r##v = svmla_lane_f32(s##r##v, w##v, x##r, 2);
#define DOT_3(r, v) s##r##v = svmla_lane_f32(s##r##v, w##v, x##r, 3);
        for (; step + 4 <= steps; step += 4) {
            QUADS(0) QUADS(1) QUADS(2) QUADS(3)
            STEP(0) STEP(1) STEP(2) STEP(3)
        }
#undef QUADS
#define QUADS(r)                                                                                                       \
    const svfloat32_t x##r = svdup_f32(((const float *)((const char *)x + (rows > r ? r * stride : 0)))[step]);
        for (; step < steps; step++) {
            QUADS(0) QUADS(1) QUADS(2) QUADS(3)
            STEP(0)
        }
#define STORE(r, v) svst1_f32(p##v, out + r * out_stride + first + v * own, s##r##v);
        ALL(STORE)
    }
}
#undef START
#undef STORE

#define DENSE(rows)                                                                                                    \
    void siskin_sve_dense_i8_##rows(const int8_t *x, size_t stride, const int8_t *w, size_t steps, const int32_t *init, \
                                    int32_t *out, size_t out_stride) {                                                 \
        dense_i8(rows, x, stride, w, steps, init, out, out_stride);                                                    \
    }                                                                                                                  \
    void siskin_sve_dense_f32_##rows(const float *x, size_t stride, const float *w, size_t steps, int resume,          \
                                     float *out, size_t out_stride) {                                                  \
        dense_f32(rows, x, stride, w, steps, resume, out, out_stride);                                                 \
    }
DENSE(1) DENSE(2) DENSE(3) DENSE(4)

/* Entries of a group of four rows, each four columns of x: a line of the panel is `tokens` quads. `sums` is [4][tokens], on from
 * what is there. */
void siskin_sve_quads(const int8_t *panel, size_t tokens, const uint16_t *indices, const int8_t *weights, size_t len,
                      int32_t *sums) {
    const int rows = 4;
    const svbool_t all = svptrue_b8();
    for (size_t first = 0; first < tokens; first += 4 * svcntw()) {
        MASKS(first, tokens)
        DECLARE(svint32_t)
#define START(r, v) s##r##v = svld1_s32(p##v, sums + r * tokens + first + v * own);
        ALL(START)
        for (size_t e = 0; e < len; e++) {
            const int32_t *line = (const int32_t *)(panel + indices[e] * (4 * tokens)) + first;
            const svint8_t w = svld1rq_s8(all, weights + 16 * e);
#define LINE(v)                                                                                                        \
    const svint8_t x##v = svreinterpret_s8_s32(svld1_s32(p##v, line + v * own));                                       \
    s0##v = svdot_lane_s32(s0##v, x##v, w, 0);                                                                         \
    s1##v = svdot_lane_s32(s1##v, x##v, w, 1);                                                                         \
    s2##v = svdot_lane_s32(s2##v, x##v, w, 2);                                                                         \
    s3##v = svdot_lane_s32(s3##v, x##v, w, 3);
            EACH_VECTOR(LINE)
#undef LINE
        }
#define STORE(r, v) svst1_s32(p##v, sums + r * tokens + first + v * own, s##r##v);
        ALL(STORE)
    }
}
#undef START
#undef STORE

/* The same of floats, of one column each. */
void siskin_sve_gather(const float *panel, size_t tokens, const uint16_t *indices, const float *weights, size_t len,
                       float *sums) {
    const int rows = 4;
    const svbool_t all = svptrue_b32();
    for (size_t first = 0; first < tokens; first += 4 * svcntw()) {
        MASKS(first, tokens)
        DECLARE(svfloat32_t)
#define START(r, v) s##r##v = svld1_f32(p##v, sums + r * tokens + first + v * own);
        ALL(START)
        for (size_t e = 0; e < len; e++) {
            const float *line = panel + indices[e] * tokens + first;
            const svfloat32_t w = svld1rq_f32(all, weights + 4 * e);
#define LINE(v)                                                                                                        \
    const svfloat32_t x##v = svld1_f32(p##v, line + v * own);                                                          \
    s0##v = svmla_lane_f32(s0##v, x##v, w, 0);                                                                         \
    s1##v = svmla_lane_f32(s1##v, x##v, w, 1);                                                                         \
    s2##v = svmla_lane_f32(s2##v, x##v, w, 2);                                                                         \
    s3##v = svmla_lane_f32(s3##v, x##v, w, 3);
            EACH_VECTOR(LINE)
#undef LINE
        }
#define STORE(r, v) svst1_f32(p##v, sums + r * tokens + first + v * own, s##r##v);
        ALL(STORE)
    }
}
