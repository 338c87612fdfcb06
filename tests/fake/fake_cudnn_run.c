/*
 * cuDNN: a plan runs by doing its graph's operations one after the other, in double, each result
 * rounded to its tensor's type. Workspace is overwritten, by-value tensors are read when the plan
 * is queued, and all other memory when the stream has come to it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/dtype.h"
#include "fake/fake_cudnn.h"

enum { TENSORS_MAX = 64 };

struct run {
    struct fake_work work;
    struct fake_plan *plan;
    char *operands[TENSORS_MAX]; /* by id; NULL: none of the pack */
    float values[TENSORS_MAX];   /* of those by value */
    char *workspace;
    double cost_s;
};

/* What operations have made so far, packed, by id. */
struct made {
    float *data[TENSORS_MAX];
};

static enum cm_dtype dtype_of(cudnnDataType_t type)
{
    switch (type) {
    case CUDNN_DATA_BFLOAT16:
        return CM_BF16;
    case CUDNN_DATA_FLOAT:
        return CM_F32;
    case CUDNN_DATA_INT32:
    case CUDNN_DATA_BOOLEAN:
        return CM_I32;
    default:
        fake_die("a tensor of cuDNN's type %d", type);
    }
}

static int64_t elements(const struct fake_tensor *tensor)
{
    return tensor->sizes[0] * tensor->sizes[1] * tensor->sizes[2] * tensor->sizes[3];
}

/* Elements from the first to beyond the last, as they lie. */
static int64_t reach(const struct fake_tensor *tensor)
{
    int64_t last = 0;
    for (int i = 0; i < 4; i++)
        last += (tensor->sizes[i] - 1) * tensor->strides[i];
    return last + 1;
}

/* Where element `number`, counted packed, lies. */
static int64_t place(const struct fake_tensor *tensor, int64_t number)
{
    int64_t at = 0;
    for (int i = 3; i >= 0; i--) {
        at += number % tensor->sizes[i] * tensor->strides[i];
        number /= tensor->sizes[i];
    }
    return at;
}

static float *new_values(int64_t count)
{
    float *values = calloc((size_t)count, sizeof *values);
    if (values == NULL)
        fake_die("no memory for a tensor");
    return values;
}

/* A tensor's values, packed, for the caller to free. */
static float *read_values(const struct run *run, const struct made *made,
                          const struct fake_tensor *tensor)
{
    int64_t count = elements(tensor);
    float *values = new_values(count);
    const float *there = made->data[tensor->id];
    enum cm_dtype dtype = dtype_of(tensor->type);
    for (int64_t i = 0; i < count; i++) {
        if (tensor->by_value)
            values[i] = run->values[tensor->id];
        else if (there != NULL)
            values[i] = there[i];
        else
            values[i] = (float)cm_dtype_load(
                dtype, run->operands[tensor->id] + (size_t)place(tensor, i) * cm_dtype_size(dtype));
    }
    return values;
}

/* ---- operations; y is packed ---- */

/* A number of `from`, packed, that belongs to `number` of `to`: dimensions of one element are
 * spread, heads in groups. */
static int64_t spread(const struct fake_tensor *from, const struct fake_tensor *to, int64_t number)
{
    int64_t at = 0, step = 1;
    for (int i = 3; i >= 0; i--) {
        at += number % to->sizes[i] * from->sizes[i] / to->sizes[i] * step;
        number /= to->sizes[i];
        step *= from->sizes[i];
    }
    return at;
}

static double point(const struct fake_operation *o, double x, double b, double t)
{
    switch (o->mode) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_SUB:
        return x - b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_DIV:
        return x / b;
    case CUDNN_POINTWISE_EXP:
        return exp(x);
    case CUDNN_POINTWISE_LOG:
        return log(x);
    case CUDNN_POINTWISE_CMP_GE:
        return x >= b;
    case CUDNN_POINTWISE_BINARY_SELECT:
        return t != 0 ? x : b;
    case CUDNN_POINTWISE_IDENTITY:
        return x;
    default:
        fake_die("pointwise mode %d", o->mode);
    }
}

static int64_t index_of(const struct fake_tensor *tensor, int64_t number, int64_t axis)
{
    for (int i = 3; i > axis; i--)
        number /= tensor->sizes[i];
    return number % tensor->sizes[axis];
}

static void pointwise(const struct fake_operation *o, const float *x, const float *b,
                      const float *t, float *y)
{
    for (int64_t i = 0; i < elements(&o->y); i++) {
        if (o->mode == CUDNN_POINTWISE_GEN_INDEX)
            y[i] = (float)index_of(&o->y, i, o->axis);
        else
            y[i] = (float)point(o, x[spread(&o->x, &o->y, i)],
                                o->has_b ? b[spread(&o->b, &o->y, i)] : 0,
                                o->has_t ? t[spread(&o->t, &o->y, i)] : 0);
    }
}

