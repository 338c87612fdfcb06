/*
 * The training kernels of a device against its own copy and matrix product:
 *   bench_train [THREADS [SECONDS [DEVICE [small]]]]      SECONDS for each line
 * Prints the median rate of each kernel, in bytes it must move (or flop, of attention: causal, five
 * products backward), and its ratio to copy's rate (or the product's of the same type). Without
 * DEVICE it is the CPU; GPUs have larger shapes, beyond their caches; `small` is for emulators.
 */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/kernels.h"
#include "clustermark/train_kernels.h"
#include "tests/bench/bench.h"

enum { SAMPLES_MAX = 2000, BUFFERS = 12 };

enum { HEADS = 16, KV_HEADS = 4, HEAD_SIZE = 128 };

/* Tokens, and what a block of a model of 8 billion parameters has; the side of the product. */
struct shapes {
    uint64_t rows, columns, ffn, loss_rows, words, parameters, side;
    uint64_t buffer_bytes;
};
static const struct shapes on_cpu = {2048, 4096, 14336, 512, 32000, 1 << 24, 1024, 1 << 27};
static const struct shapes on_gpu = {8192, 4096, 14336, 2048, 128256, 1 << 27, 8192, 1 << 30};
static const struct shapes when_small = {64, 256, 256, 16, 512, 1 << 12, 64, 1 << 20};

struct bench {
    struct cm_device *device;
    struct cm_stream *stream;
    struct cm_event *start, *end;
    double seconds;
    enum cm_dtype dtype;
    struct shapes shapes;
    unsigned char *memory[BUFFERS]; /* buffer_bytes each */
    int32_t *host;
};

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
        /* The device begins when all is queued, so that no time is the host's. */
        must(ops->stream_hold(bench->stream));
        must(ops->event_record(bench->start, bench->stream));
        must(queue(bench));
        must(ops->event_record(bench->end, bench->stream));
        must(ops->stream_release(bench->stream));
        must(ops->stream_sync(bench->stream, 60));
        must(ops->elapsed(bench->start, bench->end, &times[done++]));
    }
    return bench_median(times, done);
}

static enum cm_status copy(struct bench *b)
{
    return b->device->kernels->copy(b->stream, b->memory[0], b->memory[1], b->shapes.parameters,
                                    CM_F32);
}

static enum cm_status add_to(struct bench *b)
{
    return b->device->kernels->train->add_to(b->stream, b->memory[0], b->memory[1], b->memory[2],
                                             b->shapes.parameters, b->dtype);
}

static enum cm_status norm(struct bench *b)
{
    struct cm_norm shape = {b->dtype, false, 1e-5f, b->shapes.rows, b->shapes.columns};
    return b->device->kernels->train->norm(b->stream, &shape, b->memory[0], b->memory[1],
                                           b->memory[2], NULL, b->memory[3], b->memory[4],
                                           (float *)b->memory[5]);
}

static enum cm_status norm_backward(struct bench *b)
{
    struct cm_norm shape = {b->dtype, false, 1e-5f, b->shapes.rows, b->shapes.columns};
    return b->device->kernels->train->norm_backward(
        b->stream, &shape, b->memory[0], b->memory[1], b->memory[2], (float *)b->memory[5],
        b->memory[3], b->memory[4], (float *)b->memory[6], NULL, b->memory[7]);
}

static enum cm_status rope(struct bench *b)
{
    const struct shapes *s = &b->shapes;
    struct cm_rope shape = {.dtype = b->dtype,
                            .rows = s->rows,
                            .heads = (uint32_t)(s->columns / HEAD_SIZE),
                            .head_size = HEAD_SIZE,
                            .stride = s->columns,
                            .base = 10000,
                            .positions = {.batch = 1, .chunk = (uint32_t)s->rows}};
    return b->device->kernels->train->rope(b->stream, &shape, b->memory[0]);
}

static enum cm_status activation(struct bench *b)
{
    struct cm_activation shape = {b->dtype, true, b->shapes.rows / 2, b->shapes.ffn};
    return b->device->kernels->train->activation(b->stream, &shape, b->memory[0], b->memory[1]);
}

