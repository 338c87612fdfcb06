/*
 * Matrix products by oneDNN: its matmul primitive, called on the caller's matrices as they lie,
 * with a scratchpad that was allocated when the product was planned. bf16 on a CPU without bf16
 * instructions goes through f32 (gemm_bf16.c).
 */
#include "host/device/onednn.h"

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/device/gemm_bf16.h"
#include "host/device/gemm_size.h"

enum { ARG_A, ARG_B, ARG_C, ARG_SCRATCHPAD, ARG_COUNT };

struct gemm {
    struct cm_gemm base;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t memories[ARG_COUNT];
    void *scratchpad;
    struct cm_gemm_bf16 *through_f32; /* instead of all this */
};

/* One operand: rows x columns, or their transpose in memory. */
struct operand {
    dnnl_dim_t rows, columns;
    bool transposed;
    dnnl_data_type_t type;
};

struct problem {
    struct operand operands[3]; /* A, B, C */
    dnnl_dim_t batch;
    bool accumulate;
};

static const char *dnnl_text(dnnl_status_t code)
{
    switch (code) {
    case dnnl_out_of_memory:
        return "out of memory";
    case dnnl_invalid_arguments:
        return "invalid arguments";
    case dnnl_unimplemented:
        return "unimplemented";
    case dnnl_runtime_error:
        return "runtime error";
    default:
        return "error";
    }
}

static enum cm_status check(dnnl_status_t code, const char *call)
{
    if (code == dnnl_success)
        return CM_OK;
    return cm_error(code == dnnl_out_of_memory ? CM_NO_MEMORY : CM_DEVICE, "%s: %s (%d)", call,
                    dnnl_text(code), (int)code);
}

/* Yields the status of a library call, recorded with its name. */
#define CM_DNNL(function, ...) check(function(__VA_ARGS__), #function)

void cm_onednn_use_threads(unsigned threads)
{
    /* The library brings its own OpenMP runtime along; whichever that is, it keeps the number of
     * threads per calling thread. */
    void *symbol = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (symbol == NULL)
        return;
    void (*set_threads)(int);
    memcpy(&set_threads, &symbol, sizeof set_threads);
    set_threads((int)threads);
}

void cm_onednn_version(char *text, size_t size)
{
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, size, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
}

/* ---- what differs between version 2 and 3 of the library ---- */

#if DNNL_VERSION_MAJOR >= 3

static dnnl_status_t append_sum(dnnl_post_ops_t post_ops)
{
    return dnnl_post_ops_append_sum(post_ops, 1, 0, dnnl_data_type_undef);
}

static dnnl_status_t describe(const struct problem *problem, dnnl_engine_t engine,
                              dnnl_primitive_attr_t attributes, int dimensions, dnnl_dims_t dims[3],
                              dnnl_dims_t strides[3], dnnl_primitive_desc_t *description)
{
    dnnl_memory_desc_t layouts[3] = {NULL, NULL, NULL};
    dnnl_status_t code = dnnl_success;
    for (int i = 0; i < 3 && code == dnnl_success; i++)
        code = dnnl_memory_desc_create_with_strides(&layouts[i], dimensions, dims[i],
                                                    problem->operands[i].type, strides[i]);
    if (code == dnnl_success)
        code = dnnl_matmul_primitive_desc_create(description, engine, layouts[0], layouts[1], NULL,
                                                 layouts[2], attributes);
    for (int i = 0; i < 3; i++) {
        if (layouts[i] != NULL)
            dnnl_memory_desc_destroy(layouts[i]);
    }
    return code;
}

#else

static dnnl_status_t append_sum(dnnl_post_ops_t post_ops)
{
    return dnnl_post_ops_append_sum(post_ops, 1);
}

