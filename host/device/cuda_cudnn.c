/*
 * Attention by NVIDIA's cuDNN, for which this program has kernels of its own besides.
 *
 * The library is opened when attention is first asked of it, so that the program starts without
 * it. For each shape it makes a plan of either direction out of a graph (cuda_cudnn_graph.c); what
 * it refuses on the way is a reason to go on without it, never a failure.
 */
#include "host/device/cuda_cudnn.h"

#include <dlfcn.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"

#define LIBRARY "libcudnn.so.9"
/* Earlier ones leave it to the caller to clear the sums of dq. */
#define VERSION_MIN 90600
/* What is not seen has the score -inf since then; before, the least number. */
#define INFINITE_SINCE 91000
#define PROPOSALS      8 /* that are asked for; the first that can be built is taken */
#define LAUNCHES       8 /* of a direction, at most */

enum direction { FORWARD, BACKWARD, DIRECTIONS };

struct cm_cudnn_plan {
    struct cm_attention attention;
    struct cm_cudnn_graph graphs[DIRECTIONS];
    cudnnBackendDescriptor_t plans[DIRECTIONS]; /* the graphs' */
    void *workspace;
    float scale, unseen, one; /* operands by value */
    struct cm_cudnn_plan *next;
};

enum cm_status cm_cudnn_status(const struct cm_cudnn *cudnn, cudnnStatus_t code, const char *call,
                               const char *file, int line)
{
    if (code == CUDNN_STATUS_SUCCESS)
        return CM_OK;
    char words[120] = "", who[CM_CUDA_WHO_MAX];
    cudnn->cudnnGetLastErrorString(words, sizeof words);
    cudaGetLastError(); /* or a later launch would report its */
    cm_cuda_who(cudnn->device, who);
    const char *base = strrchr(file, '/');
    enum cm_status status = code >= CUDNN_STATUS_NOT_SUPPORTED &&
                                    code < (cudnnStatus_t)(CUDNN_STATUS_NOT_SUPPORTED + 1000)
                                ? CM_UNSUPPORTED
                                : CM_DEVICE;
    return cm_error(status, "%s: %s%s%s (%s, %s:%d)", call, cudnn->cudnnGetErrorString(code),
                    words[0] != '\0' ? ": " : "", words, who, base != NULL ? base + 1 : file, line);
}

/* ---- the library ---- */

static bool find_functions(struct cm_cudnn *cudnn)
{
    const struct {
        const char *name;
        void *place;
    } functions[] = {
#define ROW(name) {#name, &cudnn->name},
        CM_CUDNN_FUNCTIONS(ROW)
#undef ROW
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *symbol = dlsym(cudnn->library, functions[i].name);
        if (symbol == NULL) {
            cm_error(CM_UNSUPPORTED, "%s has no %s", LIBRARY, functions[i].name);
            return false;
        }
        memcpy(functions[i].place, &symbol, sizeof symbol);
    }
    return true;
}

static void write_version(const struct cm_cudnn *cudnn, char text[CM_LIBRARY_VERSION_MAX])
{
    snprintf(text, CM_LIBRARY_VERSION_MAX, "cuDNN %zu.%zu.%zu", cudnn->version / 10000,
             cudnn->version / 100 % 100, cudnn->version % 100);
}

static enum cm_status open_handle(struct cm_cudnn *cudnn)
{
    char version[CM_LIBRARY_VERSION_MAX];
    cudnn->version = cudnn->cudnnGetVersion();
    write_version(cudnn, version);
    if (cudnn->version < VERSION_MIN)
        return cm_error(CM_UNSUPPORTED, "this is %s, and attention takes 9.6 at least", version);
    /* NVIDIA's own front end refuses attention there, for errors of the library. */
    if (cudnn->version == 91000 || cudnn->version == 91001)
        return cm_error(CM_UNSUPPORTED, "attention of %s has errors, which 9.10.2 has not",
                        version);
    return DNN(cudnn, cudnnCreate, &cudnn->handle);
}

static void free_library(struct cm_cudnn *cudnn)
{
    if (cudnn->handle != NULL && cudnn->device->lost[0] == '\0') {
        cudnn->cudnnDestroy(cudnn->handle);
        cudaGetLastError();
    }
    dlclose(cudnn->library);
    cm_free(cudnn);
}