static void matmul(const struct fake_operation *o, const float *x, const float *b, float *y)
{
    if (b == NULL)
        fake_die("a product of one matrix");
    int64_t depth = o->x.sizes[3], columns = o->y.sizes[3], rows = o->y.sizes[2];
    struct fake_tensor y_batch = o->y, x_batch = o->x, b_batch = o->b;
    y_batch.sizes[2] = y_batch.sizes[3] = x_batch.sizes[2] = x_batch.sizes[3] = b_batch.sizes[2] =
        b_batch.sizes[3] = 1;
    for (int64_t i = 0; i < elements(&y_batch); i++) {
        const float *left = x + spread(&x_batch, &y_batch, i) * rows * depth;
        const float *right = b + spread(&b_batch, &y_batch, i) * depth * columns;
        for (int64_t row = 0; row < rows; row++) {
            for (int64_t column = 0; column < columns; column++) {
                double sum = 0;
                for (int64_t k = 0; k < depth; k++)
                    sum += (double)left[row * depth + k] * (double)right[k * columns + column];
                y[(i * rows + row) * columns + column] = (float)sum;
            }
        }
    }
}

static void reduce(const struct fake_operation *o, const float *x, float *y)
{
    double *sums = calloc((size_t)elements(&o->y), sizeof *sums);
    if (sums == NULL || (o->mode != CUDNN_REDUCE_TENSOR_ADD && o->mode != CUDNN_REDUCE_TENSOR_MAX))
        fake_die("a reduction of mode %d", o->mode);
    bool most = o->mode == CUDNN_REDUCE_TENSOR_MAX;
    for (int64_t i = 0; most && i < elements(&o->y); i++)
        sums[i] = (double)-INFINITY;
    for (int64_t i = 0; i < elements(&o->x); i++) {
        double *sum = &sums[spread(&o->y, &o->x, i)], value = (double)x[i];
        *sum = !most ? *sum + value : value > *sum ? value : *sum;
    }
    for (int64_t i = 0; i < elements(&o->y); i++)
        y[i] = (float)sums[i];
    free(sums);
}

/* The same memory, looked at in another way. */
static void reshape(const struct fake_operation *o, const float *x, float *y)
{
    float *memory = new_values(reach(&o->x));
    if (reach(&o->y) > reach(&o->x))
        fake_die("tensor %lld is reshaped to more than it has", (long long)o->x.id);
    for (int64_t i = 0; i < elements(&o->x); i++)
        memory[place(&o->x, i)] = x[i];
    for (int64_t i = 0; i < elements(&o->y); i++)
        y[i] = memory[place(&o->y, i)];
    free(memory);
}

static void round_values(const struct fake_tensor *tensor, float *values)
{
    enum cm_dtype dtype = dtype_of(tensor->type);
    char element[8];
    for (int64_t i = 0; i < elements(tensor); i++) {
        cm_dtype_store(dtype, (double)values[i], element);
        values[i] = (float)cm_dtype_load(dtype, element);
    }
}

static void write_values(const struct fake_tensor *tensor, const float *values, char *to)
{
    enum cm_dtype dtype = dtype_of(tensor->type);
    for (int64_t i = 0; i < elements(tensor); i++)
        cm_dtype_store(dtype, (double)values[i],
                       to + (size_t)place(tensor, i) * cm_dtype_size(dtype));
}