static dnnl_status_t describe(const struct problem *problem, dnnl_engine_t engine,
                              dnnl_primitive_attr_t attributes, int dimensions, dnnl_dims_t dims[3],
                              dnnl_dims_t strides[3], dnnl_primitive_desc_t *description)
{
    dnnl_memory_desc_t layouts[3];
    dnnl_matmul_desc_t matmul;
    dnnl_status_t code = dnnl_success;
    for (int i = 0; i < 3 && code == dnnl_success; i++)
        code = dnnl_memory_desc_init_by_strides(&layouts[i], dimensions, dims[i],
                                                problem->operands[i].type, strides[i]);
    if (code == dnnl_success)
        code = dnnl_matmul_desc_init(&matmul, &layouts[0], &layouts[1], NULL, &layouts[2]);
    if (code == dnnl_success)
        code = dnnl_primitive_desc_create(description, &matmul, attributes, engine, NULL);
    return code;
}

#endif

/* ---- a product of the library's own ---- */

/* The library's name of an element type; false where it has none. */
static bool element_type(enum cm_dtype dtype, dnnl_data_type_t *type)
{
    switch (dtype) {
#if DNNL_VERSION_MAJOR >= 3
    case CM_F64:
        *type = dnnl_f64;
        return true;
#endif
    case CM_F32:
        *type = dnnl_f32;
        return true;
    case CM_BF16:
        *type = dnnl_bf16;
        return true;
    case CM_F16:
        *type = dnnl_f16;
        return true;
    case CM_I32:
        *type = dnnl_s32;
        return true;
    case CM_I8:
        *type = dnnl_s8;
        return true;
    default:
        return false;
    }
}

static bool make_problem(const struct cm_gemm_desc *desc, struct problem *problem)
{
    dnnl_data_type_t in, out;
    if (desc->dtype == CM_I32 || !element_type(desc->dtype, &in) ||
        !element_type(desc->out_dtype, &out))
        return false;
    dnnl_dim_t m = (dnnl_dim_t)desc->m, n = (dnnl_dim_t)desc->n, k = (dnnl_dim_t)desc->k;
    *problem = (struct problem){
        .operands = {{m, k, desc->trans_a, in}, {k, n, desc->trans_b, in}, {m, n, false, out}},
        .batch = (dnnl_dim_t)desc->batch,
        .accumulate = desc->accumulate,
    };
    return true;
}

static dnnl_status_t make_attributes(bool accumulate, dnnl_primitive_attr_t *attributes)
{
    dnnl_status_t code = dnnl_primitive_attr_create(attributes);
    if (code == dnnl_success)
        code = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
    if (code != dnnl_success || !accumulate)
        return code;
    dnnl_post_ops_t post_ops = NULL;
    code = dnnl_post_ops_create(&post_ops);
    if (code == dnnl_success)
        code = append_sum(post_ops);
    if (code == dnnl_success)
        code = dnnl_primitive_attr_set_post_ops(*attributes, post_ops);
    if (post_ops != NULL)
        dnnl_post_ops_destroy(post_ops);
    return code;
}

/* The library's plan for the problem; dnnl_unimplemented where it has none of its own worth the
 * name (its reference loops are for checking, not for speed). */
static dnnl_status_t plan_primitive(const struct problem *problem, dnnl_engine_t engine,
                                    dnnl_primitive_desc_t *description)
{
    int dimensions = problem->batch > 1 ? 3 : 2, matrix = dimensions - 2;
    dnnl_dims_t dims[3], strides[3];
    for (int i = 0; i < 3; i++) {
        const struct operand *operand = &problem->operands[i];
        dims[i][0] = problem->batch;
        strides[i][0] = operand->rows * operand->columns;
        dims[i][matrix] = operand->rows;
        dims[i][matrix + 1] = operand->columns;
        strides[i][matrix] = operand->transposed ? 1 : operand->columns;
        strides[i][matrix + 1] = operand->transposed ? operand->rows : 1;
    }
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t made = NULL;
    const char *name = NULL;
    dnnl_status_t code = make_attributes(problem->accumulate, &attributes);
    if (code == dnnl_success)
        code = describe(problem, engine, attributes, dimensions, dims, strides, &made);
    if (code == dnnl_success)
        code = dnnl_primitive_desc_query(made, dnnl_query_impl_info_str, 0, (void *)&name);
    if (code == dnnl_success && strncmp(name, "ref", 3) == 0)
        code = dnnl_unimplemented;
    if (attributes != NULL)
        dnnl_primitive_attr_destroy(attributes);
    if (code == dnnl_success)
        *description = made;
    else if (made != NULL)
        dnnl_primitive_desc_destroy(made);
    return code;
}

