/*
 * Attention as cuDNN is told of it: a graph of small operations, which the library knows again as
 * one kernel. There is an operation for attention as a whole, but up to cuDNN 9.20 it has no causal
 * mask.
 *
 * Tensors have four dimensions: sequence, head, and a matrix. Strides are those of the operands
 * (ops.h), so nothing is copied. With grouped heads the library takes kv head h * kv_heads / heads,
 * and sums what belongs to one of them. Names ending in _T are transposed.
 */
#include "host/device/cuda_cudnn.h"

/* Beside the operands: tensors that exist only within a kernel, and operands seen transposed. */
enum tensor {
    NONE = 0,
    K_T = CM_CUDNN_OPERANDS, /* k and v themselves, where the library wants them so */
    V_T,
    K_ROWS, /* k again, from K_T */
    PRODUCT,
    SCORE,
    QUERY, /* its position, and the key's */
    KEY,
    SEEN,
    MASKED,
    TOP,
    BELOW,
    WEIGHT, /* forward: not yet divided by their sum */
    WEIGHT_SUM,
    LOG_SUM,
    WEIGHT_OUT, /* in the type of the step */
    WEIGHT_T,
    SHIFT_PARTS,
    SHIFT_SUM,
    DV_HEADS, /* of each query head */
    DK_HEADS,
    DWEIGHT,
    DWEIGHT_BELOW,
    DSCORE,
    DPRODUCT,
    DPRODUCT_T,
    TENSORS
};

/* What of the four dimensions a tensor has, and where they lie. */
enum form {
    ONE,     /* a number */
    OF_Q,    /* query heads, positions, elements: as q lies */
    OF_O,    /* as o */
    OF_DQ,   /* as dq */
    OF_K,    /* kv heads: as k and v */
    OF_K_T,  /* elements, positions */
    OF_DK,   /* as dk and dv */
    OF_LSE,  /* query heads, positions, 1: as lse */
    ROW,     /* the same, packed */
    HEADS,   /* query heads, positions, elements, packed */
    PAIRS,   /* query heads, queries, keys, packed */
    PAIRS_T, /* query heads, keys, queries, in the place of PAIRS */
};

enum use { OPERAND, VALUE, INNER };

static const struct {
    cudnnDataType_t type;
    enum form form;
    enum use use;
} tensors[TENSORS] = {
    [CM_CUDNN_Q] = {CUDNN_DATA_BFLOAT16, OF_Q, OPERAND},
    [CM_CUDNN_V] = {CUDNN_DATA_BFLOAT16, OF_K, OPERAND},
    [CM_CUDNN_O] = {CUDNN_DATA_BFLOAT16, OF_O, OPERAND},
    [CM_CUDNN_LSE] = {CUDNN_DATA_FLOAT, OF_LSE, OPERAND},
    [CM_CUDNN_DOUT] = {CUDNN_DATA_BFLOAT16, OF_O, OPERAND},
    [CM_CUDNN_DQ] = {CUDNN_DATA_BFLOAT16, OF_DQ, OPERAND},
    [CM_CUDNN_DK] = {CUDNN_DATA_BFLOAT16, OF_DK, OPERAND},
    [CM_CUDNN_DV] = {CUDNN_DATA_BFLOAT16, OF_DK, OPERAND},
    [CM_CUDNN_DQ_SUM] = {CUDNN_DATA_FLOAT, HEADS, OPERAND},
    [CM_CUDNN_SHIFT] = {CUDNN_DATA_FLOAT, ROW, OPERAND},
    [CM_CUDNN_SCALE] = {CUDNN_DATA_FLOAT, ONE, VALUE},
    [CM_CUDNN_UNSEEN] = {CUDNN_DATA_FLOAT, ONE, VALUE},
    [CM_CUDNN_ONE] = {CUDNN_DATA_FLOAT, ONE, VALUE},
    [K_T] = {CUDNN_DATA_BFLOAT16, OF_K_T, OPERAND},
    [V_T] = {CUDNN_DATA_BFLOAT16, OF_K_T, OPERAND},
    [K_ROWS] = {CUDNN_DATA_BFLOAT16, OF_K, INNER},
    [PRODUCT] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [SCORE] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [QUERY] = {CUDNN_DATA_INT32, PAIRS, INNER},
    [KEY] = {CUDNN_DATA_INT32, PAIRS, INNER},
    [SEEN] = {CUDNN_DATA_BOOLEAN, PAIRS, INNER},
    [MASKED] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [TOP] = {CUDNN_DATA_FLOAT, ROW, INNER},
    [BELOW] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [WEIGHT] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [WEIGHT_SUM] = {CUDNN_DATA_FLOAT, ROW, INNER},
    [LOG_SUM] = {CUDNN_DATA_FLOAT, ROW, INNER},
    [WEIGHT_OUT] = {CUDNN_DATA_BFLOAT16, PAIRS, INNER},
    [WEIGHT_T] = {CUDNN_DATA_BFLOAT16, PAIRS_T, INNER},
    [SHIFT_PARTS] = {CUDNN_DATA_FLOAT, HEADS, INNER},
    [SHIFT_SUM] = {CUDNN_DATA_FLOAT, ROW, INNER},
    [DV_HEADS] = {CUDNN_DATA_BFLOAT16, HEADS, INNER},
    [DK_HEADS] = {CUDNN_DATA_BFLOAT16, HEADS, INNER},
    [DWEIGHT] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [DWEIGHT_BELOW] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [DSCORE] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [DPRODUCT] = {CUDNN_DATA_FLOAT, PAIRS, INNER},
    [DPRODUCT_T] = {CUDNN_DATA_BFLOAT16, PAIRS_T, INNER},
};

