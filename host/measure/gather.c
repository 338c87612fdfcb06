/* From all ranks to the reporting rank: times, findings of the check, devices, telemetry. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/measure/harness.h"
#include "host/measure/host.h"
#include "host/measure/telemetry.h"

#define BINDING_MAX 256
/* Times of one rank in a message. */
#define CHUNK (CM_GATHER_MAX / sizeof(double))

static bool reporting(const struct cm_harness *harness)
{
    return harness->context.comm->rank == 0;
}

/* What a rank tells of a part before its times. */
struct rank_part {
    double median_s, last_s; /* of all its times; of the last third. NAN for one that is idle */
};

static struct rank_part part_of(const struct cm_part *part, const struct cm_samples *own)
{
    size_t first = own->count * 2 / 3;
    if (part->idle)
        return (struct rank_part){(double)NAN, (double)NAN};
    return (struct rank_part){cm_median(own->values, own->count),
                              cm_median(own->values + first, own->count - first)};
}

static enum cm_status keep_medians(struct cm_part_samples *out, const struct rank_part *all,
                                   unsigned ranks)
{
    out->rank_median_s = cm_alloc(ranks, sizeof *out->rank_median_s);
    out->rank_last_s = cm_alloc(ranks, sizeof *out->rank_last_s);
    if (out->rank_median_s == NULL || out->rank_last_s == NULL)
        return CM_NO_MEMORY;
    out->rank_count = ranks;
    for (unsigned r = 0; r < ranks; r++) {
        out->rank_median_s[r] = all[r].median_s;
        out->rank_last_s[r] = all[r].last_s;
    }
    return CM_OK;
}

/* Places for the times of those ranks that took part. */
static enum cm_status make_room(struct cm_part_samples *out)
{
    out->ranks = cm_alloc(out->rank_count, sizeof *out->ranks);
    if (out->ranks == NULL)
        return CM_NO_MEMORY;
    for (unsigned r = 0; r < out->rank_count; r++) {
        struct cm_samples *samples = &out->ranks[r];
        if (isnan(out->rank_median_s[r]))
            continue;
        if (cm_grow(&samples->values, &samples->capacity, out->slowest.count,
                    sizeof *samples->values) != 0)
            return CM_NO_MEMORY;
        samples->count = out->slowest.count;
    }
    return CM_OK;
}

/* `keep` is NULL on a rank that stores nothing: it takes part all the same. */
static enum cm_status gather_times(struct cm_harness *harness, const struct cm_samples *own,
                                   size_t total, struct cm_part_samples *keep)
{
    double chunk[CHUNK];
    enum cm_status status = CM_OK;
    for (size_t first = 0; first < total && status == CM_OK; first += CHUNK) {
        size_t count = total - first < CHUNK ? total - first : CHUNK;
        const void *all;
        for (size_t i = 0; i < count; i++)
            chunk[i] = first + i < own->count ? own->values[first + i] : (double)NAN;
        status = cm_vote_gather(&harness->vote, chunk, count * sizeof *chunk, &all);
        for (unsigned r = 0; status == CM_OK && keep != NULL && r < keep->rank_count; r++) {
            if (keep->ranks[r].count > 0)
                memcpy(keep->ranks[r].values + first, (const double *)all + r * count,
                       count * sizeof *chunk);
        }
    }
    return status;
}

/* Medians of every rank; the times themselves only of few ranks. */
enum cm_status cm_gather_samples(struct cm_harness *harness, unsigned part,
                                 const struct cm_samples *own)
{
    struct cm_part_samples *out = &harness->run.parts[part];
    struct rank_part mine = part_of(&out->part, own);
    unsigned ranks = harness->context.comm->size, busy = 0;
    const void *gathered;
    enum cm_status status = cm_vote_gather(&harness->vote, &mine, sizeof mine, &gathered);
    if (status != CM_OK)
        return status;
    const struct rank_part *all = gathered;
    for (unsigned r = 0; r < ranks; r++)
        busy += isnan(all[r].median_s) ? 0 : 1;
    if (busy == 0)
        cm_vote_note(&harness->vote,
                     cm_error(CM_INTERNAL, "part %s: every rank is idle", out->part.name));
    struct cm_part_samples *keep = NULL;
    if (reporting(harness)) {
        enum cm_status room = keep_medians(out, all, ranks);
        out->median_s = cm_median(out->slowest.values, out->slowest.count);
        if (room == CM_OK && ranks <= CM_RANK_SAMPLES_MAX)
            room = make_room(out);
        cm_vote_note(&harness->vote, room);
        keep = room == CM_OK ? out : NULL;
    }
    return ranks <= CM_RANK_SAMPLES_MAX ? gather_times(harness, own, out->slowest.count, keep)
                                        : CM_OK;
}