static enum cm_status make_memories(struct gemm *gemm, dnnl_primitive_desc_t description)
{
    static const dnnl_query_t queries[ARG_COUNT] = {dnnl_query_src_md, dnnl_query_weights_md,
                                                    dnnl_query_dst_md, dnnl_query_scratchpad_md};
    struct cm_device *device = gemm->base.device;
    size_t bytes = dnnl_memory_desc_get_size(
        dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0));
    enum cm_status status = CM_OK;
    if (bytes > 0)
        status = device->ops->alloc(device, CM_MEMORY_DEVICE, bytes, &gemm->scratchpad);
    for (int i = 0; i < ARG_COUNT && status == CM_OK; i++)
        status = CM_DNNL(dnnl_memory_create, &gemm->memories[i],
                         dnnl_primitive_desc_query_md(description, queries[i], 0), gemm->engine,
                         i == ARG_SCRATCHPAD && bytes > 0 ? gemm->scratchpad : DNNL_MEMORY_NONE);
    return status;
}

/* CM_UNSUPPORTED, with nothing recorded, where the library has no such product. */
static enum cm_status plan_native(struct gemm *gemm, const struct problem *problem)
{
    dnnl_primitive_desc_t description = NULL;
    enum cm_status status = CM_DNNL(dnnl_engine_create, &gemm->engine, dnnl_cpu, 0);
    if (status != CM_OK)
        return status;
    dnnl_status_t code = plan_primitive(problem, gemm->engine, &description);
    if (code == dnnl_unimplemented || code == dnnl_invalid_arguments)
        return CM_UNSUPPORTED;
    status = check(code, "matmul primitive descriptor");
    if (status == CM_OK)
        status = make_memories(gemm, description);
    if (status == CM_OK)
        status =
            CM_DNNL(dnnl_stream_create, &gemm->stream, gemm->engine, dnnl_stream_default_flags);
    if (status == CM_OK)
        status = CM_DNNL(dnnl_primitive_create, &gemm->primitive, description);
    if (status == CM_OK) {
        const char *name = "";
        char version[32];
        cm_onednn_version(version, sizeof version);
        dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name);
        snprintf(gemm->base.algorithm, sizeof gemm->base.algorithm, "%s matmul %s", version, name);
    }
    if (description != NULL)
        dnnl_primitive_desc_destroy(description);
    return status;
}

bool cm_onednn_native(enum cm_dtype dtype)
{
    struct cm_gemm_desc desc = {
        .dtype = dtype, .out_dtype = dtype, .m = 64, .n = 64, .k = 64, .batch = 1};
    struct problem problem;
    dnnl_engine_t engine = NULL;
    dnnl_primitive_desc_t description = NULL;
    bool native = make_problem(&desc, &problem) &&
                  dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success &&
                  plan_primitive(&problem, engine, &description) == dnnl_success;
    if (description != NULL)
        dnnl_primitive_desc_destroy(description);
    if (engine != NULL)
        dnnl_engine_destroy(engine);
    return native;
}

struct gemm_args {
    struct gemm *gemm;
    const void *a, *b;
    void *c;
    const float *scale_a, *scale_b; /* of a scaled product */
};

/* The library does not write through the handles of its inputs. */
static void *writable(const void *memory)
{
    void *same;
    memcpy(&same, &memory, sizeof same);
    return same;
}