enum kind { POINTWISE, INDEX, MATMUL, SUM, MAXIMUM, RESHAPE };

/* y is made of x; of x and b; or chosen by t: x where it is true, else b. */
struct operation {
    enum kind kind;
    int mode; /* POINTWISE: cudnnPointwiseMode_t; INDEX: the dimension */
    int y, x, b, t;
};

/* A score is masked where its key comes after its query. */
#define MASK(score)                                                                                \
    {INDEX, 2, QUERY, score, NONE, NONE}, {INDEX, 3, KEY, score, NONE, NONE},                      \
        {POINTWISE, CUDNN_POINTWISE_CMP_GE, SEEN, QUERY, KEY, NONE},                               \
    {                                                                                              \
        POINTWISE, CUDNN_POINTWISE_BINARY_SELECT, MASKED, score, CM_CUDNN_UNSEEN, SEEN             \
    }

/* w = exp(score - top), o = (w / sum w) v, lse = top + log(sum w). */
static const struct operation forward[] = {
    {MATMUL, 0, PRODUCT, CM_CUDNN_Q, K_T, NONE},
    {POINTWISE, CUDNN_POINTWISE_MUL, SCORE, PRODUCT, CM_CUDNN_SCALE, NONE},
    MASK(SCORE),
    {MAXIMUM, 0, TOP, MASKED, NONE, NONE},
    {POINTWISE, CUDNN_POINTWISE_SUB, BELOW, MASKED, TOP, NONE},
    {POINTWISE, CUDNN_POINTWISE_EXP, WEIGHT, BELOW, NONE, NONE},
    {SUM, 0, WEIGHT_SUM, WEIGHT, NONE, NONE},
    {POINTWISE, CUDNN_POINTWISE_LOG, LOG_SUM, WEIGHT_SUM, NONE, NONE},
    {POINTWISE, CUDNN_POINTWISE_ADD, CM_CUDNN_LSE, TOP, LOG_SUM, NONE},
    {POINTWISE, CUDNN_POINTWISE_DIV, WEIGHT_OUT, WEIGHT, WEIGHT_SUM, NONE},
    {MATMUL, 0, CM_CUDNN_O, WEIGHT_OUT, CM_CUDNN_V, NONE},
};

/* w = exp(score - lse), dv = w^T dout; dproduct = w (dout v^T - dout . o) scale, dk = dproduct^T q,
 * dq = dproduct k. */
