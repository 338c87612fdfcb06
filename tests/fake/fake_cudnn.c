/*
 * cuDNN: handles and descriptors. Every attribute must be one that its descriptor has, of the right
 * type and count, set once and before the descriptor is finalized; what a descriptor refers to must
 * be finalized, and outlive it.
 *
 * FAKE_CUDNN is "none" (no such library), or what differs from usual: "version=90100,late=50,
 * workspace=4096,refuses=1,lacks=cudnnSetStream": microseconds that each plan takes longer, bytes
 * that it wants, and how many plans are refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/fake_cudnn.h"
#include "fake/loader.h"

#define DESCRIPTOR_MARK 0xde5cu
#define HANDLE_MARK     0xd22au
#define GONE            0xdeadu

/* Any of the operations. */
#define OPERATION (-1)

/* What a descriptor may have. */
struct fake_rule {
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t most;
    bool needed;
    int child; /* of CUDNN_TYPE_BACKEND_DESCRIPTOR: their type */
};

#define TENSOR_OF(kind, name, needed)                                                              \
    {                                                                                              \
        CUDNN_BACKEND_OPERATION_##kind##_DESCRIPTOR, CUDNN_ATTR_OPERATION_##kind##_##name,         \
            CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, needed, CUDNN_BACKEND_TENSOR_DESCRIPTOR              \
    }
static const struct fake_rule rules[] = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, true,
     0},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, true, 0},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, true, 0},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, true, 0},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, true,
     0},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, false,
     0},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, false,
     0},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1,
     true, 0},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1,
     true, 0},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, false, 0},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, true, CUDNN_BACKEND_POINTWISE_DESCRIPTOR},
    TENSOR_OF(POINTWISE, XDESC, true),
    TENSOR_OF(POINTWISE, YDESC, true),
    TENSOR_OF(POINTWISE, BDESC, false),
    TENSOR_OF(POINTWISE, TDESC, false),
    {CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, true,
     0},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_DESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, true, CUDNN_BACKEND_MATMUL_DESCRIPTOR},
    TENSOR_OF(MATMUL, ADESC, true),
    TENSOR_OF(MATMUL, BDESC, true),
    TENSOR_OF(MATMUL, CDESC, true),
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1,
     true, 0},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_OPERATOR,
     CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, true, 0},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_DESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, true, CUDNN_BACKEND_REDUCTION_DESCRIPTOR},
    TENSOR_OF(REDUCTION, XDESC, true),
    TENSOR_OF(REDUCTION, YDESC, true),
    TENSOR_OF(RESHAPE, XDESC, true),
    TENSOR_OF(RESHAPE, YDESC, true),
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, FAKE_DNN_OPERATIONS, true, OPERATION},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE,
     1, true, 0},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, true, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, true,
     0},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE,
     1, true, 0},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, true, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
     64, true, 0},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
     CUDNN_TYPE_VOID_PTR, 64, true, 0},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
     1, true, 0},
};
enum { RULES = sizeof rules / sizeof *rules };

static _Thread_local char last_words[160];
static long refused; /* plans */

long fake_dnn_setting(const char *name, long otherwise)
{
    const char *text = getenv("FAKE_CUDNN");
    size_t length = strlen(name);
    for (; text != NULL; text = strchr(text, ',') != NULL ? strchr(text, ',') + 1 : NULL) {
        if (strncmp(text, name, length) == 0 && text[length] == '=')
            return strtol(text + length + 1, NULL, 0);
    }
    return otherwise;
}

cudnnStatus_t fake_dnn_refuse(cudnnStatus_t status, const char *why)
{
    snprintf(last_words, sizeof last_words, "%s", why);
    return status;
}

