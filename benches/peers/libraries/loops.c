/* Calls a function of another library again and again, with no interpreter in between. Built by loops.py. No header of
 * these libraries is needed: a call is a structure that begins with the address of the function, and a trampoline knows
 * the rest of it. */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

typedef void (*trampoline)(const void *call);

static double microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

/* The least time of a call, in microseconds: of at least `count` calls in at least `ms` milliseconds, after warming up. */
double least(trampoline run, const void *call, double ms, long count) {
    double start = microseconds(), best = 1e300;
    do run(call);
    while (microseconds() - start < ms * 100);
    start = microseconds();
    for (long done = 0;; done++) {
        double before = microseconds();
        if (done >= count && before - start >= ms * 1e3) return best;
        run(call);
        double time = microseconds() - before;
        if (time < best) best = time;
    }
}

/* Microseconds of a loop that has all it needs in registers and keeps the ports of multiplications busy: it takes longer while another
 * has a share of this core, or its clock is slower. As wide as the CPU has it, for wide ones are slowed down first. */
#define YARDSTICK(NAME, BYTES, TARGET)                                 \
    TARGET static double NAME(void) {                                  \
        typedef float vector __attribute__((vector_size(BYTES)));      \
        vector sums[12] = {{0}}, factor = {0.5f};                      \
        double start = microseconds();                                 \
        for (int i = 0; i < 10000; i++) {                              \
            _Pragma("GCC unroll 12") for (int j = 0; j < 12; j++) {    \
                sums[j] = sums[j] * factor + factor;                   \
                __asm__ volatile("" : "+" REGISTER (sums[j]));          \
            }                                                          \
        }                                                              \
        return microseconds() - start;                                 \
    }
#ifdef __x86_64__
#define REGISTER "v"
YARDSTICK(narrow, 16, )
YARDSTICK(wide, 64, __attribute__((target("avx512f"))))
double yardstick(void) { return __builtin_cpu_supports("avx512f") ? wide() : narrow(); }
#else
#define REGISTER "w"
YARDSTICK(narrow, 16, )
double yardstick(void) { return narrow(); }
#endif

/* A few calls, one after another. */
struct several {
    int64_t count;
    trampoline *run;
    const void **calls;
};
void several(const void *call) {
    const struct several *c = call;
    for (int64_t i = 0; i < c->count; i++) c->run[i](c->calls[i]);
}

/* dnnl_primitive_execute, and dnnl_stream_wait if it is given. */
struct onednn {
    int (*execute)(const void *, void *, int, const void *);
    int (*wait)(void *);
    const void *primitive;
    void *stream;
    const void *args;
    int64_t count;
};
void onednn(const void *call) {
    const struct onednn *c = call;
    if (c->execute(c->primitive, c->stream, (int)c->count, c->args)) abort();
    if (c->wait && c->wait(c->stream)) abort();
}

/* A function that is told everything by one pointer, such as an inference request. */
struct one {
    int (*call)(void *);
    void *argument;
};
void one(const void *call) {
    const struct one *c = call;
    if (c->call(c->argument)) abort();
}

struct gemm {
    void *function;
    int32_t layout, ta, tb, m, n, k;
    const void *a, *b;
    void *c;
    int32_t lda, ldb, ldc, unused;
};
void sgemm(const void *call) {
    const struct gemm *g = call;
    void (*f)(int, int, int, int, int, int, float, const void *, int, const void *, int, float, void *, int) = g->function;
    f(g->layout, g->ta, g->tb, g->m, g->n, g->k, 1, g->a, g->lda, g->b, g->ldb, 0, g->c, g->ldc);
}
/* cblas_sgemm_compute, and that of bfloat16: alpha was packed into an operand. */
void sgemm_compute(const void *call) {
    const struct gemm *g = call;
    void (*f)(int, int, int, int, int, int, const void *, int, const void *, int, float, void *, int) = g->function;
    f(g->layout, g->ta, g->tb, g->m, g->n, g->k, g->a, g->lda, g->b, g->ldb, 0, g->c, g->ldc);
}
void bgemm_compute(const void *call) {
    const struct gemm *g = call;
    void (*f)(int, int, int, int, int, int, float, const void *, int, const void *, int, float, void *, int) = g->function;
    f(g->layout, g->ta, g->tb, g->m, g->n, g->k, 1, g->a, g->lda, g->b, g->ldb, 0, g->c, g->ldc);
}
/* cblas_gemm_s8u8s32 and its _compute: u8 times s8, row by row, no offsets. */
void igemm(const void *call) {
    const struct gemm *g = call;
    void (*f)(int, int, int, int, int, int, int, float, const void *, int, int8_t, const void *, int, int8_t, float, int32_t *,
              int, const int32_t *) = g->function;
    const int32_t none = 0;
    f(g->layout, g->ta, g->tb, 173, g->m, g->n, g->k, 1, g->a, g->lda, 0, g->b, g->ldb, 0, 0, g->c, g->ldc, &none);
}
/* y = w x, w of n x k, or its transpose of k x n. */
void sgemv(const void *call) {
    const struct gemm *g = call;
    void (*f)(int, int, int, int, float, const void *, int, const void *, int, float, void *, int) = g->function;
    f(g->layout, g->tb, g->n, g->k, 1, g->b, g->ldb, g->a, 1, 0, g->c, 1);
}

struct description {
    int32_t type, mode, diag;
};
struct sparse {
    void *function;
    void *matrix;
    const void *x;
    void *y;
    int32_t layout, columns, ldx, ldy;
};
void sparse_mm(const void *call) {
    const struct sparse *s = call;
    int (*f)(int, float, void *, struct description, int, const void *, int, int, float, void *, int) = s->function;
    if (f(10, 1, s->matrix, (struct description){20, 0, 0}, s->layout, s->x, s->columns, s->ldx, 0, s->y, s->ldy)) abort();
}
void sparse_mv(const void *call) {
    const struct sparse *s = call;
    int (*f)(int, float, void *, struct description, const void *, float, void *) = s->function;
    if (f(10, 1, s->matrix, (struct description){20, 0, 0}, s->x, 0, s->y)) abort();
}

/* OrtApi::Run of some inputs to one output that lies ready; a status is an error. */
struct ort {
    void *(*run)(void *, const void *, const char *const *, const void *const *, size_t, const char *const *, size_t, void **);
    void *session;
    const char *const *inputs;
    const void *const *values;
    int64_t count;
    const char *const *outputs;
    void **output;
};
void ort(const void *call) {
    const struct ort *o = call;
    if (o->run(o->session, NULL, o->inputs, o->values, (size_t)o->count, o->outputs, 1, o->output)) abort();
}