static enum cm_status activation_backward(struct bench *b)
{
    struct cm_activation shape = {b->dtype, true, b->shapes.rows / 2, b->shapes.ffn};
    return b->device->kernels->train->activation_backward(b->stream, &shape, b->memory[0],
                                                          b->memory[1], b->memory[2]);
}

static enum cm_status gelu(struct bench *b)
{
    struct cm_activation shape = {b->dtype, false, b->shapes.rows, b->shapes.ffn / 2};
    return b->device->kernels->train->activation(b->stream, &shape, b->memory[0], b->memory[1]);
}

static struct cm_cross_entropy loss_shape(const struct bench *b)
{
    uint32_t words = (uint32_t)b->shapes.words;
    return (struct cm_cross_entropy){b->dtype, b->shapes.loss_rows,           0, words, words,
                                     1,        1 / (float)b->shapes.loss_rows};
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
    return b->device->kernels->train->sum(b->stream, (const float *)b->memory[0],
                                          b->shapes.parameters, true, 1, false,
                                          (float *)b->memory[5], b->memory[7]);
}

static enum cm_status queue_adamw(struct bench *b, bool stochastic)
{
    struct cm_adamw shape = {
        b->dtype, b->shapes.parameters, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 10, 1, 0, stochastic};
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
    uint32_t rows = (uint32_t)b->shapes.rows;
    return (struct cm_attention){
        b->dtype,          1,     HEADS,    KV_HEADS, HEAD_SIZE, rows,    rows,
        {1, rows, {0, 0}}, width, kv_width, width,    width,     kv_width};
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

/* What a call must move: elements of the step's type as multiples of rows * columns and of the
 * rest, and bytes besides. */
enum unit { ROW, WIDE, LOGIT, PARAMETER };
static const struct {
    const char *name;
    enum cm_status (*queue)(struct bench *);
    enum unit unit;
    double elements, bytes;
} rows[] = {
    {"add_to", add_to, PARAMETER, 3, 0},
    {"norm", norm, ROW, 4, 0},
    {"norm_backward", norm_backward, ROW, 4, 0},
    {"rope", rope, ROW, 2, 0},
    {"activation", activation, WIDE, 1.5, 0},
    {"activation_backward", activation_backward, WIDE, 2.5, 0},
    {"gelu", gelu, WIDE, 1, 0},
    {"softmax_parts", softmax_parts, LOGIT, 1, 0},
    {"cross_entropy", cross_entropy, LOGIT, 2, 0},
    {"sum", sum, PARAMETER, 0, 4},
    {"adamw", adamw, PARAMETER, 1, 28},
    {"adamw_stochastic", adamw_stochastic, PARAMETER, 1, 28},
};

static double count_of(const struct shapes *s, enum unit unit)
{
    return unit == ROW     ? (double)s->rows * (double)s->columns
           : unit == WIDE  ? (double)s->rows * (double)s->ffn
           : unit == LOGIT ? (double)s->loss_rows * (double)s->words
                           : (double)s->parameters;
}

static void fill(struct bench *bench)
{
    const struct cm_kernels *kernels = bench->device->kernels;
    const struct cm_device_ops *ops = bench->device->ops;
    const struct shapes *s = &bench->shapes;
    uint64_t count = s->buffer_bytes / cm_dtype_size(bench->dtype);
    const union {
        float values[2];
        uint64_t word;
    } one = {{1, 1}}, half = {{0.5F, 0.5F}};
    for (size_t i = 0; i < BUFFERS; i++)
        must(kernels->fill_normal(bench->stream, bench->memory[i], count, bench->dtype, i, 0));
    for (size_t i = 0; i < s->loss_rows; i++)
        bench->host[i] = (int32_t)(i * 61 % s->words);
    must(ops->copy(bench->stream, bench->memory[8], bench->host, s->loss_rows * sizeof(int32_t)));
    must(kernels->write(bench->stream, bench->memory[11], one.word, sizeof one));
    /* Squares have no sign. */
    must(kernels->write(bench->stream, bench->memory[3], half.word, s->parameters * sizeof(float)));
    must(ops->stream_sync(bench->stream, 60));
}

/* What does not move bytes but multiplies. */
static void bench_products(struct bench *bench, const char *name)
{
    uint64_t side = bench->shapes.side, length = bench->shapes.rows;
    struct cm_gemm_desc desc = {.dtype = bench->dtype,
                                .out_dtype = bench->dtype,
                                .m = side,
                                .n = side,
                                .k = side,
                                .batch = 1};
    fill(bench);
    must(bench->device->kernels->gemm_plan(bench->device, &desc, &product));
    double gemm_rate = 2 * (double)side * (double)side * (double)side / time_of(bench, gemm);
    bench->device->kernels->gemm_free(product);
    printf("%-5s %-20s %8.2f GFLOP/s\n", name, "gemm", 1e-9 * gemm_rate);
    fill(bench);
    double flop = 2 * (double)length * (double)(length + 1) * HEADS * HEAD_SIZE;
    double forward = flop / time_of(bench, attention);
    double backward = 2.5 * flop / time_of(bench, attention_backward);
    printf("%-5s %-20s %8.2f GFLOP/s %5.2f of gemm\n", name, "attention", 1e-9 * forward,
           forward / gemm_rate);
    printf("%-5s %-20s %8.2f GFLOP/s %5.2f of gemm\n", name, "attention_backward", 1e-9 * backward,
           backward / gemm_rate);
}

static void bench_type(struct bench *bench, double copy_rate)
{
    const char *name = cm_dtype_name(bench->dtype);
    double size = (double)cm_dtype_size(bench->dtype);
    fill(bench);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double bytes =
            (rows[i].elements * size + rows[i].bytes) * count_of(&bench->shapes, rows[i].unit);
        double rate = bytes / time_of(bench, rows[i].queue);
        printf("%-5s %-20s %8.2f GB/s    %6.3f of copy\n", name, rows[i].name, 1e-9 * rate,
               rate / copy_rate);
        fflush(stdout);
    }
    bench_products(bench, name);
}