static const struct operation backward[] = {
    {POINTWISE, CUDNN_POINTWISE_MUL, SHIFT_PARTS, CM_CUDNN_DOUT, CM_CUDNN_O, NONE},
    {SUM, 0, SHIFT_SUM, SHIFT_PARTS, NONE, NONE},
    {POINTWISE, CUDNN_POINTWISE_MUL, CM_CUDNN_SHIFT, SHIFT_SUM, CM_CUDNN_ONE, NONE},
    {MATMUL, 0, PRODUCT, CM_CUDNN_Q, K_T, NONE},
    {POINTWISE, CUDNN_POINTWISE_MUL, SCORE, PRODUCT, CM_CUDNN_SCALE, NONE},
    {POINTWISE, CUDNN_POINTWISE_SUB, BELOW, SCORE, CM_CUDNN_LSE, NONE},
    MASK(BELOW),
    {POINTWISE, CUDNN_POINTWISE_EXP, WEIGHT, MASKED, NONE, NONE},
    {RESHAPE, 0, WEIGHT_T, WEIGHT, NONE, NONE},
    {MATMUL, 0, DV_HEADS, WEIGHT_T, CM_CUDNN_DOUT, NONE},
    {SUM, 0, CM_CUDNN_DV, DV_HEADS, NONE, NONE},
    {MATMUL, 0, DWEIGHT, CM_CUDNN_DOUT, V_T, NONE},
    {POINTWISE, CUDNN_POINTWISE_SUB, DWEIGHT_BELOW, DWEIGHT, CM_CUDNN_SHIFT, NONE},
    {POINTWISE, CUDNN_POINTWISE_MUL, DSCORE, DWEIGHT_BELOW, WEIGHT, NONE},
    {POINTWISE, CUDNN_POINTWISE_MUL, DPRODUCT, DSCORE, CM_CUDNN_SCALE, NONE},
    {RESHAPE, 0, DPRODUCT_T, DPRODUCT, NONE, NONE},
    {MATMUL, 0, DK_HEADS, DPRODUCT_T, CM_CUDNN_Q, NONE},
    {SUM, 0, CM_CUDNN_DK, DK_HEADS, NONE, NONE},
    {RESHAPE, 0, K_ROWS, K_T, NONE, NONE},
    {MATMUL, 0, CM_CUDNN_DQ_SUM, DPRODUCT, K_ROWS, NONE},
    {POINTWISE, CUDNN_POINTWISE_IDENTITY, CM_CUDNN_DQ, CM_CUDNN_DQ_SUM, NONE, NONE},
};

/* ---- descriptors ---- */

enum cm_status cm_cudnn_make(const struct cm_cudnn *cudnn, struct cm_cudnn_graph *graph,
                             cudnnBackendDescriptorType_t type,
                             cudnnBackendDescriptor_t *descriptor)
{
    if (graph->count == CM_CUDNN_DESCRIPTORS)
        return cm_error(CM_INTERNAL, "cuDNN: a graph has more than %d descriptors",
                        CM_CUDNN_DESCRIPTORS);
    enum cm_status status = DNN(cudnn, cudnnBackendCreateDescriptor, type, descriptor);
    if (status == CM_OK)
        graph->descriptors[graph->count++] = *descriptor;
    return status;
}

void cm_cudnn_discard(const struct cm_cudnn *cudnn, struct cm_cudnn_graph *graph)
{
    while (graph->count > 0)
        cudnn->cudnnBackendDestroyDescriptor(graph->descriptors[--graph->count]);
    graph->operations = NULL;
}

/* Everything that a graph is made with. */
struct maker {
    const struct cm_cudnn *cudnn;
    const struct cm_attention *attention;
    struct cm_cudnn_graph *graph;
    cudnnBackendDescriptor_t tensors[TENSORS]; /* NULL: not met yet */
};

struct attribute {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    const void *values;
};

/* A descriptor with these attributes, finalized. */
static enum cm_status make(const struct maker *maker, cudnnBackendDescriptorType_t type,
                           const struct attribute *attributes, size_t count,
                           cudnnBackendDescriptor_t *descriptor)
{
    const struct cm_cudnn *cudnn = maker->cudnn;
    enum cm_status status = cm_cudnn_make(cudnn, maker->graph, type, descriptor);
    for (size_t i = 0; i < count && status == CM_OK; i++)
        status = DNN(cudnn, cudnnBackendSetAttribute, *descriptor, attributes[i].name,
                     attributes[i].type, attributes[i].count, attributes[i].values);
    return status == CM_OK ? DNN(cudnn, cudnnBackendFinalize, *descriptor) : status;
}

#define MAKE(maker, type, attributes, descriptor)                                                  \
    make(maker, type, attributes, sizeof(attributes) / sizeof *(attributes), descriptor)