static cudnnStatus_t enter(const char *call)
{
    int error = fake_enter(call, CUDNN_STATUS_INTERNAL_ERROR);
    return error != 0 ? fake_dnn_refuse((cudnnStatus_t)error, "it was told to fail")
                      : CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t leave(cudnnStatus_t status)
{
    fake_leave();
    return status;
}

/* ---- the library ---- */

size_t cudnnGetVersion(void)
{
    return (size_t)fake_dnn_setting("version", CUDNN_VERSION);
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    static const struct {
        cudnnStatus_t status;
        const char *name;
    } names[] = {
        {CUDNN_STATUS_SUCCESS, "CUDNN_STATUS_SUCCESS"},
        {CUDNN_STATUS_NOT_SUPPORTED, "CUDNN_STATUS_NOT_SUPPORTED"},
        {CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH"},
        {CUDNN_STATUS_EXECUTION_FAILED, "CUDNN_STATUS_EXECUTION_FAILED"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].status == status)
            return names[i].name;
    }
    return "CUDNN_STATUS_INTERNAL_ERROR";
}

void cudnnGetLastErrorString(char *message, size_t size)
{
    snprintf(message, size, "%s", last_words);
    last_words[0] = '\0';
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    cudnnStatus_t status = enter(__func__);
    struct fake_dnn_handle *made = status == CUDNN_STATUS_SUCCESS ? calloc(1, sizeof *made) : NULL;
    if (made != NULL) {
        made->mark = HANDLE_MARK;
        *handle = (cudnnHandle_t)(void *)made;
        fake_count(FAKE_DESCRIPTORS, 1);
    }
    return leave(status);
}

struct fake_dnn_handle *fake_dnn_check_handle(void *handle, const char *call)
{
    struct fake_dnn_handle *checked = handle;
    if (checked == NULL || checked->mark != HANDLE_MARK)
        fake_die("%s: no handle", call);
    return checked;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    cudnnStatus_t status = enter(__func__);
    free(fake_dnn_check_handle(handle, __func__));
    fake_count(FAKE_DESCRIPTORS, -1);
    return leave(status);
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    cudnnStatus_t status = enter(__func__);
    fake_check_stream(stream, __func__);
    fake_dnn_check_handle(handle, __func__)->stream = stream;
    return leave(status);
}

/* ---- descriptors ---- */

static struct fake_descriptor *known(void *descriptor, const char *call)
{
    struct fake_descriptor *checked = descriptor;
    if (checked == NULL || checked->mark != DESCRIPTOR_MARK)
        fake_die("%s: %p is no descriptor", call, descriptor);
    return checked;
}

struct fake_descriptor *fake_dnn_check(void *descriptor, cudnnBackendDescriptorType_t type,
                                       const char *call)
{
    struct fake_descriptor *checked = known(descriptor, call);
    if (checked->type != type)
        fake_die("%s: a descriptor of type %d where one of %d should be", call, checked->type,
                 type);
    if (!checked->finalized)
        fake_die("%s: a descriptor of type %d is not finalized", call, type);
    return checked;
}

const struct fake_attribute *fake_dnn_find(const struct fake_descriptor *descriptor,
                                           cudnnBackendAttributeName_t name)
{
    for (unsigned i = 0; i < descriptor->count; i++) {
        if (descriptor->attributes[i].rule->name == name)
            return &descriptor->attributes[i];
    }
    return NULL;
}

struct fake_descriptor *fake_dnn_child(const struct fake_descriptor *descriptor,
                                       cudnnBackendAttributeName_t name)
{
    const struct fake_attribute *attribute = fake_dnn_find(descriptor, name);
    return attribute != NULL ? *(struct fake_descriptor **)attribute->values : NULL;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *descriptor)
{
    cudnnStatus_t status = enter(__func__);
    struct fake_descriptor *made = status == CUDNN_STATUS_SUCCESS ? calloc(1, sizeof *made) : NULL;
    if (made != NULL) {
        made->mark = DESCRIPTOR_MARK;
        made->type = type;
        *descriptor = made;
        fake_count(FAKE_DESCRIPTORS, 1);
    }
    return leave(status);
}

/* What a descriptor refers to has one user more, or less. */
static void count_users(const struct fake_descriptor *descriptor, int change)
{
    for (unsigned i = 0; i < descriptor->count; i++) {
        const struct fake_attribute *attribute = &descriptor->attributes[i];
        struct fake_descriptor **children = attribute->values;
        if (attribute->rule->type != CUDNN_TYPE_BACKEND_DESCRIPTOR)
            continue;
        for (int64_t k = 0; k < attribute->count; k++)
            children[k]->users += (unsigned)change;
    }
    if (descriptor->source != NULL)
        descriptor->source->users += (unsigned)change;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t opaque)
{
    cudnnStatus_t status = enter(__func__);
    struct fake_descriptor *descriptor = known(opaque, __func__);
    if (descriptor->users > 0)
        fake_die("%s: a descriptor of type %d that others still use", __func__, descriptor->type);
    if (descriptor->finalized)
        count_users(descriptor, -1);
    for (unsigned i = 0; i < descriptor->count; i++)
        free(descriptor->attributes[i].values);
    if (descriptor->plan != NULL) {
        descriptor->plan->destroyed = true;
        fake_dnn_drop(descriptor->plan);
    }
    free(descriptor->graph);
    descriptor->mark = GONE;
    free(descriptor);
    fake_count(FAKE_DESCRIPTORS, -1);
    return leave(status);
}

static size_t size_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_INT64:
        return sizeof(int64_t);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return sizeof(void *);
    default:
        return sizeof(int); /* an enumeration */
    }
}

