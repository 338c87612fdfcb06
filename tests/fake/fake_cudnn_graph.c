/*
 * cuDNN: a graph of operations, read from its descriptors and checked: each tensor is made before
 * it is read, and shapes fit. Kernels there are for what looks like attention, of bf16, on the
 * devices and for the heads that the real library has them for.
 */
#include <string.h>

#include "fake/fake_cudnn.h"

enum { ATTENTION_MATMULS = 2, GRADIENT_MATMULS = 5, PROPOSALS = 2 };

static void read_integers(const struct fake_descriptor *descriptor,
                          cudnnBackendAttributeName_t name, int64_t *to, int64_t count)
{
    const struct fake_attribute *attribute = fake_dnn_find(descriptor, name);
    if (attribute->count != count)
        fake_die("attribute %d has %lld numbers, not %lld", name, (long long)attribute->count,
                 (long long)count);
    memcpy(to, attribute->values, (size_t)count * sizeof *to);
}

/* An enumeration or a truth; 0 where it is not set. */
static int read_number(const struct fake_descriptor *descriptor, cudnnBackendAttributeName_t name,
                       size_t size)
{
    int value = 0;
    const struct fake_attribute *attribute = fake_dnn_find(descriptor, name);
    if (attribute != NULL)
        memcpy(&value, attribute->values, size);
    return value;
}

static bool read_tensor(const struct fake_descriptor *operation, cudnnBackendAttributeName_t name,
                        struct fake_tensor *tensor)
{
    const struct fake_descriptor *descriptor = fake_dnn_child(operation, name);
    if (descriptor == NULL)
        return false;
    tensor->type = (cudnnDataType_t)read_number(descriptor, CUDNN_ATTR_TENSOR_DATA_TYPE,
                                                sizeof(cudnnDataType_t));
    read_integers(descriptor, CUDNN_ATTR_TENSOR_UNIQUE_ID, &tensor->id, 1);
    read_integers(descriptor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &tensor->alignment, 1);
    read_integers(descriptor, CUDNN_ATTR_TENSOR_DIMENSIONS, tensor->sizes, 4);
    read_integers(descriptor, CUDNN_ATTR_TENSOR_STRIDES, tensor->strides, 4);
    tensor->is_virtual = read_number(descriptor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, sizeof(bool)) != 0;
    tensor->by_value = read_number(descriptor, CUDNN_ATTR_TENSOR_IS_BY_VALUE, sizeof(bool)) != 0;
    for (int i = 0; i < 4; i++) {
        if (tensor->sizes[i] < 1 || tensor->strides[i] < 1)
            fake_die("tensor %lld has size %lld and stride %lld", (long long)tensor->id,
                     (long long)tensor->sizes[i], (long long)tensor->strides[i]);
    }
    return true;
}