int main(int argc, char **argv)
{
    struct cm_device_config config = {.threads = argc > 1 ? (unsigned)atoi(argv[1]) : 0};
    struct bench bench = {.seconds = argc > 2 ? atof(argv[2]) : 0.5};
    const char *device = argc > 3 ? argv[3] : "cpu";
    const struct cm_device_ops *ops = cm_device_find(device);
    if (ops == NULL) {
        fprintf(stderr, "bench_train: %s\n", cm_device_missing(device));
        return 77;
    }
    bench.shapes = argc > 4 ? when_small : ops->is_host ? on_cpu : on_gpu;
    must(ops->open(&config, &bench.device));
    must(ops->stream_create(bench.device, 0, &bench.stream));
    must(ops->event_create(bench.device, &bench.start));
    must(ops->event_create(bench.device, &bench.end));
    for (size_t i = 0; i < BUFFERS; i++)
        must(ops->alloc(bench.device, CM_MEMORY_DEVICE, bench.shapes.buffer_bytes,
                        (void **)&bench.memory[i]));
    must(ops->alloc(bench.device, CM_MEMORY_HOST, bench.shapes.loss_rows * sizeof(int32_t),
                    (void **)&bench.host));
    bench.dtype = CM_F32;
    fill(&bench);
    double copy_rate = 2 * 4 * (double)bench.shapes.parameters / time_of(&bench, copy);
    printf("      %-20s %8.2f GB/s\n", "copy", 1e-9 * copy_rate);
    if (ops->is_host)
        bench_type(&bench, copy_rate);
    bench.dtype = CM_BF16;
    bench_type(&bench, copy_rate);
    ops->free(bench.device, CM_MEMORY_HOST, bench.host);
    for (size_t i = 0; i < BUFFERS; i++)
        ops->free(bench.device, CM_MEMORY_DEVICE, bench.memory[i]);
    ops->event_destroy(bench.start);
    ops->event_destroy(bench.end);
    ops->stream_destroy(bench.stream);
    ops->close(bench.device);
    return 0;
}