/* Sizes of the four dimensions, and elements from one to the next. */
static void shape_of(const struct cm_attention *a, enum form form, int64_t sizes[4],
                     int64_t strides[4])
{
    int64_t batch = a->batch, heads = a->heads, kv_heads = a->kv_heads, size = a->head_size;
    int64_t length = a->q_length;
    const struct {
        int64_t sizes[4], strides[4];
    } shapes[] = {
#define ROWS_OF(count, stride)                                                                     \
    {{batch, count, length, size}, {(int64_t)(stride), size, batch * (int64_t)(stride), 1}}
        [ONE] = {{1, 1, 1, 1}, {1, 1, 1, 1}},
        [OF_Q] = ROWS_OF(heads, a->q_stride),
        [OF_O] = ROWS_OF(heads, a->o_stride),
        [OF_DQ] = ROWS_OF(heads, a->dq_stride),
        [OF_K] = ROWS_OF(kv_heads, a->kv_stride),
        [OF_K_T] = {{batch, kv_heads, size, length},
                    {(int64_t)a->kv_stride, size, 1, batch * (int64_t)a->kv_stride}},
        [OF_DK] = ROWS_OF(kv_heads, a->dkv_stride),
        [OF_LSE] = {{batch, heads, length, 1}, {heads, 1, batch * heads, 1}},
        [ROW] = {{batch, heads, length, 1}, {heads * length, length, 1, 1}},
        [HEADS] = {{batch, heads, length, size}, {heads * length * size, length * size, size, 1}},
        [PAIRS] = {{batch, heads, length, length},
                   {heads * length * length, length * length, length, 1}},
        [PAIRS_T] = {{batch, heads, length, length},
                     {heads * length * length, length * length, 1, length}},
#undef ROWS_OF
    };
    for (int i = 0; i < 4; i++) {
        sizes[i] = shapes[form].sizes[i];
        strides[i] = shapes[form].strides[i];
    }
}

/* Operands seen transposed have their own's unique id. */
static int64_t id_of(int tensor)
{
    return tensor == K_T ? CM_CUDNN_K : tensor == V_T ? CM_CUDNN_V : tensor;
}

static enum cm_status make_tensor(struct maker *maker, int tensor)
{
    int64_t sizes[4], strides[4], id = id_of(tensor), alignment = 16;
    bool yes = true;
    if (tensor == NONE || maker->tensors[tensor] != NULL)
        return CM_OK;
    shape_of(maker->attention, tensors[tensor].form, sizes, strides);
    const struct attribute attributes[] = {
        {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &tensors[tensor].type},
        {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, sizes},
        {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides},
        {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id},
        {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment},
        {tensors[tensor].use == VALUE ? CUDNN_ATTR_TENSOR_IS_BY_VALUE
                                      : CUDNN_ATTR_TENSOR_IS_VIRTUAL,
         CUDNN_TYPE_BOOLEAN, 1, &yes},
    };
    size_t count = sizeof attributes / sizeof *attributes;
    return make(maker, CUDNN_BACKEND_TENSOR_DESCRIPTOR, attributes,
                tensors[tensor].use == OPERAND ? count - 1 : count, &maker->tensors[tensor]);
}

/* ---- operations ---- */

#define DESCRIPTOR(name, place)                                                                    \
    {                                                                                              \
        name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, place                                              \
    }

static enum cm_status make_pointwise(struct maker *maker, const struct operation *operation,
                                     cudnnBackendDescriptor_t *made)
{
    bool index = operation->kind == INDEX;
    cudnnPointwiseMode_t mode =
        index ? CUDNN_POINTWISE_GEN_INDEX : (cudnnPointwiseMode_t)operation->mode;
    cudnnDataType_t compute =
        mode == CUDNN_POINTWISE_CMP_GE ? CUDNN_DATA_BOOLEAN : CUDNN_DATA_FLOAT;
    int64_t axis = operation->mode;
    const struct attribute what[] = {
        {CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode},
        {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute},
        {CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis},
    };
    cudnnBackendDescriptor_t formula;
    enum cm_status status =
        make(maker, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, what, index ? 3 : 2, &formula);
    if (status != CM_OK)
        return status;
    const struct attribute attributes[] = {
        DESCRIPTOR(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &formula),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &maker->tensors[operation->x]),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &maker->tensors[operation->y]),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &maker->tensors[operation->b]),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, &maker->tensors[operation->t]),
    };
    return make(maker, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, attributes,
                operation->b == NONE   ? 3
                : operation->t == NONE ? 4
                                       : 5,
                made);
}

