/* Scratch of the training kernels: what the largest need of any device is. */
#include "clustermark/ops.h"

/* Rows that are added up together in the gradient of an embedding, at least. */
#define EMBED_ROWS 32
/* Blocks of a norm's backward kernel that each keep a partial sum, at most. */
#define NORM_PARTS 1024
/* Partial results of a sum, at most. */
#define SUM_PARTS 4096
/* Rows that are counted together where tokens are routed, at least. */
#define ROUTE_ROWS 128

static uint64_t at_least_one(uint64_t bytes)
{
    return bytes > 0 ? bytes : 1;
}

/* Rows sorted by token: keys and rows, each twice, and as much again for counting; a bucket per row
 * of the table; the sums that every 32 rows have of tokens which other rows have too, two each. */
uint64_t cm_embed_scratch_bytes(const struct cm_embed *embed)
{
    uint64_t words = 8 * embed->rows + 4 * ((uint64_t)embed->vocabulary_count + 1);
    words += 2 * ((embed->rows + EMBED_ROWS - 1) / EMBED_ROWS) * embed->columns;
    return at_least_one(words * sizeof(uint32_t));
}

/* Partial sums of dweight and dbias. */
uint64_t cm_norm_scratch_bytes(const struct cm_norm *norm)
{
    uint64_t parts = norm->rows < NORM_PARTS ? norm->rows : NORM_PARTS;
    return at_least_one(2 * parts * norm->columns * sizeof(float));
}

/* A float per query and head, and f32 sums: of dq, or of dk and dv with up to 7 rows and 31
 * elements of a row more. */
uint64_t cm_attention_scratch_bytes(const struct cm_attention *attention)
{
    uint64_t queries = (uint64_t)attention->q_length * attention->batch * attention->heads;
    uint64_t length = ((uint64_t)attention->k_length + 7) / 8 * 8;
    uint64_t keys = length * attention->batch * attention->kv_heads;
    uint64_t padded = ((uint64_t)attention->head_size + 31) / 32 * 32;
    uint64_t dq = queries * attention->head_size, dkv = 2 * keys * padded;
    return at_least_one((queries + (dq > dkv ? dq : dkv)) * sizeof(float) + 64);
}

uint64_t cm_sum_scratch_bytes(uint64_t count)
{
    (void)count;
    return SUM_PARTS * sizeof(float);
}

/* Counts of each block of rows by expert, and who has each slot. */
uint64_t cm_route_scratch_bytes(const struct cm_route *route)
{
    uint64_t blocks = (route->rows + ROUTE_ROWS - 1) / ROUTE_ROWS;
    uint64_t words = (blocks + 1) * route->experts + route->experts * route->capacity;
    return at_least_one(words * sizeof(uint32_t));
}
