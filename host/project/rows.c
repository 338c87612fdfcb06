/* Measured runs, read. */
#include "host/project/rows.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/project/mixtures.h"

/* Chunks of a stage that are taken for granted where a table does not tell. */
#define CHUNKS_MOST 6
/* A node whose network is told. */
#define NODE_GPUS 8

#define COLUMNS(X)                                                                                 \
    X(source)                                                                                      \
    X(model)                                                                                       \
    X(params_b)                                                                                    \
    X(layers)                                                                                      \
    X(hidden)                                                                                      \
    X(heads)                                                                                       \
    X(kv_heads)                                                                                    \
    X(ffn_hidden)                                                                                  \
    X(vocab)                                                                                       \
    X(seq_len)                                                                                     \
    X(global_batch_seqs)                                                                           \
    X(gpu)                                                                                         \
    X(gpus)                                                                                        \
    X(tp)                                                                                          \
    X(cp)                                                                                          \
    X(pp)                                                                                          \
    X(vpp)                                                                                         \
    X(dp)                                                                                          \
    X(ep)                                                                                          \
    X(micro_batch)                                                                                 \
    X(precision)                                                                                   \
    X(recompute)                                                                                   \
    X(seq_parallel)                                                                                \
    X(notes)

enum column {
#define COLUMN_ENUM(name) COLUMN_##name,
    COLUMNS(COLUMN_ENUM)
#undef COLUMN_ENUM
        COLUMN_COUNT
};
static const char *const column_names[] = {
#define COLUMN_NAME(name) #name,
    COLUMNS(COLUMN_NAME)
#undef COLUMN_NAME
};

struct reader {
    struct cm_mixtures mixtures;
    const struct cm_run_table *runs;
    const struct cm_gpu_catalogue *catalogue;
    int places[COLUMN_COUNT];
    const struct cm_csv_row *from;
    struct cm_run_row *row;
};

static const char *cell(const struct reader *reader, enum column column)
{
    return reader->from->cells[reader->places[column]];
}

static enum cm_status find_columns(struct reader *reader)
{
    const struct cm_csv *csv = &reader->runs->csv;
    for (int i = 0; i < COLUMN_COUNT; i++) {
        reader->places[i] = cm_csv_column(csv, column_names[i]);
        if (reader->places[i] < 0)
            return cm_error(CM_USAGE, "%s:1: no column '%s'; a table of runs has %s and others",
                            csv->path, column_names[i], "source, model, gpu, gpus, tp, pp, dp");
    }
    return CM_OK;
}

bool cm_run_cell(const char *text, double *value)
{
    char *end;
    *value = (double)NAN;
    if (text[0] == '\0')
        return true;
    double read = strtod(text, &end);
    if (*end != '\0' || strspn(text, "0123456789.eE+-") != strlen(text) || !(read >= 0) ||
        !(read < 1e15))
        return false;
    *value = read;
    return true;
}

static enum cm_status number(const struct reader *reader, enum column column, double *value)
{
    const char *text = cell(reader, column);
    if (!cm_run_cell(text, value))
        return cm_error(CM_USAGE, "%s:%zu: %s is '%.40s'; a number, or nothing",
                        reader->runs->csv.path, reader->from->line, column_names[column], text);
    return CM_OK;
}

#define REASON(row, ...)                                                                           \
    do {                                                                                           \
        if ((row)->reason[0] == '\0')                                                              \
            snprintf((row)->reason, sizeof(row)->reason, __VA_ARGS__);                             \
    } while (0)

static bool has(const char *text, const char *word)
{
    return strstr(text, word) != NULL;
}

static void name_source(struct cm_run_row *row)
{
    size_t length = strcspn(row->source, ":");
    snprintf(row->release, sizeof row->release, "%.*s", (int)(length < 79 ? length : 79),
             row->source);
    snprintf(row->family, sizeof row->family, "%s", row->release);
    char *dash = strrchr(row->family, '-');
    if (dash != NULL && strspn(dash + 1, "v.0123456789") == strlen(dash + 1))
        *dash = '\0';
}

/* Clauses of the notes that have no digit and do not tell how the series is made. */
static void name_variant(struct cm_run_row *row)
{
    size_t used = 0;
    for (const char *at = row->notes; *at != '\0';) {
        at += strspn(at, "; ");
        size_t length = strcspn(at, ";");
        size_t digits = strcspn(at, "0123456789;");
        char clause[80];
        snprintf(clause, sizeof clause, "%.*s", (int)(length < 79 ? length : 79), at);
        if (length > 0 && digits == length && !has(clause, "scaling") && !has(clause, "SCALING") &&
            used + length + 2 < sizeof row->variant)
            used +=
                (size_t)snprintf(row->variant + used, sizeof row->variant - used, "%s; ", clause);
        at += length;
    }
}