static bool is_operation(cudnnBackendDescriptorType_t type)
{
    return type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR ||
           type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR ||
           type == CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR ||
           type == CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR;
}

static void check_children(const struct fake_rule *rule, int64_t count, void *const *values)
{
    for (int64_t i = 0; i < count; i++) {
        const struct fake_descriptor *child = known(values[i], "cudnnBackendSetAttribute");
        if (rule->child != OPERATION)
            fake_dnn_check(values[i], (cudnnBackendDescriptorType_t)rule->child,
                           "cudnnBackendSetAttribute");
        else if (!is_operation(child->type) || !child->finalized)
            fake_die("cudnnBackendSetAttribute: value %lld is no finalized operation",
                     (long long)i);
    }
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t opaque,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values)
{
    cudnnStatus_t status = enter(__func__);
    struct fake_descriptor *descriptor = known(opaque, __func__);
    const struct fake_rule *rule = rules;
    while (rule < rules + RULES && (rule->of != descriptor->type || rule->name != name))
        rule++;
    if (rule == rules + RULES)
        fake_die("%s: descriptors of type %d have no attribute %d", __func__, descriptor->type,
                 name);
    if (rule->type != type || count < 1 || count > rule->most)
        fake_die("%s: attribute %d with %lld values of type %d", __func__, name, (long long)count,
                 type);
    if (descriptor->finalized || fake_dnn_find(descriptor, name) != NULL)
        fake_die("%s: attribute %d is set %s", __func__, name,
                 descriptor->finalized ? "after the descriptor was finalized" : "twice");
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        check_children(rule, count, (void *const *)values);
    if (type == CUDNN_TYPE_HANDLE)
        fake_dnn_check_handle(*(void *const *)values, __func__);
    if (status == CUDNN_STATUS_SUCCESS) {
        struct fake_attribute *attribute = &descriptor->attributes[descriptor->count++];
        size_t size = size_of(type) * (size_t)count;
        *attribute = (struct fake_attribute){rule, count, malloc(size)};
        if (attribute->values == NULL)
            fake_die("no memory for an attribute");
        memcpy(attribute->values, values, size);
    }
    return leave(status);
}

static void check_complete(const struct fake_descriptor *descriptor)
{
    for (const struct fake_rule *rule = rules; rule < rules + RULES; rule++) {
        if (rule->of == descriptor->type && rule->needed &&
            fake_dnn_find(descriptor, rule->name) == NULL)
            fake_die("cudnnBackendFinalize: a descriptor of type %d without attribute %d",
                     descriptor->type, rule->name);
    }
    if (descriptor->finalized)
        fake_die("cudnnBackendFinalize: a descriptor of type %d is finalized twice",
                 descriptor->type);
}

static cudnnStatus_t finalize_graph(struct fake_descriptor *descriptor)
{
    descriptor->graph = calloc(1, sizeof *descriptor->graph);
    if (descriptor->graph == NULL)
        fake_die("no memory for a graph");
    return fake_dnn_read(descriptor, descriptor->graph);
}