enum cm_status cm_onednn_sgemm(bool trans_a, bool trans_b, uint64_t m, uint64_t n, uint64_t k,
                               float scale, const float *a, const float *b, bool add, float *c,
                               uint64_t c_stride)
{
    return CM_DNNL(dnnl_sgemm, trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', (dnnl_dim_t)m,
                   (dnnl_dim_t)n, (dnnl_dim_t)k, scale, a, (dnnl_dim_t)(trans_a ? m : k), b,
                   (dnnl_dim_t)(trans_b ? k : n), add ? 1 : 0, c, (dnnl_dim_t)c_stride);
}

static enum cm_status run_through_f32(const void *queued)
{
    const struct gemm_args *args = queued;
    float scale = args->gemm->base.desc.scaled ? *args->scale_a * *args->scale_b : 1;
    return cm_gemm_bf16_run(args->gemm->through_f32, args->a, args->b, args->c, scale);
}

static enum cm_status run_native(const void *queued)
{
    const struct gemm_args *args = queued;
    struct gemm *gemm = args->gemm;
    void *handles[] = {writable(args->a), writable(args->b), args->c};
    for (int i = 0; i < 3; i++) {
        enum cm_status status = CM_DNNL(dnnl_memory_set_data_handle, gemm->memories[i], handles[i]);
        if (status != CM_OK)
            return status;
    }
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, gemm->memories[ARG_A]},
                                   {DNNL_ARG_WEIGHTS, gemm->memories[ARG_B]},
                                   {DNNL_ARG_DST, gemm->memories[ARG_C]},
                                   {DNNL_ARG_SCRATCHPAD, gemm->memories[ARG_SCRATCHPAD]}};
    enum cm_status status =
        CM_DNNL(dnnl_primitive_execute, gemm->primitive, gemm->stream, ARG_COUNT, arguments);
    return status == CM_OK ? CM_DNNL(dnnl_stream_wait, gemm->stream) : status;
}

/* ---- the launch table's entries ---- */

static enum cm_status plan_through_f32(struct gemm *gemm)
{
    char version[32];
    cm_onednn_version(version, sizeof version);
    snprintf(gemm->base.algorithm, sizeof gemm->base.algorithm,
             "%s through f32 in blocks: %s sgemm", gemm->base.desc.scaled ? "f8" : "bf16", version);
    return cm_gemm_bf16_plan(gemm->base.device, &gemm->base.desc, &gemm->through_f32);
}

/* Whether 8-bit products are exact. On CPUs without instructions for them the library may add pairs
 * of products in 16 bits, where the largest do not fit; a small product of those shows it.
 * CM_UNSUPPORTED with nothing recorded when they are not. */
static enum cm_status check_integers(struct cm_device *device)
{
    enum { SIDE = 64, TOP = 127 };
    struct gemm *probe = cm_alloc(1, sizeof *probe);
    if (probe == NULL)
        return CM_NO_MEMORY;
    probe->base.device = device;
    probe->base.desc = (struct cm_gemm_desc){
        .dtype = CM_I8, .out_dtype = CM_I32, .m = SIDE, .n = SIDE, .k = SIDE, .batch = 1};
    struct problem problem;
    make_problem(&probe->base.desc, &problem);
    enum cm_status status = plan_native(probe, &problem);
    if (status == CM_OK) {
        _Alignas(64) int8_t a[SIDE * SIDE], b[SIDE * SIDE];
        _Alignas(64) int32_t c[SIDE * SIDE] = {0};
        memset(a, TOP, sizeof a);
        memset(b, TOP, sizeof b);
        struct gemm_args args = {.gemm = probe, .a = a, .b = b, .c = c};
        status = run_native(&args);
        if (status == CM_OK && c[0] != TOP * TOP * SIDE)
            status = CM_UNSUPPORTED;
    }
    cm_onednn_gemm_free(&probe->base);
    return status;
}