static struct fake_operation read_operation(const struct fake_descriptor *from)
{
    struct fake_operation to = {.type = from->type};
    const struct fake_descriptor *formula;
    switch ((int)from->type) {
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        formula = fake_dnn_child(from, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
        to.mode = read_number(formula, CUDNN_ATTR_POINTWISE_MODE, sizeof to.mode);
        if (to.mode == CUDNN_POINTWISE_GEN_INDEX)
            read_integers(formula, CUDNN_ATTR_POINTWISE_AXIS, &to.axis, 1);
        read_tensor(from, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &to.x);
        read_tensor(from, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &to.y);
        to.has_b = read_tensor(from, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &to.b);
        to.has_t = read_tensor(from, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, &to.t);
        break;
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        read_tensor(from, CUDNN_ATTR_OPERATION_MATMUL_ADESC, &to.x);
        to.has_b = read_tensor(from, CUDNN_ATTR_OPERATION_MATMUL_BDESC, &to.b);
        read_tensor(from, CUDNN_ATTR_OPERATION_MATMUL_CDESC, &to.y);
        break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        formula = fake_dnn_child(from, CUDNN_ATTR_OPERATION_REDUCTION_DESC);
        to.mode = read_number(formula, CUDNN_ATTR_REDUCTION_OPERATOR, sizeof to.mode);
        read_tensor(from, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, &to.x);
        read_tensor(from, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, &to.y);
        break;
    default:
        read_tensor(from, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, &to.x);
        read_tensor(from, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, &to.y);
    }
    return to;
}

/* ---- whether it fits together ---- */

static bool is_made(const struct fake_graph *graph, unsigned before, int64_t id)
{
    for (unsigned i = 0; i < before; i++) {
        if (graph->operations[i].y.id == id)
            return true;
    }
    return false;
}

static void check_order(const struct fake_graph *graph, unsigned at)
{
    const struct fake_operation *operation = &graph->operations[at];
    const struct fake_tensor *read[] = {&operation->x, operation->has_b ? &operation->b : NULL,
                                        operation->has_t ? &operation->t : NULL};
    for (int i = 0; i < 3; i++) {
        if (read[i] != NULL && read[i]->is_virtual && !is_made(graph, at, read[i]->id))
            fake_die("operation %u reads tensor %lld before it is made", at,
                     (long long)read[i]->id);
    }
    if (operation->y.by_value || is_made(graph, at, operation->y.id))
        fake_die("operation %u makes tensor %lld, which is there already", at,
                 (long long)operation->y.id);
}

/* `small` is spread over `large`, and heads in groups. */
static bool spreads(const struct fake_tensor *small, const struct fake_tensor *large,
                    int dimensions, bool groups)
{
    for (int i = 0; i < dimensions; i++) {
        bool group = groups && i == 1 && large->sizes[i] % small->sizes[i] == 0;
        if (small->sizes[i] != large->sizes[i] && small->sizes[i] != 1 && !group)
            return false;
    }
    return true;
}

static bool fits(const struct fake_operation *o)
{
    int64_t x = 1, y = 1;
    switch ((int)o->type) {
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        return spreads(&o->x, &o->y, 4, false) && (!o->has_b || spreads(&o->b, &o->y, 4, false)) &&
               (!o->has_t || spreads(&o->t, &o->y, 4, false));
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        return spreads(&o->x, &o->y, 2, true) && spreads(&o->b, &o->y, 2, true) &&
               o->x.sizes[2] == o->y.sizes[2] && o->b.sizes[3] == o->y.sizes[3] &&
               o->x.sizes[3] == o->b.sizes[2];
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        return spreads(&o->y, &o->x, 4, true);
    default:
        for (int i = 0; i < 4; i++) {
            x *= o->x.sizes[i];
            y *= o->y.sizes[i];
        }
        return x == y;
    }
}

cudnnStatus_t fake_dnn_read(const struct fake_descriptor *descriptor, struct fake_graph *graph)
{
    const struct fake_attribute *operations =
        fake_dnn_find(descriptor, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    struct fake_descriptor **from = operations->values;
    graph->count = (unsigned)operations->count;
    for (unsigned i = 0; i < graph->count; i++) {
        graph->operations[i] = read_operation(from[i]);
        check_order(graph, i);
        if (!fits(&graph->operations[i]))
            return fake_dnn_refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
                                   "shapes of an operation do not fit together");
    }
    return CUDNN_STATUS_SUCCESS;
}

/* ---- kernels ---- */

static unsigned count_matmuls(const struct fake_graph *graph)
{
    unsigned count = 0;
    for (unsigned i = 0; i < graph->count; i++)
        count += graph->operations[i].type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR;
    return count;
}

bool fake_dnn_is_gradient(const struct fake_graph *graph)
{
    return count_matmuls(graph) == GRADIENT_MATMULS;
}

/* Vectors of 16 bytes along one of the last two dimensions. */
static bool is_aligned(const struct fake_tensor *tensor)
{
    if (tensor->is_virtual || tensor->by_value || tensor->type != CUDNN_DATA_BFLOAT16)
        return true;
    int inner = tensor->strides[3] == 1 ? 3 : 2;
    for (int i = 0; i < 4; i++) {
        if (i == inner ? tensor->strides[i] != 1 : tensor->strides[i] % 8 != 0)
            return false;
    }
    return tensor->alignment == 16;
}

int fake_dnn_proposals(const struct fake_graph *graph)
{
    const struct fake_model *model = fake_model();
    unsigned matmuls = count_matmuls(graph);
    if (model->major < 8 || (matmuls != ATTENTION_MATMULS && matmuls != GRADIENT_MATMULS))
        return 0;
    for (unsigned i = 0; i < graph->count; i++) {
        const struct fake_operation *o = &graph->operations[i];
        int64_t head_size = o->x.sizes[3] < o->x.sizes[2] ? o->x.sizes[3] : o->x.sizes[2];
        if (!is_aligned(&o->x) || !is_aligned(&o->y) || (o->has_b && !is_aligned(&o->b)))
            return 0;
        if (!o->x.is_virtual && o->type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR &&
            (o->x.type != CUDNN_DATA_BFLOAT16 || o->x.sizes[3] % 8 != 0 ||
             head_size > (model->major == 9 ? 256 : 128)))
            return 0;
    }
    return PROPOSALS;
}

int64_t fake_dnn_workspace(const struct fake_graph *graph)
{
    return fake_dnn_setting("workspace", fake_dnn_is_gradient(graph) ? 4096 : 0);
}