static void operate(const struct run *run, struct made *made, const struct fake_operation *o)
{
    float *x = read_values(run, made, &o->x);
    float *b = o->has_b ? read_values(run, made, &o->b) : NULL;
    float *t = o->has_t ? read_values(run, made, &o->t) : NULL;
    float *y = new_values(elements(&o->y));
    if (o->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
        pointwise(o, x, b, t, y);
    else if (o->type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
        matmul(o, x, b, y);
    else if (o->type == CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
        reduce(o, x, y);
    else
        reshape(o, x, y);
    round_values(&o->y, y);
    if (!o->y.is_virtual)
        write_values(&o->y, y, run->operands[o->y.id]);
    free(x);
    free(b);
    free(t);
    made->data[o->y.id] = y;
}

static enum fake_outcome run_plan(struct fake_work *work, double start_s, double *end_s)
{
    struct run *run = (struct run *)work;
    const struct fake_graph *graph = &run->plan->graph;
    struct made made = {.data = {NULL}};
    if (run->plan->destroyed)
        fake_die("cudnnBackendExecute: the plan was destroyed before its work was done");
    fake_memory_open();
    memset(run->workspace, 0xff, (size_t)run->plan->workspace_bytes);
    for (unsigned i = 0; i < graph->count; i++)
        operate(run, &made, &graph->operations[i]);
    for (int i = 0; i < TENSORS_MAX; i++)
        free(made.data[i]);
    *end_s = start_s + run->cost_s;
    return FAKE_DONE;
}

void fake_dnn_drop(struct fake_plan *plan)
{
    if (--plan->references == 0)
        free(plan);
}

static void drop_run(struct fake_work *work)
{
    fake_dnn_drop(((struct run *)work)->plan);
    free(work);
}

/* ---- queueing a plan ---- */

static double cost_s(const struct fake_graph *graph)
{
    double flops = 0;
    for (unsigned i = 0; i < graph->count; i++) {
        const struct fake_operation *o = &graph->operations[i];
        if (o->type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) /* half is not seen */
            flops += (double)elements(&o->y) * (double)o->x.sizes[3];
    }
    return fake_cost_s(0, flops) + (double)fake_dnn_setting("late", 0) * 1e-6;
}

static void take_pack(const struct fake_descriptor *pack, struct run *run, const char *call)
{
    const struct fake_attribute *ids = fake_dnn_find(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const struct fake_attribute *places =
        fake_dnn_find(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    if (ids->count != places->count)
        fake_die("%s: %lld ids and %lld pointers", call, (long long)ids->count,
                 (long long)places->count);
    for (int64_t i = 0; i < ids->count; i++) {
        int64_t id = ((const int64_t *)ids->values)[i];
        char *at = ((char **)places->values)[i];
        if (id < 0 || id >= TENSORS_MAX || run->operands[id] != NULL || at == NULL)
            fake_die("%s: tensor %lld at %p", call, (long long)id, (void *)at);
        run->operands[id] = at;
    }
    run->workspace = *(char **)fake_dnn_find(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE)->values;
}

/* That the pack has it, in the device's memory as a whole, aligned. */
static void check_tensor(struct run *run, const struct fake_tensor *tensor, bool used[TENSORS_MAX],
                         const char *call)
{
    if (tensor->id < 0 || tensor->id >= TENSORS_MAX)
        fake_die("%s: a tensor has the id %lld", call, (long long)tensor->id);
    char *at = run->operands[tensor->id];
    if (tensor->is_virtual)
        return;
    if (at == NULL)
        fake_die("%s: tensor %lld is missing", call, (long long)tensor->id);
    used[tensor->id] = true;
    size_t size = cm_dtype_size(dtype_of(tensor->type));
    if (tensor->by_value) {
        if (fake_place_of(at, size, call) >= FAKE_DEVICE)
            fake_die("%s: tensor %lld is not the host's", call, (long long)tensor->id);
        run->values[tensor->id] = *(const float *)(const void *)at;
        return;
    }
    if (fake_place_of(at, (size_t)reach(tensor) * size, call) != FAKE_DEVICE ||
        (uintptr_t)at % (uintptr_t)tensor->alignment != 0)
        fake_die("%s: tensor %lld is not aligned in device memory", call, (long long)tensor->id);
}

static void check_run(struct run *run, const char *call)
{
    const struct fake_plan *plan = run->plan;
    bool used[TENSORS_MAX] = {false};
    for (unsigned i = 0; i < plan->graph.count; i++) {
        const struct fake_operation *o = &plan->graph.operations[i];
        check_tensor(run, &o->x, used, call);
        check_tensor(run, &o->y, used, call);
        if (o->has_b)
            check_tensor(run, &o->b, used, call);
        if (o->has_t)
            check_tensor(run, &o->t, used, call);
    }
    for (int i = 0; i < TENSORS_MAX; i++) {
        if (run->operands[i] != NULL && !used[i])
            fake_die("%s: the graph has no tensor %d", call, i);
    }
    if (plan->workspace_bytes > 0 &&
        fake_place_of(run->workspace, (size_t)plan->workspace_bytes, call) != FAKE_DEVICE)
        fake_die("%s: the workspace is not %lld bytes of device memory", call,
                 (long long)plan->workspace_bytes);
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t opaque, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    int error = fake_enter(__func__, CUDNN_STATUS_EXECUTION_FAILED);
    struct fake_dnn_handle *handle = fake_dnn_check_handle(opaque, __func__);
    fake_check_stream(handle->stream, __func__);
    struct run *run = calloc(1, sizeof *run);
    if (run == NULL)
        fake_die("no memory for a run");
    run->work = (struct fake_work){.run = run_plan, .drop = drop_run};
    run->plan = fake_dnn_check(plan, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, __func__)->plan;
    take_pack(fake_dnn_check(pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, __func__), run, __func__);
    check_run(run, __func__);
    run->cost_s = cost_s(&run->plan->graph);
    run->plan->references++;
    if (error == 0)
        fake_queue(handle->stream, &run->work, __func__);
    else
        drop_run(&run->work);
    fake_leave();
    return error == 0 ? CUDNN_STATUS_SUCCESS
                      : fake_dnn_refuse((cudnnStatus_t)error, "it was told to fail");
}