static enum cm_status plan(struct gemm *gemm)
{
    const struct cm_gemm_desc *desc = &gemm->base.desc;
    struct problem problem;
    enum cm_status status = CM_UNSUPPORTED;
    if (desc->scaled && desc->dtype == CM_F8E4M3 &&
        (desc->out_dtype == CM_BF16 || desc->out_dtype == CM_F32))
        return plan_through_f32(gemm);
    if (!desc->scaled && make_problem(desc, &problem))
        status = plan_native(gemm, &problem);
    if (status == CM_UNSUPPORTED && desc->dtype == CM_BF16 &&
        (desc->out_dtype == CM_BF16 || desc->out_dtype == CM_F32))
        return plan_through_f32(gemm);
    char version[32];
    cm_onednn_version(version, sizeof version);
    if (status == CM_OK && desc->dtype == CM_I8) {
        status = check_integers(gemm->base.device);
        if (status == CM_UNSUPPORTED)
            return cm_error(CM_UNSUPPORTED,
                            "gemm: the i8 product of %s is not exact on this CPU, which has no "
                            "8-bit dot products",
                            version);
    }
    if (status != CM_UNSUPPORTED)
        return status;
    return cm_error(CM_UNSUPPORTED, "gemm: %s has no %s product with %s result on this CPU",
                    version, cm_dtype_name(desc->dtype), cm_dtype_name(desc->out_dtype));
}

enum cm_status cm_onednn_gemm_plan(struct cm_device *device, const struct cm_gemm_desc *desc,
                                   struct cm_gemm **gemm)
{
    enum cm_status status = cm_gemm_check_size(desc);
    if (status == CM_OK && desc->impl != CM_GEMM_LIBRARY)
        status = cm_error(CM_UNSUPPORTED, "gemm: there is no kernel of our own for the CPU; use "
                                          "impl = library");
    if (status == CM_OK && desc->epilogue != CM_EPILOGUE_NONE)
        status = cm_error(CM_UNSUPPORTED, "gemm: %s products of the CPU have no GELU in them",
                          cm_dtype_name(desc->dtype));
    if (status != CM_OK)
        return status;
    struct gemm *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->base.device = device;
    made->base.desc = *desc;
    status = plan(made);
    if (status != CM_OK) {
        cm_onednn_gemm_free(&made->base);
        return status;
    }
    *gemm = &made->base;
    return CM_OK;
}

enum cm_status cm_onednn_gemm(struct cm_stream *stream, struct cm_gemm *base, const void *a,
                              const void *b, void *c)
{
    return cm_onednn_gemm_with(stream, base, a, b, c,
                               &(const struct cm_gemm_extras){.beside = NULL});
}

enum cm_status cm_onednn_gemm_with(struct cm_stream *stream, struct cm_gemm *base, const void *a,
                                   const void *b, void *c, const struct cm_gemm_extras *extras)
{
    struct gemm *gemm = (struct gemm *)base;
    struct gemm_args args = {gemm, a, b, c, extras->scale_a, extras->scale_b};
    return stream->device->ops->call(stream,
                                     gemm->through_f32 == NULL ? run_native : run_through_f32,
                                     &args, sizeof args, "gemm");
}

void cm_onednn_gemm_free(struct cm_gemm *base)
{
    struct gemm *gemm = (struct gemm *)base;
    if (gemm == NULL)
        return;
    struct cm_device *device = base->device;
    cm_gemm_bf16_free(gemm->through_f32);
    if (gemm->primitive != NULL)
        dnnl_primitive_destroy(gemm->primitive);
    for (int i = 0; i < ARG_COUNT; i++) {
        if (gemm->memories[i] != NULL)
            dnnl_memory_destroy(gemm->memories[i]);
    }
    if (gemm->stream != NULL)
        dnnl_stream_destroy(gemm->stream);
    if (gemm->engine != NULL)
        dnnl_engine_destroy(gemm->engine);
    device->ops->free(device, CM_MEMORY_DEVICE, gemm->scratchpad);
    cm_free(gemm);
}