struct finding {
    struct cm_check check;
    bool idle;
};

static bool is_wrong(const struct finding *finding)
{
    const struct cm_check *check = &finding->check;
    return check->mismatches > 0 ||
           (check->checked == 0 && check->nothing[0] == '\0' && !finding->idle);
}

/* "rank 1, part both: 3 of 4096 values are wrong, at 17: 2, not 1" */
static void describe(const struct cm_harness *harness, unsigned part, unsigned rank,
                     const struct cm_check *check, char *text, size_t size)
{
    char place[80] = "";
    const char *name = harness->run.parts[part].part.name;
    if (harness->context.comm->size > 1)
        snprintf(place, sizeof place, "rank %u%s", rank, name[0] != '\0' ? ", " : ": ");
    if (name[0] != '\0')
        snprintf(place + strlen(place), sizeof place - strlen(place), "part %s: ", name);
    if (check->mismatches == 0)
        snprintf(text, size, "%snothing was checked, and no reason given", place);
    else
        snprintf(text, size, "%s%llu of %llu values are wrong%s%s", place,
                 (unsigned long long)check->mismatches, (unsigned long long)check->checked,
                 check->detail[0] != '\0' ? ": " : "", check->detail);
}

static void add_finding(struct cm_harness *harness, unsigned part, unsigned rank,
                        const struct finding *finding)
{
    struct cm_case_run *run = &harness->run;
    struct cm_check *sum = &run->check;
    sum->checked += finding->check.checked;
    sum->mismatches += finding->check.mismatches;
    sum->worst = fmax(sum->worst, finding->check.worst);
    if (sum->nothing[0] == '\0')
        snprintf(sum->nothing, sizeof sum->nothing, "%s", finding->check.nothing);
    if (sum->detail[0] == '\0')
        snprintf(sum->detail, sizeof sum->detail, "%s", finding->check.detail);
    if (is_wrong(finding) && run->status == CM_CASE_OK) {
        run->status = CM_CASE_WRONG;
        describe(harness, part, rank, &finding->check, run->reason, sizeof run->reason);
    }
}

enum cm_status cm_gather_check(struct cm_harness *harness, unsigned part,
                               const struct cm_check *own)
{
    struct finding finding;
    memset(&finding, 0, sizeof finding); /* it travels as bytes, padding included */
    finding.check = *own;
    finding.idle = harness->run.parts[part].part.idle;
    const void *all;
    enum cm_status status = cm_vote_gather(&harness->vote, &finding, sizeof finding, &all);
    if (status != CM_OK)
        return status;
    for (unsigned rank = 0; rank < harness->context.comm->size; rank++)
        add_finding(harness, part, rank, (const struct finding *)all + rank);
    if (harness->run.check.checked > 0)
        harness->run.check.nothing[0] = '\0';
    return CM_OK;
}

struct rank_facts {
    struct cm_device_info device;
    char binding[BINDING_MAX];
    char host[CM_HOST_MAX];
};

static enum cm_status make_rank_lists(struct cm_harness *harness, unsigned ranks)
{
    struct cm_case_run *run = &harness->run;
    harness->rank_measured_s = cm_alloc(ranks, sizeof *harness->rank_measured_s);
    run->telemetry = cm_alloc(ranks, sizeof *run->telemetry);
    run->devices = cm_alloc(ranks, sizeof *run->devices);
    run->bindings = cm_alloc(ranks, sizeof *run->bindings);
    if (harness->rank_measured_s == NULL || run->telemetry == NULL || run->devices == NULL ||
        run->bindings == NULL)
        return CM_NO_MEMORY;
    run->rank_count = ranks;
    for (unsigned r = 0; r < ranks; r++) {
        run->telemetry[r] = cm_telemetry_unknown;
        run->bindings[r] = cm_strdup("");
        if (run->bindings[r] == NULL)
            return CM_NO_MEMORY;
    }
    return CM_OK;
}

static enum cm_status keep_facts(struct cm_harness *harness, const struct rank_facts *facts,
                                 unsigned ranks)
{
    struct cm_case_run *run = &harness->run;
    enum cm_status status = make_rank_lists(harness, ranks);
    for (unsigned r = 0; r < ranks && status == CM_OK; r++) {
        run->devices[r] = facts[r].device;
        char *binding = cm_strdup(facts[r].binding);
        if (binding == NULL)
            return CM_NO_MEMORY;
        cm_free(run->bindings[r]);
        run->bindings[r] = binding;
    }
    return status;
}

