/* Parallel plans: read, checked against a model, ranks and the communicators they join. */
#include "clustermark/parallel.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/units.h"

/* More ranks than any plan can sensibly have; colors of splits stay below it. */
#define RANKS_MAX (1u << 20)

static const struct dimension {
    const char *name;
    size_t offset;
    unsigned least, most; /* the least is what is taken when it is not named */
} dimensions[] = {
#define DIMENSION(name, least, most)                                                               \
    {                                                                                              \
#name, offsetof(struct cm_parallel, name), least, most                                     \
    }
    DIMENSION(dp, 1, RANKS_MAX), DIMENSION(tp, 1, RANKS_MAX), DIMENSION(pp, 1, RANKS_MAX),
    DIMENSION(cp, 1, RANKS_MAX), DIMENSION(ep, 1, RANKS_MAX), DIMENSION(zero, 0, 3),
    DIMENSION(sp, 0, 1),         DIMENSION(vpp, 1, 1024),
#undef DIMENSION
};
#define DIMENSIONS (sizeof dimensions / sizeof *dimensions)

static unsigned *field(struct cm_parallel *parallel, size_t index)
{
    return (unsigned *)(void *)((char *)parallel + dimensions[index].offset);
}

static unsigned value(const struct cm_parallel *parallel, size_t index)
{
    unsigned number;
    memcpy(&number, (const char *)parallel + dimensions[index].offset, sizeof number);
    return number;
}

static enum cm_status check_ranges(const struct cm_parallel *parallel, const char *where)
{
    for (size_t i = 0; i < DIMENSIONS; i++) {
        const struct dimension *row = &dimensions[i];
        unsigned number = value(parallel, i);
        if (number < row->least || number > row->most)
            return cm_error(CM_USAGE, "%s: %s is %u; from %u to %u", where, row->name, number,
                            row->least, row->most);
    }
    double ranks = (double)parallel->dp * parallel->tp * parallel->pp * parallel->cp;
    if (ranks > RANKS_MAX)
        return cm_error(CM_USAGE, "%s: dp * tp * pp * cp is %.0f ranks; at most %u", where, ranks,
                        RANKS_MAX);
    return CM_OK;
}

/* One "tp=2", of `length` characters; `seen` has a bit for each dimension that was named. */
static enum cm_status parse_term(const char *text, size_t length, const char *where, unsigned *seen,
                                 struct cm_parallel *parallel)
{
    char term[32];
    while (length > 0 && *text == ' ') {
        text++;
        length--;
    }
    while (length > 0 && text[length - 1] == ' ')
        length--;
    int shown = length < 40 ? (int)length : 40;
    const char *equals = memchr(text, '=', length);
    if (length == 0 || length >= sizeof term || equals == NULL)
        return cm_error(CM_USAGE, "%s: \"%.*s\" is no part of a plan; write one as dp=2,tp=2",
                        where, shown, text);
    snprintf(term, sizeof term, "%.*s", (int)length, text);
    term[equals - text] = '\0';
    for (size_t i = 0; i < DIMENSIONS; i++) {
        uint64_t number;
        const struct dimension *row = &dimensions[i];
        if (strcmp(term, row->name) != 0)
            continue;
        if (*seen & 1u << i)
            return cm_error(CM_USAGE, "%s: a plan has %s twice", where, row->name);
        *seen |= 1u << i;
        if (cm_parse_count(term + (equals - text) + 1, &number) != CM_OK)
            return cm_error_at(CM_USAGE, "%s: %s: ", where, row->name);
        if (number < row->least || number > row->most)
            return cm_error(CM_USAGE, "%s: %s is %" PRIu64 "; from %u to %u", where, row->name,
                            number, row->least, row->most);
        *field(parallel, i) = (unsigned)number;
        return CM_OK;
    }
    return cm_error(CM_USAGE, "%s: a plan has no '%s'; it has dp, tp, pp, cp, ep, zero, sp and vpp",
                    where, term);
}

enum cm_status cm_parallel_parse(const char *text, const char *where, struct cm_parallel *parallel)
{
    struct cm_parallel fresh;
    unsigned seen = 0;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < DIMENSIONS; i++)
        *field(&fresh, i) = dimensions[i].least;
    for (bool more = true; more && status == CM_OK;) {
        size_t length = strcspn(text, ",");
        status = parse_term(text, length, where, &seen, &fresh);
        more = text[length] == ',';
        text += length + (more ? 1 : 0);
    }
    if (status == CM_OK)
        status = check_ranges(&fresh, where);
    if (status == CM_OK)
        *parallel = fresh;
    return status;
}

void cm_parallel_write(const struct cm_parallel *parallel, struct cm_str *out)
{
    bool first = true;
    for (size_t i = 0; i < DIMENSIONS; i++) {
        unsigned number = value(parallel, i);
        if (number == dimensions[i].least)
            continue;
        cm_str_addf(out, "%s%s=%u", first ? "" : ",", dimensions[i].name, number);
        first = false;
    }
    if (first)
        cm_str_add(out, "dp=1");
}

unsigned cm_parallel_ranks(const struct cm_parallel *parallel)
{
    return parallel->dp * parallel->tp * parallel->pp * parallel->cp;
}

/* ---- against a model ---- */