static enum cm_status open_library(struct cm_cuda_device *device)
{
    if (device->cudnn != NULL)
        return CM_OK;
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return cm_error(CM_UNSUPPORTED, "no cuDNN: %.120s", dlerror());
    struct cm_cudnn *made = cm_alloc(1, sizeof *made);
    if (made == NULL) {
        dlclose(library);
        return CM_NO_MEMORY;
    }
    made->device = device;
    made->library = library;
    enum cm_status status = find_functions(made) ? open_handle(made) : CM_UNSUPPORTED;
    if (status == CM_OK)
        device->cudnn = made;
    else
        free_library(made);
    return status;
}

/* ---- plans ---- */

static bool same(const struct cm_attention *a, const struct cm_attention *b)
{
    return a->dtype == b->dtype && a->batch == b->batch && a->heads == b->heads &&
           a->kv_heads == b->kv_heads && a->head_size == b->head_size &&
           a->q_length == b->q_length && a->q_stride == b->q_stride &&
           a->kv_stride == b->kv_stride && a->o_stride == b->o_stride &&
           a->dq_stride == b->dq_stride && a->dkv_stride == b->dkv_stride;
}

/* Queries are the whole sequence, in order. */
static bool is_whole(const struct cm_attention *a)
{
    const struct cm_positions *positions = &a->positions;
    return a->q_length == a->k_length && positions->first[0] == 0 &&
           (positions->chunk >= a->q_length || positions->first[1] == positions->chunk);
}

static enum cm_status check_shape(const struct cm_attention *a)
{
    if (a->dtype != CM_BF16)
        return cm_error(CM_UNSUPPORTED, "cuDNN has no attention of %s", cm_dtype_name(a->dtype));
    if (!is_whole(a))
        return cm_error(CM_UNSUPPORTED,
                        "no plan of cuDNN's for queries that are a part of the sequence");
    return CM_OK;
}

/* Finalized: what the library proposes, the best first. */
static enum cm_status propose(const struct cm_cudnn *cudnn, struct cm_cudnn_graph *graph,
                              cudnnBackendDescriptor_t proposals[PROPOSALS], int64_t *count)
{
    cudnnBackendDescriptor_t heuristics;
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    enum cm_status status =
        cm_cudnn_make(cudnn, graph, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics);
    if (status == CM_OK)
        status =
            DNN(cudnn, cudnnBackendSetAttribute, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph->operations);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendSetAttribute, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE,
                     CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendFinalize, heuristics);
    for (int i = 0; i < PROPOSALS && status == CM_OK; i++)
        status = cm_cudnn_make(cudnn, graph, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &proposals[i]);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendGetAttribute, heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                     CUDNN_TYPE_BACKEND_DESCRIPTOR, PROPOSALS, count, proposals);
    if (status == CM_OK && *count <= 0)
        return cm_error(CM_UNSUPPORTED, "cuDNN proposes no kernel for this attention");
    return status;
}

static enum cm_status build(const struct cm_cudnn *cudnn, struct cm_cudnn_graph *graph,
                            cudnnBackendDescriptor_t proposal, cudnnBackendDescriptor_t *plan)
{
    enum cm_status status =
        cm_cudnn_make(cudnn, graph, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, plan);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendSetAttribute, *plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
                     CUDNN_TYPE_HANDLE, 1, &cudnn->handle);
    if (status == CM_OK)
        status =
            DNN(cudnn, cudnnBackendSetAttribute, *plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &proposal);
    return status == CM_OK ? DNN(cudnn, cudnnBackendFinalize, *plan) : status;
}

/* The bytes of workspace that it takes are added to *workspace_bytes where they are more. */
static enum cm_status plan_direction(const struct cm_cudnn *cudnn, struct cm_cudnn_plan *plan,
                                     enum direction direction, int64_t *workspace_bytes)
{
    struct cm_cudnn_graph *graph = &plan->graphs[direction];
    cudnnBackendDescriptor_t proposals[PROPOSALS], *built = &plan->plans[direction];
    int64_t count = 0, bytes = 0, one = 1;
    enum cm_status status =
        cm_cudnn_describe(cudnn, &plan->attention, direction == BACKWARD, graph);
    if (status == CM_OK)
        status = propose(cudnn, graph, proposals, &count);
    if (status != CM_OK)
        return status;
    status = CM_UNSUPPORTED;
    for (int64_t i = 0; i < count && i < PROPOSALS && status != CM_OK; i++)
        status = build(cudnn, graph, proposals[i], built);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendGetAttribute, *built,
                     CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &one, &bytes);
    *workspace_bytes = bytes > *workspace_bytes ? bytes : *workspace_bytes;
    return status;
}