/* Ranks of a host mostly follow each other; else the first rank of each node is looked through. */
static enum cm_status keep_nodes(struct cm_harness *harness, const struct rank_facts *facts,
                                 unsigned ranks)
{
    unsigned count = 0;
    unsigned *nodes = cm_alloc(ranks, sizeof *nodes), *firsts = cm_alloc(ranks, sizeof *firsts);
    enum cm_status status = nodes != NULL && firsts != NULL ? CM_OK : CM_NO_MEMORY;
    for (unsigned r = 0; status == CM_OK && r < ranks; r++) {
        unsigned node = r > 0 && strcmp(facts[r].host, facts[r - 1].host) == 0 ? nodes[r - 1] : 0;
        while (node < count && strcmp(facts[r].host, facts[firsts[node]].host) != 0)
            node++;
        if (node == count)
            firsts[count++] = r;
        nodes[r] = node;
    }
    cm_free(firsts);
    harness->nodes = nodes;
    harness->context.node_of = nodes;
    return status;
}

static enum cm_status keep_hosts(struct cm_harness *harness, const struct rank_facts *facts,
                                 unsigned ranks)
{
    harness->hosts = cm_alloc(ranks, sizeof *harness->hosts);
    if (harness->hosts == NULL)
        return CM_NO_MEMORY;
    for (unsigned r = 0; r < ranks; r++)
        snprintf(harness->hosts[r], sizeof harness->hosts[r], "%.*s", CM_HOST_MAX - 1,
                 facts[r].host);
    return CM_OK;
}

enum cm_status cm_gather_devices(struct cm_harness *harness)
{
    _Static_assert(sizeof(struct rank_facts) <= CM_GATHER_MAX, "facts of a rank fit a message");
    struct rank_facts facts;
    memset(&facts, 0, sizeof facts);
    facts.device = harness->context.device->info;
    if (harness->bench->binding != NULL)
        snprintf(facts.binding, sizeof facts.binding, "%s", harness->bench->binding);
    cm_host_name(facts.host, sizeof facts.host);
    const void *all;
    unsigned ranks = harness->context.comm->size;
    enum cm_status status = cm_vote_gather(&harness->vote, &facts, sizeof facts, &all);
    if (status == CM_OK)
        cm_vote_note(&harness->vote, keep_nodes(harness, all, ranks));
    if (status == CM_OK && reporting(harness)) {
        cm_vote_note(&harness->vote, keep_hosts(harness, all, ranks));
        cm_vote_note(&harness->vote, keep_facts(harness, all, ranks));
    }
    return status;
}

struct rank_telemetry {
    struct cm_telemetry telemetry;
    bool idle;
};

/* Those that took part tell of their devices; the energy counts when all of them know it. */
static void keep_telemetry(struct cm_harness *harness, unsigned part,
                           const struct rank_telemetry *all)
{
    struct cm_case_run *run = &harness->run;
    const struct cm_samples *samples = &run->parts[part].slowest;
    double energy_j = 0, part_s = 0;
    for (size_t i = 0; i < samples->count; i++)
        part_s += samples->values[i];
    for (unsigned r = 0; r < run->rank_count; r++) {
        if (all[r].idle)
            continue;
        double before_s = harness->rank_measured_s[r];
        double all_s = harness->rank_measured_s[r] = before_s + part_s;
        cm_telemetry_merge(&run->telemetry[r], &all[r].telemetry,
                           all_s > 0 ? 1 - before_s / all_s : 1);
        energy_j += all[r].telemetry.energy_j;
    }
    if (energy_j > 0)
        run->parts[part].energy_j = energy_j;
}

enum cm_status cm_gather_telemetry(struct cm_harness *harness, unsigned part,
                                   const struct cm_telemetry *own)
{
    struct rank_telemetry seen;
    memset(&seen, 0, sizeof seen); /* it travels as bytes, padding included */
    seen.telemetry = own != NULL ? *own : cm_telemetry_unknown;
    seen.idle = harness->run.parts[part].part.idle;
    const void *all;
    enum cm_status status = cm_vote_gather(&harness->vote, &seen, sizeof seen, &all);
    if (status == CM_OK && harness->run.rank_count > 0)
        keep_telemetry(harness, part, all);
    return status;
}
