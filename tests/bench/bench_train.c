/*
 * The training kernels of the CPU device against its own copy and matrix product:
 *   bench_train [THREADS [SECONDS]]      SECONDS for each line
 * Prints the median rate of each kernel, in bytes it must move (or flop, of attention: causal, five
 * products backward), and its ratio to copy's rate (or the product's of the same type).
 */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/kernels.h"
#include "clustermark/train_kernels.h"
#include "tests/bench/bench.h"

enum { SAMPLES_MAX = 2000, BUFFERS = 12 };

/* Tokens, and what a block of a model of 8 billion parameters has. */
enum { ROWS = 2048, COLUMNS = 4096, FFN = 14336, HEADS = 16, KV_HEADS = 4, HEAD_SIZE = 128 };
enum { LOSS_ROWS = 512, WORDS = 32000, PARAMETERS = 1 << 24 };

struct bench {
    struct cm_device *device;
    struct cm_stream *stream;
    struct cm_event *start, *end;
    double seconds;
    enum cm_dtype dtype;
    unsigned char *memory[BUFFERS]; /* BUFFER_BYTES each */
};
#define BUFFER_BYTES ((size_t)1 << 27)

static void must(enum cm_status status)
{
    if (status == CM_OK)
        return;
    fprintf(stderr, "bench_train: %s\n", cm_error_text());
    exit(70);
}

/* Median seconds of one call. */
static double time_of(struct bench *bench, enum cm_status (*queue)(struct bench *))
{
    static double times[SAMPLES_MAX];
    const struct cm_device_ops *ops = bench->device->ops;
    size_t done = 0;
    must(queue(bench));
    must(ops->stream_sync(bench->stream, 60));
    for (double began = bench_now_s();
         done < 5 || (done < SAMPLES_MAX && bench_now_s() - began < bench->seconds);) {
        must(ops->event_record(bench->start, bench->stream));
        must(queue(bench));
        must(ops->event_record(bench->end, bench->stream));
        must(ops->stream_sync(bench->stream, 60));
        must(ops->elapsed(bench->start, bench->end, &times[done++]));
    }
    return bench_median(times, done);
}

static enum cm_status copy(struct bench *b)
{
    return b->device->kernels->copy(b->stream, b->memory[0], b->memory[1], PARAMETERS, CM_F32);
}

static enum cm_status add_to(struct bench *b)
{
    return b->device->kernels->train->add_to(b->stream, b->memory[0], b->memory[1], b->memory[2],
                                             PARAMETERS, b->dtype);
}

static enum cm_status norm(struct bench *b)
{
    struct cm_norm shape = {b->dtype, false, 1e-5f, ROWS, COLUMNS};
    return b->device->kernels->train->norm(b->stream, &shape, b->memory[0], b->memory[1],
                                           b->memory[2], NULL, b->memory[3], b->memory[4],
                                           (float *)b->memory[5]);
}

static enum cm_status norm_backward(struct bench *b)
{
    struct cm_norm shape = {b->dtype, false, 1e-5f, ROWS, COLUMNS};
    return b->device->kernels->train->norm_backward(
        b->stream, &shape, b->memory[0], b->memory[1], b->memory[2], (float *)b->memory[5],
        b->memory[3], b->memory[4], (float *)b->memory[6], NULL, b->memory[7]);
}

static enum cm_status rope(struct bench *b)
{
    uint64_t width = (uint64_t)COLUMNS;
    struct cm_rope shape = {b->dtype, ROWS,  COLUMNS / HEAD_SIZE, HEAD_SIZE, width,
                            10000,    false, {1, ROWS, {0, 0}}};
    return b->device->kernels->train->rope(b->stream, &shape, b->memory[0]);
}

static enum cm_status activation(struct bench *b)
{
    struct cm_activation shape = {b->dtype, true, ROWS / 2, FFN};
    return b->device->kernels->train->activation(b->stream, &shape, b->memory[0], b->memory[1]);
}

static enum cm_status activation_backward(struct bench *b)
{
    struct cm_activation shape = {b->dtype, true, ROWS / 2, FFN};
    return b->device->kernels->train->activation_backward(b->stream, &shape, b->memory[0],
                                                          b->memory[1], b->memory[2]);
}