/* Two matrices or three: whichever comes nearer to the parameters, else by the width. */
static bool is_gated(const struct cm_cost_job *job, double params_b, bool slice)
{
    double active, two, three;
    if (job->experts > 0)
        return true;
    struct cm_cost_job tried = *job;
    if (isnan(params_b) || params_b == 0 || slice)
        return fabs(job->ffn - 4 * job->hidden) > 1;
    tried.gated = false;
    two = cm_cost_parameter_count(&tried, &active);
    tried.gated = true;
    three = cm_cost_parameter_count(&tried, &active);
    return fabs(log(three / 1e9 / params_b)) < fabs(log(two / 1e9 / params_b));
}

static void choose_precision(const struct reader *reader, struct cm_run_row *row)
{
    static const struct {
        const char *name;
        enum cm_precision precision;
    } known[] = {{"bf16", CM_PRECISION_HALF},
                 {"fp16", CM_PRECISION_HALF},
                 {"fp8", CM_PRECISION_FP8},
                 {"mxfp8", CM_PRECISION_MXFP8},
                 {"nvfp4", CM_PRECISION_NVFP4}};
    const char *name = cell(reader, COLUMN_precision);
    const struct cm_gpu_spec *gpu = row->job.gpu;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) {
            row->job.precision = known[i].precision;
            bool narrow = known[i].precision != CM_PRECISION_HALF;
            if (gpu != NULL && ((narrow && gpu->fp8 == 0) ||
                                (known[i].precision == CM_PRECISION_NVFP4 && gpu->fp4 == 0)))
                REASON(row, "%s has no unit for %s", gpu->name, name);
            return;
        }
    if (name[0] == '\0')
        REASON(row, "precision is not given");
    else
        REASON(row, "precision '%.20s' is not modelled; bf16, fp16, fp8, mxfp8, nvfp4", name);
}

static void assume(struct cm_run_row *row, const char *what)
{
    size_t used = strlen(row->assumptions);
    snprintf(row->assumptions + used, sizeof row->assumptions - used, "%s%s", used > 0 ? ", " : "",
             what);
}

/* "800 Gb/s" in the notes is what joins its nodes. */
static void find_network(struct cm_run_row *row)
{
    const char *unit = strstr(row->notes, "Gb/s");
    if (unit == NULL)
        return;
    const char *begin = unit;
    while (begin > row->notes && begin[-1] == ' ')
        begin--;
    while (begin > row->notes && isdigit((unsigned char)begin[-1]))
        begin--;
    double gigabits = strtod(begin, NULL);
    if (gigabits >= 100)
        row->job.network_rate = gigabits * 1e9 / 8 / NODE_GPUS;
}

/* "26.06" or "v25.04" or "ngc24.09" in the source is when its software was released. */
static void find_release(struct cm_run_row *row)
{
    for (const char *at = row->source; *at != '\0'; at++) {
        bool begins = at == row->source || !(isdigit((unsigned char)at[-1]) || at[-1] == '.');
        unsigned year, month;
        int length = 0;
        if (!begins || sscanf(at, "%2u.%2u%n", &year, &month, &length) != 2 || length != 5)
            continue;
        if (year >= 20 && year < 40 && month >= 1 && month <= 12 &&
            strspn(at + 3, "0123456789") == 2) {
            row->job.release = year + (month - 0.5) / 12;
            return;
        }
    }
}

/* How it was programmed, from what the table and its notes say. */
/* Words that mean nothing here would be taken for the usual. */
static void check_words(const struct reader *reader, struct cm_run_row *row)
{
    const char *recompute = cell(reader, COLUMN_recompute),
               *split = cell(reader, COLUMN_seq_parallel);
    if (recompute[0] != '\0' && strcmp(recompute, "none") != 0 &&
        strcmp(recompute, "selective") != 0 && strcmp(recompute, "full") != 0)
        REASON(row, "recompute '%.20s' is not modelled; none, selective, full", recompute);
    if (split[0] != '\0' && strcmp(split, "0") != 0 && strcmp(split, "1") != 0)
        REASON(row, "seq_parallel is '%.20s'; 0, 1 or nothing", split);
}