static enum cm_status make_matmul(struct maker *maker, const struct operation *operation,
                                  cudnnBackendDescriptor_t *made)
{
    cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const struct attribute what[] = {
        {CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute}};
    cudnnBackendDescriptor_t formula;
    enum cm_status status = MAKE(maker, CUDNN_BACKEND_MATMUL_DESCRIPTOR, what, &formula);
    if (status != CM_OK)
        return status;
    const struct attribute attributes[] = {
        DESCRIPTOR(CUDNN_ATTR_OPERATION_MATMUL_DESC, &formula),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_MATMUL_ADESC, &maker->tensors[operation->x]),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_MATMUL_BDESC, &maker->tensors[operation->b]),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_MATMUL_CDESC, &maker->tensors[operation->y]),
    };
    return MAKE(maker, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, attributes, made);
}

/* Over the dimensions in which y is smaller than x. */
static enum cm_status make_reduction(struct maker *maker, const struct operation *operation,
                                     cudnnBackendDescriptor_t *made)
{
    cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    cudnnReduceTensorOp_t operator= operation->kind == SUM ? CUDNN_REDUCE_TENSOR_ADD
                                                           : CUDNN_REDUCE_TENSOR_MAX;
    const struct attribute what[] = {
        {CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute},
        {
            CUDNN_ATTR_REDUCTION_OPERATOR,
            CUDNN_TYPE_REDUCTION_OPERATOR_TYPE,
            1,
            &operator},
        };
    cudnnBackendDescriptor_t formula;
    enum cm_status status = MAKE(maker, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, what, &formula);
    if (status != CM_OK)
        return status;
    const struct attribute attributes[] = {
        DESCRIPTOR(CUDNN_ATTR_OPERATION_REDUCTION_DESC, &formula),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, &maker->tensors[operation->x]),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, &maker->tensors[operation->y]),
    };
    return MAKE(maker, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, attributes, made);
}

static enum cm_status make_reshape(struct maker *maker, const struct operation *operation,
                                   cudnnBackendDescriptor_t *made)
{
    const struct attribute attributes[] = {
        DESCRIPTOR(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, &maker->tensors[operation->x]),
        DESCRIPTOR(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, &maker->tensors[operation->y]),
    };
    return MAKE(maker, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, attributes, made);
}

static enum cm_status make_operation(struct maker *maker, const struct operation *operation,
                                     cudnnBackendDescriptor_t *made)
{
    static enum cm_status (*const makers[])(struct maker *, const struct operation *,
                                            cudnnBackendDescriptor_t *) = {
        [POINTWISE] = make_pointwise, [INDEX] = make_pointwise,   [MATMUL] = make_matmul,
        [SUM] = make_reduction,       [MAXIMUM] = make_reduction, [RESHAPE] = make_reshape,
    };
    const int touched[] = {operation->y, operation->x, operation->b, operation->t};
    enum cm_status status = CM_OK;
    for (int i = 0; i < 4 && status == CM_OK; i++)
        status = make_tensor(maker, touched[i]);
    return status == CM_OK ? makers[operation->kind](maker, operation, made) : status;
}

enum cm_status cm_cudnn_describe(const struct cm_cudnn *cudnn, const struct cm_attention *attention,
                                 bool gradient, struct cm_cudnn_graph *graph)
{
    enum { MOST = sizeof backward / sizeof *backward };
    struct maker maker = {.cudnn = cudnn, .attention = attention, .graph = graph};
    const struct operation *operations = gradient ? backward : forward;
    size_t count = gradient ? MOST : sizeof forward / sizeof *forward;
    cudnnBackendDescriptor_t made[MOST];
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < count && status == CM_OK; i++)
        status = make_operation(&maker, &operations[i], &made[i]);
    if (status != CM_OK)
        return status;
    const struct attribute attributes[] = {
        {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, (int64_t)count, made},
        {CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &cudnn->handle},
    };
    return MAKE(&maker, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, attributes, &graph->operations);
}
