/* Scaling curves. */
#include "host/project/sweep.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/units.h"
#include "host/project/document.h"

#define GPUS_MOST 16777216

static enum cm_status read_range(const char *text, uint64_t *first, uint64_t *last)
{
    char begin[32];
    const char *dots = strstr(text, "..");
    enum cm_status status = CM_USAGE;
    if (dots != NULL && (size_t)(dots - text) < sizeof begin) {
        snprintf(begin, sizeof begin, "%.*s", (int)(dots - text), text);
        status = cm_parse_count(begin, first);
        if (status == CM_OK)
            status = cm_parse_count(dots + 2, last);
    }
    if (status != CM_OK || *first < 1 || *last < *first || *last > GPUS_MOST)
        return cm_error(CM_USAGE, "--sweep: '%.40s'; a range of GPUs like 8..262144", text);
    return CM_OK;
}

static enum cm_status add_point(const struct cm_question *q, const struct cm_cost_job *job,
                                bool strong, json_t *curve)
{
    struct cm_prediction p;
    enum cm_status status = cm_question_predict(q, job, strong, &p);
    double tokens = job->dp * job->micro_batches * job->micro_batch * job->sequence;
    const struct cm_baselines *rules = &p.baselines;
    if (status != CM_OK)
        return status;
    json_t *entry = json_object();
    cm_document_set(&status, entry, "gpus", json_integer((json_int_t)cm_cost_gpus(job)));
    cm_document_set(&status, entry, "step_time_s", cm_json_real(p.step_s));
    cm_document_set(&status, entry, "p10_s", cm_json_real(p.p10_s));
    cm_document_set(&status, entry, "p90_s", cm_json_real(p.p90_s));
    cm_document_set(&status, entry, "tokens_per_s", cm_json_real(tokens / p.step_s));
    const double seconds[] = {rules->null_s, rules->bubble_s, rules->two_anchor_s};
    static const char *const names[] = {"null", "bubble_only", "two_anchor"};
    for (int i = 0; i < 3; i++) /* null: the point is as small as the runs that they would go by */
        cm_document_set(&status, entry, names[i],
                        cm_json_real(seconds[i] > 0 ? seconds[i] : (double)NAN));
    cm_document_append(&status, curve, entry);
    return status;
}

/* Points where a whole number of replicas, and with a fixed batch of micro-batches, comes out. */
static enum cm_status write_curve(const struct cm_question *q, bool strong, json_t *curve)
{
    uint64_t first, last;
    double replica = q->job.tp * q->job.cp * q->job.pp;
    double each = q->job.micro_batches * q->job.dp;
    enum cm_status status = read_range(q->options->sweep, &first, &last);
    for (uint64_t gpus = first; status == CM_OK && gpus <= last; gpus *= 2) {
        struct cm_cost_job job = q->job;
        job.dp = (double)gpus / replica;
        if (strong)
            job.micro_batches = each / job.dp;
        double slots = job.vpp > 1 ? fmod(job.micro_batches, job.pp) : 0;
        if (fmod(job.dp, 1) != 0 || fmod(job.micro_batches, 1) != 0 || slots != 0 ||
            fmod(job.dp * job.cp, job.ep) != 0)
            continue;
        status = add_point(q, &job, strong, curve);
    }
    return status;
}

enum cm_status cm_sweep_write(const struct cm_question *q, json_t *document)
{
    json_t *weak = json_array(), *strong = json_array();
    enum cm_status status = CM_OK;
    cm_document_set(&status, document, "weak", weak);
    cm_document_set(&status, document, "strong", strong);
    if (status == CM_OK)
        status = write_curve(q, false, weak);
    if (status == CM_OK)
        status = write_curve(q, true, strong);
    if (status == CM_OK && json_array_size(weak) == 0)
        status = cm_error(CM_USAGE, "--sweep: no doubling in %.40s holds whole replicas of %g GPUs",
                          q->options->sweep, q->job.tp * q->job.cp * q->job.pp);
    return status;
}