static enum cm_status check_tensor(const struct cm_parallel *parallel,
                                   const struct cm_transformer *model, const char *where)
{
    uint64_t tp = parallel->tp;
    if (parallel->sp == 1 && tp == 1)
        return cm_error(CM_USAGE, "%s: sp=1 without tp; it splits what a tensor group shares",
                        where);
    if (model->heads % tp != 0)
        return cm_error(CM_USAGE, "%s: tp=%" PRIu64 " does not divide %" PRIu64 " heads of %s",
                        where, tp, model->heads, model->name);
    if (model->kv_heads % tp != 0)
        return cm_error(CM_USAGE, "%s: tp=%" PRIu64 " does not divide %" PRIu64 " kv heads of %s",
                        where, tp, model->kv_heads, model->name);
    /* Rows of activations are read in pieces of 16 bytes. */
    if (model->ffn % (8 * tp) != 0)
        return cm_error(CM_USAGE,
                        "%s: tp=%" PRIu64 " does not divide ffn=%" PRIu64
                        " of %s into multiples of 8",
                        where, tp, model->ffn, model->name);
    return CM_OK;
}

static enum cm_status check_sequence(const struct cm_parallel *parallel,
                                     const struct cm_transformer *model, const char *where)
{
    uint64_t cp = parallel->cp, step = cp > 1 ? 2 * cp : 1;
    if (model->sequence % step != 0)
        return cm_error(CM_USAGE,
                        "%s: cp=%" PRIu64
                        " gives each rank two equal chunks of the sequence, but %" PRIu64
                        " is no multiple of %" PRIu64,
                        where, cp, model->sequence, step);
    if (parallel->sp == 1 && model->sequence / cp % parallel->tp != 0)
        return cm_error(CM_USAGE,
                        "%s: sp=1 splits a rank's %" PRIu64 " positions into tp=%u parts, which "
                        "does not come out even",
                        where, model->sequence / cp, parallel->tp);
    return CM_OK;
}

static enum cm_status check_pipeline(const struct cm_parallel *parallel,
                                     const struct cm_transformer *model, uint64_t micro_batches,
                                     const char *where)
{
    uint64_t parts = (uint64_t)parallel->pp * parallel->vpp;
    if (parallel->vpp > 1 && parallel->pp == 1)
        return cm_error(CM_USAGE, "%s: vpp=%u without pp; it interleaves pipeline stages", where,
                        parallel->vpp);
    if (model->layers < parts)
        return cm_error(CM_USAGE, "%s: %" PRIu64 " layers of %s are fewer than pp * vpp, %" PRIu64,
                        where, model->layers, model->name, parts);
    if (parallel->vpp > 1 && micro_batches % parallel->pp != 0)
        return cm_error(CM_USAGE,
                        "%s: vpp=%u needs micro_batches to be a multiple of pp=%u, not %" PRIu64,
                        where, parallel->vpp, parallel->pp, micro_batches);
    return CM_OK;
}

static enum cm_status check_data(const struct cm_parallel *parallel,
                                 const struct cm_transformer *model, const char *where)
{
    unsigned data = parallel->dp * parallel->cp, ep = parallel->ep;
    if (parallel->zero > 0 && data == 1)
        return cm_error(CM_USAGE, "%s: zero=%u shards over dp * cp, which is one rank", where,
                        parallel->zero);
    if (ep == 1)
        return CM_OK;
    if (model->experts == 0)
        return cm_error(CM_USAGE, "%s: ep=%u, but %s has no experts", where, ep, model->name);
    if (data % ep != 0)
        return cm_error(CM_USAGE,
                        "%s: ep=%u does not divide dp * cp, %u; experts are spread over those "
                        "ranks",
                        where, ep, data);
    if (model->experts % ep != 0)
        return cm_error(CM_USAGE, "%s: ep=%u does not divide %" PRIu64 " experts of %s", where, ep,
                        model->experts, model->name);
    return CM_OK;
}

static enum cm_status check_batch(const struct cm_parallel *parallel,
                                  const struct cm_transformer *model, uint64_t micro_batches,
                                  uint64_t micro_batch, const char *where)
{
    if (micro_batches == 0 || micro_batch == 0)
        return cm_error(CM_USAGE, "%s: micro_batches and micro_batch are at least 1", where);
    /* Rows, and slots of experts, are counted in 32 bits with a sign. */
    double rows = (double)model->sequence / parallel->cp * (double)micro_batch;
    if (model->experts > 0)
        rows *= (double)model->experts;
    if (rows > INT32_MAX)
        return cm_error(CM_USAGE,
                        "%s: a micro-batch of %" PRIu64 " sequences of %" PRIu64
                        " tokens is too large; make it smaller and micro_batches larger",
                        where, micro_batch, model->sequence);
    return CM_OK;
}

enum cm_status cm_parallel_check(const struct cm_parallel *parallel,
                                 const struct cm_transformer *transformer, uint64_t micro_batches,
                                 uint64_t micro_batch, const char *where)
{
    enum cm_status status = check_ranges(parallel, where);
    if (status == CM_OK)
        status = check_batch(parallel, transformer, micro_batches, micro_batch, where);
    if (status == CM_OK)
        status = check_tensor(parallel, transformer, where);
    if (status == CM_OK)
        status = check_sequence(parallel, transformer, where);
    if (status == CM_OK)
        status = check_pipeline(parallel, transformer, micro_batches, where);
    if (status == CM_OK)
        status = check_data(parallel, transformer, where);
    return status;
}

void cm_parallel_layers(const struct cm_parallel *parallel, uint64_t layers, unsigned stage,
                        unsigned chunk, uint64_t *first, uint64_t *end)
{
    uint64_t parts = (uint64_t)parallel->pp * parallel->vpp;
    uint64_t part = (uint64_t)chunk * parallel->pp + stage;
    uint64_t each = layers / parts, larger = layers % parts;
    *first = part * each + (part < larger ? part : larger);
    *end = *first + each + (part < larger ? 1 : 0);
}