static void choose_software(const struct reader *reader, struct cm_run_row *row)
{
    struct cm_cost_job *job = &row->job;
    bool sharded = has(row->notes, "FSDP") || has(row->notes, "ZeRO-3") || has(row->source, "fsdp");
    bool old = job->gpu->family == CM_GPU_VOLTA || job->gpu->family == CM_GPU_AMPERE;
    bool half16 = strcmp(cell(reader, COLUMN_precision), "fp16") == 0;
    bool pytorch =
        has(row->notes, "FSDP2") || has(row->notes, "PyTorch") || has(row->source, "pytorch");
    const char *recompute = cell(reader, COLUMN_recompute);
    const char *split = cell(reader, COLUMN_seq_parallel);
    job->recompute = strcmp(recompute, "full") == 0        ? CM_RECOMPUTE_FULL
                     : strcmp(recompute, "selective") == 0 ? CM_RECOMPUTE_SELECTIVE
                                                           : CM_RECOMPUTE_NONE;
    if (sharded && pytorch)
        job->software = CM_SOFTWARE_EAGER;
    else if (old && (half16 || (job->recompute == CM_RECOMPUTE_FULL && job->tp > 1)))
        job->software = CM_SOFTWARE_UNFUSED;
    else
        job->software = CM_SOFTWARE_FUSED;
    job->zero = job->software == CM_SOFTWARE_UNFUSED ? 0 : 1;
    if (sharded)
        job->zero = job->pp > 1 ? 1 : 3;
    const char *group = strstr(row->notes, "sharding group ");
    const char *ways = strstr(row->notes, "FSDP=");
    if (group != NULL)
        job->shard = strtod(group + strlen("sharding group "), NULL);
    else if (ways != NULL)
        job->shard = strtod(ways + strlen("FSDP="), NULL);
    if (job->zero < 3 || !(job->shard >= 1) || job->shard > job->dp * job->cp)
        job->shard = 0;
    job->sequence_parallel = job->tp > 1 && (strcmp(split, "1") == 0 || (split[0] == '\0' && !old));
}

/* Where nothing is said of chunks, newer software interleaves its stages, older does not. */
static void choose_chunks(struct cm_run_row *row)
{
    struct cm_cost_job *job = &row->job;
    char text[32];
    if (!isnan(job->vpp) && job->vpp > 0)
        return;
    job->vpp = 1;
    if (job->pp <= 1)
        return;
    double layers = job->layers / job->pp;
    for (double v = CHUNKS_MOST; v > 1 && job->software == CM_SOFTWARE_FUSED; v--)
        if (fmod(layers, v) == 0) {
            job->vpp = v;
            break;
        }
    row->assumed++;
    snprintf(text, sizeof text, "vpp=%g", job->vpp);
    assume(row, text);
}

/* Pure data parallelism of a model that does not fit so must be sharded. */
static void shard_if_needed(struct cm_run_row *row)
{
    struct cm_memory_cost memory;
    struct cm_cost_job *job = &row->job;
    if (job->zero >= 3 || job->tp * job->pp > 1 || job->dp * job->cp <= 1)
        return;
    cm_memory_cost(job, &memory);
    double state = memory.weights + memory.gradients + memory.optimizer;
    if (state > job->gpu->memory) {
        job->zero = 3;
        assume(row, "zero=3");
    }
}

/* Mixtures whose experts configs/mixtures.ini knows; of others no row tells how many there are. */
static void take_experts(const struct reader *reader, struct cm_run_row *row)
{
    static const char *const words[] = {"MoE", "Mixtral", "ERNIE", "Behemoth", NULL};
    struct cm_cost_job *job = &row->job;
    const struct cm_mixture *known = cm_mixture_find(&reader->mixtures, row->model);
    bool mixture = job->ep > 1 || has(row->notes, "MoE");
    for (size_t i = 0; words[i] != NULL; i++)
        mixture = mixture || has(row->model, words[i]);
    if (known == NULL && mixture)
        REASON(row, "a mixture of experts that is not in configs/mixtures.ini");
    if (known == NULL)
        return;
    row->mixture = true;
    job->experts = known->experts;
    job->top_k = known->top_k;
    job->shared = known->shared;
    job->projection = known->projection;
    job->head_size = known->head_size;
    if (isnan(job->kv_heads) || job->kv_heads == 0)
        job->kv_heads = known->kv_heads;
    job->ffn = known->ffn;
    if (isnan(job->ep))
        REASON(row, "ep is not given");
}

static void take_layout(struct cm_run_row *row, double gpus, double micro_batch)
{
    struct cm_cost_job *job = &row->job;
    if (isnan(job->cp) || job->cp == 0)
        job->cp = 1;
    job->ep = fmax(1, job->ep);
    if (isnan(micro_batch) || micro_batch == 0) {
        micro_batch = 1;
        row->assumed++;
        assume(row, "micro_batch=1");
    }
    job->micro_batch = micro_batch;
    job->micro_batches = row->batch / (job->dp * micro_batch);
    if (fabs(cm_cost_gpus(job) - gpus) > 0.5)
        REASON(row, "tp %g x cp %g x pp %g x dp %g are not %g GPUs", job->tp, job->cp, job->pp,
               job->dp, gpus);
    else if (job->micro_batches < 1)
        REASON(row, "a batch of %g is less than one micro-batch of %g for each of %g", row->batch,
               micro_batch, job->dp);
    else if (job->layers < job->pp)
        REASON(row, "%g layers and %g stages", job->layers, job->pp);
}