static enum cm_status gelu(struct bench *b)
{
    struct cm_activation shape = {b->dtype, false, ROWS, FFN / 2};
    return b->device->kernels->train->activation(b->stream, &shape, b->memory[0], b->memory[1]);
}

static struct cm_cross_entropy loss_shape(const struct bench *b)
{
    return (struct cm_cross_entropy){b->dtype, LOSS_ROWS, 0, WORDS, WORDS, 1, 1.0f / LOSS_ROWS};
}

static enum cm_status softmax_parts(struct bench *b)
{
    struct cm_cross_entropy shape = loss_shape(b);
    return b->device->kernels->train->softmax_parts(b->stream, &shape, b->memory[0],
                                                    (const int32_t *)b->memory[8],
                                                    (struct cm_softmax_part *)b->memory[9]);
}

static enum cm_status cross_entropy(struct bench *b)
{
    struct cm_cross_entropy shape = loss_shape(b);
    return b->device->kernels->train->cross_entropy(
        b->stream, &shape, b->memory[0], (const int32_t *)b->memory[8],
        (const struct cm_softmax_part *)b->memory[9], (float *)b->memory[10]);
}

static enum cm_status sum(struct bench *b)
{
    return b->device->kernels->train->sum(b->stream, (const float *)b->memory[0], PARAMETERS, true,
                                          1, false, (float *)b->memory[5], b->memory[7]);
}

static enum cm_status queue_adamw(struct bench *b, bool stochastic)
{
    struct cm_adamw shape = {b->dtype, PARAMETERS, 1e-3f, 0.9f, 0.95f,     1e-8f,
                             0.1f,     10,         1,     0,    stochastic};
    return b->device->kernels->train->adamw(
        b->stream, &shape, (const float *)b->memory[0], (const float *)b->memory[11],
        (float *)b->memory[1], (float *)b->memory[2], (float *)b->memory[3], b->memory[4]);
}

static enum cm_status adamw(struct bench *b)
{
    return queue_adamw(b, false);
}

static enum cm_status adamw_stochastic(struct bench *b)
{
    return queue_adamw(b, true);
}

static struct cm_attention attention_shape(const struct bench *b)
{
    uint64_t width = HEADS * HEAD_SIZE, kv_width = KV_HEADS * HEAD_SIZE;
    return (struct cm_attention){
        b->dtype,          1,     HEADS,    KV_HEADS, HEAD_SIZE, ROWS,    ROWS,
        {1, ROWS, {0, 0}}, width, kv_width, width,    width,     kv_width};
}

static enum cm_status attention(struct bench *b)
{
    struct cm_attention shape = attention_shape(b);
    return b->device->kernels->train->attention(b->stream, &shape, b->memory[0], b->memory[1],
                                                b->memory[2], b->memory[3], (float *)b->memory[4]);
}

static enum cm_status attention_backward(struct bench *b)
{
    struct cm_attention shape = attention_shape(b);
    return b->device->kernels->train->attention_backward(
        b->stream, &shape, b->memory[0], b->memory[1], b->memory[2], b->memory[3],
        (const float *)b->memory[4], b->memory[10], b->memory[5], b->memory[6], b->memory[7],
        b->memory[9]);
}

static struct cm_gemm *product;

static enum cm_status gemm(struct bench *b)
{
    return b->device->kernels->gemm(b->stream, product, b->memory[0], b->memory[1], b->memory[3]);
}

/* What a call must move: elements of the step's type, and bytes besides. */
static const struct {
    const char *name;
    enum cm_status (*queue)(struct bench *);
    double elements, bytes;
} rows[] = {
    {"add_to", add_to, 3.0 * PARAMETERS, 0},
    {"norm", norm, 4.0 * ROWS *COLUMNS, 0},
    {"norm_backward", norm_backward, 4.0 * ROWS *COLUMNS, 0},
    {"rope", rope, 2.0 * ROWS *COLUMNS, 0},
    {"activation", activation, 1.5 * ROWS *FFN, 0},
    {"activation_backward", activation_backward, 2.5 * ROWS *FFN, 0},
    {"gelu", gelu, 1.0 * ROWS *FFN, 0},
    {"softmax_parts", softmax_parts, 1.0 * LOSS_ROWS *WORDS, 0},
    {"cross_entropy", cross_entropy, 2.0 * LOSS_ROWS *WORDS, 0},
    {"sum", sum, 0, 4.0 * PARAMETERS},
    {"adamw", adamw, 1.0 * PARAMETERS, 28.0 * PARAMETERS},
    {"adamw_stochastic", adamw_stochastic, 1.0 * PARAMETERS, 28.0 * PARAMETERS},
};