static void free_plan(const struct cm_cudnn *cudnn, struct cm_cudnn_plan *plan)
{
    for (int i = 0; i < DIRECTIONS; i++)
        cm_cudnn_discard(cudnn, &plan->graphs[i]);
    if (cudnn->device->lost[0] == '\0') {
        cudaFree(plan->workspace);
        cudaGetLastError();
    }
    cm_free(plan);
}

static enum cm_status make_plan(struct cm_cudnn *cudnn, const struct cm_attention *attention)
{
    struct cm_cudnn_plan *plan = cm_alloc(1, sizeof *plan);
    int64_t bytes = 0;
    if (plan == NULL)
        return CM_NO_MEMORY;
    plan->attention = *attention;
    plan->scale = 1 / sqrtf((float)attention->head_size);
    plan->unseen = cudnn->version < INFINITE_SINCE ? -FLT_MAX : -INFINITY;
    plan->one = 1;
    enum cm_status status = CM_OK;
    for (enum direction i = FORWARD; i < DIRECTIONS && status == CM_OK; i++)
        status = plan_direction(cudnn, plan, i, &bytes);
    if (status == CM_OK && bytes > 0)
        status = CUDA(cudnn->device, cudaMalloc(&plan->workspace, (size_t)bytes));
    if (status == CM_NO_MEMORY)
        status = cm_error_at(CM_UNSUPPORTED,
                             "no room for cuDNN's workspace of %lld bytes: ", (long long)bytes);
    if (status != CM_OK) {
        free_plan(cudnn, plan);
        return status;
    }
    plan->next = cudnn->plans;
    cudnn->plans = plan;
    return CM_OK;
}

/* Where the plan of that shape hangs; a NULL there: there is none. */
static struct cm_cudnn_plan **find_plan(struct cm_cudnn *cudnn,
                                        const struct cm_attention *attention)
{
    struct cm_cudnn_plan **place = &cudnn->plans;
    while (*place != NULL && !same(&(*place)->attention, attention))
        place = &(*place)->next;
    return place;
}

/* Whatever the library does not like only means that it is not used. */
static enum cm_status prepare(struct cm_device *base, const struct cm_attention *attention,
                              char version[CM_LIBRARY_VERSION_MAX])
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    enum cm_status status = cm_cuda_enter(device);
    if (status != CM_OK)
        return status;
    cm_cuda_start_held(device);
    status = check_shape(attention);
    if (status == CM_OK)
        status = open_library(device);
    if (status == CM_OK && *find_plan(device->cudnn, attention) == NULL)
        status = make_plan(device->cudnn, attention);
    if (status == CM_OK)
        write_version(device->cudnn, version);
    return status == CM_DEVICE && device->lost[0] == '\0' ? CM_UNSUPPORTED : status;
}

static void release(struct cm_device *base, const struct cm_attention *attention)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    struct cm_cudnn_plan **place =
        device->cudnn != NULL ? find_plan(device->cudnn, attention) : NULL;
    if (place == NULL || *place == NULL || device->abandoned)
        return;
    struct cm_cudnn_plan *plan = *place;
    *place = plan->next;
    free_plan(device->cudnn, plan);
}

void cm_cudnn_close(struct cm_cudnn *cudnn)
{
    if (cudnn == NULL)
        return;
    while (cudnn->plans != NULL) {
        struct cm_cudnn_plan *plan = cudnn->plans;
        cudnn->plans = plan->next;
        free_plan(cudnn, plan);
    }
    free_library(cudnn);
}

/* ---- running them ---- */