/* The first plan of a gradient is refused, as plans may be. */
static cudnnStatus_t finalize_plan(struct fake_descriptor *descriptor)
{
    const struct fake_descriptor *configuration =
        fake_dnn_child(descriptor, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    const struct fake_graph *graph = configuration->source->graph;
    if (refused < fake_dnn_setting("refuses", 0)) {
        refused++;
        return fake_dnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "this plan is refused");
    }
    if (fake_dnn_is_gradient(graph) && configuration->proposal == 0)
        return fake_dnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "the first plan of a gradient");
    struct fake_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        fake_die("no memory for a plan");
    *plan = (struct fake_plan){
        .references = 1, .graph = *graph, .workspace_bytes = fake_dnn_workspace(graph)};
    descriptor->plan = plan;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t opaque)
{
    cudnnStatus_t status = enter(__func__);
    struct fake_descriptor *descriptor = known(opaque, __func__);
    check_complete(descriptor);
    if (status == CUDNN_STATUS_SUCCESS &&
        descriptor->type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)
        status = finalize_graph(descriptor);
    if (status == CUDNN_STATUS_SUCCESS &&
        descriptor->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        status = finalize_plan(descriptor);
    if (status == CUDNN_STATUS_SUCCESS) {
        descriptor->finalized = true;
        count_users(descriptor, 1);
    }
    return leave(status);
}

/* Into descriptors that the caller has made. */
static int64_t give_proposals(const struct fake_descriptor *heuristics, int64_t most,
                              void *const *made)
{
    struct fake_descriptor *source =
        fake_dnn_child(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    int64_t count = fake_dnn_proposals(source->graph);
    for (int64_t i = 0; i < count && i < most; i++) {
        struct fake_descriptor *configuration = known(made[i], "cudnnBackendGetAttribute");
        if (configuration->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR || configuration->finalized)
            fake_die("cudnnBackendGetAttribute: no place for an engine's configuration");
        configuration->source = source;
        configuration->proposal = (int)i;
        configuration->finalized = true;
        source->users++;
    }
    return count;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t opaque,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t most,
                                       int64_t *count, void *values)
{
    cudnnStatus_t status = enter(__func__);
    bool results = name == CUDNN_ATTR_ENGINEHEUR_RESULTS;
    if (!results && name != CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
        fake_die("%s: attribute %d", __func__, name);
    if (type != (results ? CUDNN_TYPE_BACKEND_DESCRIPTOR : CUDNN_TYPE_INT64) || most < 1)
        fake_die("%s: attribute %d with %lld values of type %d", __func__, name, (long long)most,
                 type);
    const struct fake_descriptor *descriptor = fake_dnn_check(
        opaque,
        results ? CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR : CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
        __func__);
    if (status == CUDNN_STATUS_SUCCESS && results) {
        *count = give_proposals(descriptor, most, values);
    } else if (status == CUDNN_STATUS_SUCCESS) {
        *(int64_t *)values = descriptor->plan->workspace_bytes;
        *count = 1;
    }
    return leave(status);
}

static const struct fake_symbol symbols[] = {
    FAKE_SYMBOL(cudnnGetVersion),
    FAKE_SYMBOL(cudnnGetErrorString),
    FAKE_SYMBOL(cudnnGetLastErrorString),
    FAKE_SYMBOL(cudnnCreate),
    FAKE_SYMBOL(cudnnDestroy),
    FAKE_SYMBOL(cudnnSetStream),
    FAKE_SYMBOL(cudnnBackendCreateDescriptor),
    FAKE_SYMBOL(cudnnBackendDestroyDescriptor),
    FAKE_SYMBOL(cudnnBackendSetAttribute),
    FAKE_SYMBOL(cudnnBackendGetAttribute),
    FAKE_SYMBOL(cudnnBackendFinalize),
    FAKE_SYMBOL(cudnnBackendExecute),
};

const struct fake_library fake_cudnn = {"libcudnn.so.9", "FAKE_CUDNN", symbols,
                                        sizeof symbols / sizeof *symbols};