static void fill(struct bench *bench)
{
    const struct cm_kernels *kernels = bench->device->kernels;
    uint64_t count = BUFFER_BYTES / cm_dtype_size(bench->dtype);
    for (size_t i = 0; i < BUFFERS; i++)
        must(kernels->fill_normal(bench->stream, bench->memory[i], count, bench->dtype, i, 0));
    must(bench->device->ops->stream_sync(bench->stream, 60));
    for (size_t i = 0; i < LOSS_ROWS; i++)
        ((int32_t *)bench->memory[8])[i] = (int32_t)(i * 61 % WORDS);
    ((float *)bench->memory[11])[0] = 1;
    /* Squares have no sign. */
    for (size_t i = 0; i < PARAMETERS; i++)
        ((float *)bench->memory[3])[i] = 0.5f;
}

static void bench_type(struct bench *bench, double copy_rate)
{
    const char *name = cm_dtype_name(bench->dtype);
    double size = (double)cm_dtype_size(bench->dtype);
    fill(bench);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double rate = (rows[i].elements * size + rows[i].bytes) / time_of(bench, rows[i].queue);
        printf("%-5s %-20s %8.2f GB/s    %5.2f of copy\n", name, rows[i].name, 1e-9 * rate,
               rate / copy_rate);
    }
    struct cm_gemm_desc desc = {.dtype = bench->dtype,
                                .out_dtype = bench->dtype,
                                .m = 1024,
                                .n = 1024,
                                .k = 1024,
                                .batch = 1};
    fill(bench);
    must(bench->device->kernels->gemm_plan(bench->device, &desc, &product));
    double gemm_rate = 2.0 * 1024 * 1024 * 1024 / time_of(bench, gemm);
    bench->device->kernels->gemm_free(product);
    printf("%-5s %-20s %8.2f GFLOP/s\n", name, "gemm 1024", 1e-9 * gemm_rate);
    fill(bench);
    double flop = 2.0 * ROWS * (ROWS + 1) * HEADS * HEAD_SIZE;
    double forward = flop / time_of(bench, attention);
    double backward = 2.5 * flop / time_of(bench, attention_backward);
    printf("%-5s %-20s %8.2f GFLOP/s %5.2f of gemm\n", name, "attention", 1e-9 * forward,
           forward / gemm_rate);
    printf("%-5s %-20s %8.2f GFLOP/s %5.2f of gemm\n", name, "attention_backward", 1e-9 * backward,
           backward / gemm_rate);
}

int main(int argc, char **argv)
{
    struct cm_device_config config = {.threads = argc > 1 ? (unsigned)atoi(argv[1]) : 0};
    struct bench bench = {.seconds = argc > 2 ? atof(argv[2]) : 0.5};
    const struct cm_device_ops *ops = cm_device_find("cpu");
    must(ops->open(&config, &bench.device));
    must(ops->stream_create(bench.device, 0, &bench.stream));
    must(ops->event_create(bench.device, &bench.start));
    must(ops->event_create(bench.device, &bench.end));
    for (size_t i = 0; i < BUFFERS; i++)
        must(ops->alloc(bench.device, CM_MEMORY_DEVICE, BUFFER_BYTES, (void **)&bench.memory[i]));
    bench.dtype = CM_F32;
    fill(&bench);
    double copy_rate = 2.0 * 4 * PARAMETERS / time_of(&bench, copy);
    printf("      %-20s %8.2f GB/s\n", "copy", 1e-9 * copy_rate);
    bench_type(&bench, copy_rate);
    bench.dtype = CM_BF16;
    bench_type(&bench, copy_rate);
    for (size_t i = 0; i < BUFFERS; i++)
        ops->free(bench.device, CM_MEMORY_DEVICE, bench.memory[i]);
    ops->event_destroy(bench.start);
    ops->event_destroy(bench.end);
    ops->stream_destroy(bench.stream);
    ops->close(bench.device);
    return 0;
}