/* The operands that are there, by their ids, as the library takes them. */
static enum cm_status make_pack(const struct cm_cudnn *cudnn, struct cm_cudnn_graph *pack,
                                void *const operands[CM_CUDNN_OPERANDS], void *workspace,
                                cudnnBackendDescriptor_t *variants)
{
    int64_t ids[CM_CUDNN_OPERANDS], count = 0;
    void *places[CM_CUDNN_OPERANDS];
    for (int64_t i = 0; i < CM_CUDNN_OPERANDS; i++) {
        if (operands[i] == NULL)
            continue;
        ids[count] = i;
        places[count++] = operands[i];
    }
    enum cm_status status =
        cm_cudnn_make(cudnn, pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, variants);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendSetAttribute, *variants, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                     CUDNN_TYPE_INT64, count, ids);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendSetAttribute, *variants,
                     CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, places);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendSetAttribute, *variants, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                     CUDNN_TYPE_VOID_PTR, 1, &workspace);
    return status == CM_OK ? DNN(cudnn, cudnnBackendFinalize, *variants) : status;
}

static enum cm_status execute(struct cm_stream *stream, const struct cm_attention *attention,
                              enum direction direction, void *operands[CM_CUDNN_OPERANDS])
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)stream->device;
    const char *what = direction == FORWARD ? "attention" : "attention_backward";
    enum cm_status status;
    if (!cm_cuda_ready(stream, LAUNCHES, what, &status))
        return status;
    struct cm_cudnn *cudnn = device->cudnn;
    struct cm_cudnn_plan *plan = cudnn != NULL ? *find_plan(cudnn, attention) : NULL;
    if (plan == NULL)
        return cm_error(CM_USAGE, "%s by cuDNN of a shape that was not prepared", what);
    operands[CM_CUDNN_SCALE] = &plan->scale;
    operands[CM_CUDNN_UNSEEN] = &plan->unseen;
    operands[CM_CUDNN_ONE] = direction == BACKWARD ? &plan->one : NULL;
    if (cudnn->stream != cm_cuda_native(stream)) {
        status = DNN(cudnn, cudnnSetStream, cudnn->handle, cm_cuda_native(stream));
        if (status != CM_OK)
            return status;
        cudnn->stream = cm_cuda_native(stream);
    }
    struct cm_cudnn_graph pack = {.count = 0};
    cudnnBackendDescriptor_t variants;
    status = make_pack(cudnn, &pack, operands, plan->workspace, &variants);
    if (status == CM_OK)
        status = DNN(cudnn, cudnnBackendExecute, cudnn->handle, plan->plans[direction], variants);
    cm_cudnn_discard(cudnn, &pack);
    return status;
}

static enum cm_status forward(struct cm_stream *stream, const struct cm_attention *attention,
                              const void *q, const void *k, const void *v, void *o, float *lse)
{
    void *operands[CM_CUDNN_OPERANDS] = {
        [CM_CUDNN_Q] = (void *)q, [CM_CUDNN_K] = (void *)k, [CM_CUDNN_V] = (void *)v,
        [CM_CUDNN_O] = o,         [CM_CUDNN_LSE] = lse,
    };
    return execute(stream, attention, FORWARD, operands);
}

/* The scratch that the step has for our own kernels is what the graph takes besides: a float for
 * each element of dq, and one for each query and head. */
static enum cm_status backward(struct cm_stream *stream, const struct cm_attention *attention,
                               const void *q, const void *k, const void *v, const void *o,
                               const float *lse, const void *dout, void *dq, void *dk, void *dv,
                               void *scratch)
{
    uint64_t queries = (uint64_t)attention->q_length * attention->batch * attention->heads;
    void *operands[CM_CUDNN_OPERANDS] = {
        [CM_CUDNN_Q] = (void *)q,
        [CM_CUDNN_K] = (void *)k,
        [CM_CUDNN_V] = (void *)v,
        [CM_CUDNN_O] = (void *)o,
        [CM_CUDNN_LSE] = (void *)lse,
        [CM_CUDNN_DOUT] = (void *)dout,
        [CM_CUDNN_DQ] = dq,
        [CM_CUDNN_DK] = dk,
        [CM_CUDNN_DV] = dv,
        [CM_CUDNN_DQ_SUM] = scratch,
        [CM_CUDNN_SHIFT] = (float *)scratch + queries * attention->head_size,
    };
    return execute(stream, attention, BACKWARD, operands);
}

const struct cm_attention_library cm_attention_cudnn = {
    .name = "cudnn",
    .prepare = prepare,
    .release = release,
    .attention = forward,
    .attention_backward = backward,
};