static enum cm_status read_numbers(const struct reader *reader, struct cm_run_row *row,
                                   double *gpus, double *micro_batch, double *params_b)
{
    struct cm_cost_job *job = &row->job;
    const struct {
        enum column column;
        double *value;
        bool needed;
    } numbers[] = {{COLUMN_layers, &job->layers, true},
                   {COLUMN_hidden, &job->hidden, true},
                   {COLUMN_heads, &job->heads, true},
                   {COLUMN_kv_heads, &job->kv_heads, true},
                   {COLUMN_ffn_hidden, &job->ffn, true},
                   {COLUMN_vocab, &job->vocabulary, true},
                   {COLUMN_seq_len, &job->sequence, true},
                   {COLUMN_global_batch_seqs, &row->batch, true},
                   {COLUMN_gpus, gpus, true},
                   {COLUMN_tp, &job->tp, true},
                   {COLUMN_pp, &job->pp, true},
                   {COLUMN_dp, &job->dp, true},
                   {COLUMN_cp, &job->cp, false},
                   {COLUMN_vpp, &job->vpp, false},
                   {COLUMN_ep, &job->ep, false},
                   {COLUMN_micro_batch, micro_batch, false},
                   {COLUMN_params_b, params_b, false}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        enum cm_status status = number(reader, numbers[i].column, numbers[i].value);
        if (status != CM_OK)
            return status;
    }
    take_experts(reader, row);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].needed && !(*numbers[i].value > 0))
            REASON(row, "%s is not given", column_names[numbers[i].column]);
    return CM_OK;
}

static enum cm_status read_row(const struct reader *reader)
{
    struct cm_run_row *row = reader->row;
    double gpus, micro_batch, params_b;
    row->line = reader->from->line;
    row->cells = (const char *const *)reader->from->cells;
    row->source = cell(reader, COLUMN_source);
    row->model = cell(reader, COLUMN_model);
    row->notes = cell(reader, COLUMN_notes);
    name_source(row);
    name_variant(row);
    row->job.gpu = cm_gpu_find(reader->catalogue, cell(reader, COLUMN_gpu));
    if (row->job.gpu == NULL)
        REASON(row, "GPU '%.40s' is not in configs/gpus.ini", cell(reader, COLUMN_gpu));
    enum cm_status status = read_numbers(reader, row, &gpus, &micro_batch, &params_b);
    choose_precision(reader, row);
    check_words(reader, row);
    if (status != CM_OK || row->reason[0] != '\0')
        return status;
    if (!row->mixture)
        row->job.head_size = row->job.hidden / row->job.heads;
    take_layout(row, gpus, micro_batch);
    if (row->reason[0] != '\0')
        return CM_OK;
    row->job.gated = is_gated(&row->job, params_b, has(row->notes, "PROXY"));
    choose_software(reader, row);
    choose_chunks(row);
    find_network(row);
    find_release(row);
    shard_if_needed(row);
    return CM_OK;
}

static void share_out(struct cm_run_table *runs)
{
    unsigned families = 0;
    for (size_t i = 0; i < runs->count; i++) {
        struct cm_run_row *row = &runs->rows[i];
        size_t first = 0;
        while (strcmp(runs->rows[first].family, row->family) != 0)
            first++;
        if (first == i)
            row->half[0] = families++ % 2 == 0 ? '0' : '1';
        else
            row->half[0] = runs->rows[first].half[0];
    }
}

enum cm_status cm_run_table_load(const char *path, const struct cm_gpu_catalogue *catalogue,
                                 struct cm_run_table *runs)
{
    struct cm_run_table made = {.rows = NULL};
    struct reader reader = {.runs = &made, .catalogue = catalogue};
    enum cm_status status = cm_csv_load(path, &made.csv);
    if (status == CM_OK)
        status = cm_mixtures_load(&reader.mixtures);
    if (status == CM_OK)
        status = find_columns(&reader);
    if (status == CM_OK) {
        made.rows = cm_alloc(made.csv.count, sizeof *made.rows);
        if (made.rows == NULL)
            status = CM_NO_MEMORY;
    }
    for (size_t i = 0; status == CM_OK && i < made.csv.count; i++) {
        reader.from = &made.csv.rows[i];
        reader.row = &made.rows[i];
        status = read_row(&reader);
        made.count++;
    }
    cm_mixtures_release(&reader.mixtures);
    share_out(&made);
    if (status == CM_OK)
        *runs = made;
    else
        cm_run_table_release(&made);
    return status;
}

void cm_run_table_release(struct cm_run_table *runs)
{
    cm_csv_release(&runs->csv);
    cm_free(runs->rows);
    memset(runs, 0, sizeof *runs);
}
