/* Every kernel of a training step, once: a row of `calls` for each entry of the launch table. */
#include "fake/train_calls.h"

#include "clustermark/kernels.h"
#include "clustermark/train_kernels.h"

enum { ROWS = 16, COLUMNS = 64, WORDS = 32, HEADS = 2, HEAD_SIZE = 32, EXPERTS = 4, TOP_K = 2 };
enum { SLOT_BYTES = 1 << 15 };

struct calls {
    struct cm_stream *stream;
    const struct cm_train_kernels *kernels;
    char *memory;
};

/* Memory number `index`. */
static void *at(const struct calls *c, unsigned index)
{
    return c->memory + index * SLOT_BYTES;
}

static const struct cm_positions positions = {.batch = 1, .chunk = ROWS};
static const struct cm_embed embed_shape = {CM_BF16, ROWS, COLUMNS, 0, WORDS, {1, ROWS, {0, 0}}};
static const struct cm_norm norm_shape = {CM_BF16, false, 1e-5F, ROWS, COLUMNS};
static const struct cm_activation activation_shape = {CM_BF16, true, ROWS, COLUMNS};
static const struct cm_cross_entropy cross_shape = {CM_BF16, ROWS, 0, WORDS, WORDS, 1, 1};
static const struct cm_route route_shape = {CM_BF16, ROWS, COLUMNS, EXPERTS, TOP_K, ROWS};

#define WIDTH ((uint64_t)HEADS * HEAD_SIZE)
static const struct cm_attention attention_shape = {
    CM_BF16,           1,     HEADS, HEADS, HEAD_SIZE, ROWS, ROWS,
    {1, ROWS, {0, 0}}, WIDTH, WIDTH, WIDTH, WIDTH,     WIDTH};

#define CALL(name, ...)                                                                            \
    static enum cm_status call_##name(const struct calls *c)                                       \
    {                                                                                              \
        return c->kernels->name(c->stream, __VA_ARGS__);                                           \
    }
#define M(index) at(c, index)

CALL(embed, &embed_shape, M(0), M(1), NULL, M(2))
CALL(embed_backward, &embed_shape, M(0), M(2), M(3), NULL, M(15))
CALL(norm, &norm_shape, M(2), M(3), M(4), NULL, M(5), M(6), M(7))
CALL(norm_backward, &norm_shape, M(6), M(5), M(4), M(7), NULL, M(8), M(9), NULL, M(15))
CALL(rope,
     &(const struct cm_rope){.dtype = CM_BF16,
                             .rows = ROWS,
                             .heads = HEADS,
                             .head_size = HEAD_SIZE,
                             .stride = WIDTH,
                             .base = 10000,
                             .positions = positions},
     M(2))
CALL(attention, &attention_shape, M(1), M(2), M(3), M(4), M(5))
CALL(attention_backward, &attention_shape, M(1), M(2), M(3), M(4), M(5), M(6), M(7), M(8), M(9),
     M(15))
CALL(activation, &activation_shape, M(1), M(2))
CALL(activation_backward, &activation_shape, M(1), M(2), M(3))
CALL(add_to, M(1), M(2), M(3), ROWS *COLUMNS, CM_BF16)
CALL(convert, M(1), CM_BF16, M(2), CM_F32, ROWS *COLUMNS)
CALL(softmax_parts, &cross_shape, M(1), M(0), M(2))
CALL(cross_entropy, &cross_shape, M(1), M(0), M(2), M(3))
CALL(sum, M(1), ROWS, true, 1, false, M(2), M(15))
CALL(clip_factor, M(2), 1, M(3))
CALL(adamw,
     &(const struct cm_adamw){CM_BF16, ROWS *COLUMNS, 1e-3F, 0.9F, 0.95F, 1e-8F, 0.1F, 1, 1, 0,
                              false},
     M(1), M(3), M(4), M(5), M(6), M(7))
CALL(route, &route_shape, M(1), M(10), M(11), M(12), M(13), M(15))
CALL(route_backward, &route_shape, M(11), M(12), M(14), M(1))
CALL(permute, &route_shape, M(2), M(10), M(3), M(15))
CALL(unpermute, &route_shape, M(3), M(10), M(12), M(2))
CALL(unpermute_backward, &route_shape, M(2), M(3), M(10), M(12), M(4), M(14), M(15))
CALL(quantise, &(const struct cm_quantise){CM_BF16, CM_F8E4M3, ROWS, COLUMNS, 1, true}, M(1), M(2),
     M(3))
CALL(reorder, &(const struct cm_reorder){CM_REORDER_TRANSPOSE, 2, 4, 64}, M(1), M(2))

/* In an order in which each finds what it reads. */
static enum cm_status (*const calls[])(const struct calls *c) = {
    call_embed,         call_embed_backward,
    call_norm,          call_norm_backward,
    call_rope,          call_attention,
    call_add_to,        call_attention_backward,
    call_activation,    call_activation_backward,
    call_convert,       call_softmax_parts,
    call_cross_entropy, call_sum,
    call_clip_factor,   call_adamw,
    call_route,         call_permute,
    call_unpermute,     call_unpermute_backward,
    call_reorder,       call_route_backward,
    call_quantise,
};
_Static_assert(sizeof calls / sizeof *calls ==
                   (sizeof(struct cm_train_kernels) - sizeof(struct cm_attention_library *)) /
                       sizeof(void (*)(void)),
               "every kernel is called");

enum cm_status queue_train_calls(struct cm_stream *stream, void *memory)
{
    const struct cm_kernels *kernels = stream->device->kernels;
    const struct calls c = {stream, kernels->train, memory};
    enum cm_status status = kernels->write(stream, memory, 0, TRAIN_MEMORY_BYTES);
    for (size_t i = 0; i < sizeof calls / sizeof *calls && status == CM_OK; i++)
        status = calls[i](&c);
    return status;
}
