/*
 * A plain loop of oneDNN matrix products on one thread:
 *   bench_gemm DTYPE M N K SETS SECONDS      DTYPE is f32 or bf16
 * Prints the median FLOP/s. Sets of A, B and C are used in turn. Warm-up is a fifth of the time.
 */
#include <oneapi/dnnl/dnnl.h>
#include <string.h>

#include "tests/bench/bench.h"

enum { SETS_MAX = 64, SAMPLES_MAX = 1000000 };

#define TRY(call)                                                                                  \
    do {                                                                                           \
        dnnl_status_t status_ = (call);                                                            \
        if (status_ != dnnl_success) {                                                             \
            fprintf(stderr, "bench_gemm: %s: %d\n", #call, (int)status_);                          \
            exit(70);                                                                              \
        }                                                                                          \
    } while (0)

struct loop {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t a[SETS_MAX], b[SETS_MAX], c[SETS_MAX];
};

static void fill(void *memory, size_t count, dnnl_data_type_t type, uint64_t *state)
{
    for (size_t i = 0; i < count; i++) {
        float value = bench_random(state);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (type == dnnl_f32)
            ((float *)memory)[i] = value;
        else
            ((uint16_t *)memory)[i] = (uint16_t)(bits >> 16);
    }
}

/* A row-major matrix; oneDNN 2 and 3 differ in how it and a product are described. */
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t matrix;
#else
typedef dnnl_memory_desc_t *matrix;
#endif

static matrix describe(dnnl_dim_t rows, dnnl_dim_t columns, dnnl_data_type_t type)
{
    dnnl_dims_t dims = {rows, columns};
#if DNNL_VERSION_MAJOR >= 3
    matrix result;
    TRY(dnnl_memory_desc_create_with_tag(&result, 2, dims, type, dnnl_ab));
#else
    matrix result = bench_alloc(sizeof *result);
    TRY(dnnl_memory_desc_init_by_tag(result, 2, dims, type, dnnl_ab));
#endif
    return result;
}

static dnnl_primitive_desc_t describe_product(dnnl_engine_t engine, matrix a, matrix b, matrix c)
{
    dnnl_primitive_desc_t result;
#if DNNL_VERSION_MAJOR >= 3
    TRY(dnnl_matmul_primitive_desc_create(&result, engine, a, b, NULL, c, NULL));
#else
    dnnl_matmul_desc_t desc;
    TRY(dnnl_matmul_desc_init(&desc, a, b, NULL, c));
    TRY(dnnl_primitive_desc_create(&result, &desc, NULL, engine, NULL));
#endif
    return result;
}

static dnnl_memory_t make(struct loop *loop, matrix desc, dnnl_data_type_t type, uint64_t *state)
{
    size_t size = dnnl_memory_desc_get_size(desc);
    void *memory = bench_alloc(size);
    fill(memory, size / (type == dnnl_f32 ? 4 : 2), type, state);
    dnnl_memory_t result;
    TRY(dnnl_memory_create(&result, desc, loop->engine, memory));
    return result;
}

static void prepare(struct loop *loop, dnnl_data_type_t type, const dnnl_dim_t *mnk, unsigned sets)
{
    TRY(dnnl_engine_create(&loop->engine, dnnl_cpu, 0));
    TRY(dnnl_stream_create(&loop->stream, loop->engine, dnnl_stream_default_flags));
    matrix a = describe(mnk[0], mnk[2], type), b = describe(mnk[2], mnk[1], type);
    matrix c = describe(mnk[0], mnk[1], type);
    TRY(dnnl_primitive_create(&loop->primitive, describe_product(loop->engine, a, b, c)));
    uint64_t state = 1;
    for (unsigned i = 0; i < sets; i++) {
        loop->a[i] = make(loop, a, type, &state);
        loop->b[i] = make(loop, b, type, &state);
        loop->c[i] = make(loop, c, type, &state);
    }
}

static double run_once(struct loop *loop, unsigned set)
{
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, loop->a[set]},
                              {DNNL_ARG_WEIGHTS, loop->b[set]},
                              {DNNL_ARG_DST, loop->c[set]}};
    double start = bench_now_s();
    TRY(dnnl_primitive_execute(loop->primitive, loop->stream, 3, args));
    TRY(dnnl_stream_wait(loop->stream));
    return bench_now_s() - start;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: bench_gemm f32|bf16 M N K SETS SECONDS\n");
        return 64;
    }
    static struct loop loop;
    static double times[SAMPLES_MAX];
    dnnl_dim_t mnk[] = {atoll(argv[2]), atoll(argv[3]), atoll(argv[4])};
    unsigned sets = (unsigned)atoi(argv[5]);
    double seconds = atof(argv[6]);
    if (sets < 1 || sets > SETS_MAX || mnk[0] < 1 || mnk[1] < 1 || mnk[2] < 1)
        return 64;
    prepare(&loop, strcmp(argv[1], "bf16") == 0 ? dnnl_bf16 : dnnl_f32, mnk, sets);
    double start = bench_now_s();
    unsigned set = 0;
    while (bench_now_s() - start < seconds / 5)
        run_once(&loop, set++ % sets);
    size_t count = 0;
    start = bench_now_s();
    while (count < 6 || (bench_now_s() - start < seconds && count < SAMPLES_MAX))
        times[count++] = run_once(&loop, set++ % sets);
    printf("%.6e\n",
           2.0 * (double)mnk[0] * (double)mnk[1] * (double)mnk[2] / bench_median(times, count));
    return 0;
}
