/* Whether the ranks are one world. Texts of other ranks may lack their end: they are read by size.
 */
#include "host/measure/world_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/memory.h"
#include "clustermark/strbuf.h"
#include "clustermark/version.h"
#include "host/measure/host.h"

#define VALUE_MAX  160
#define GROUPS_MAX 3 /* that a message tells apart */
#define RANGES_MAX 6 /* of one group */

/* ---- what a rank is ---- */

static uint64_t hash_plan(const struct cm_plan *plan)
{
    struct cm_str text = CM_STR_INIT;
    for (size_t i = 0; i < plan->count; i++) {
        const struct cm_case *item = &plan->cases[i];
        cm_str_addf(&text, "[%s]\n%s\n", item->name, item->workload->name);
        cm_option_write_all(item->workload->options, item->params, "\n", &text);
        cm_str_add(&text, "\n");
        cm_option_write_all(cm_run_options, &item->settings, "\n", &text);
    }
    uint64_t hash = cm_hash(plan->seed, cm_str_text(&text), text.length);
    cm_str_release(&text);
    return hash;
}

#define COPY(to, from) snprintf(to, sizeof(to), "%.*s", (int)sizeof(to) - 1, from)

void cm_world_describe(const struct cm_plan *plan, const struct cm_world *world,
                       const struct cm_device *device, const struct cm_comm *comm,
                       struct cm_world_record *record)
{
    const struct cm_device_info *info = &device->info;
    *record = (struct cm_world_record){.layout = CM_WORLD_LAYOUT,
                                       .rank = world->rank,
                                       .size = world->size,
                                       .local_rank = world->local_rank,
                                       .local_size = world->local_size,
                                       .cases = (uint32_t)plan->count,
                                       .host = cm_host_id(),
                                       .plan = hash_plan(plan)};
    COPY(record->version, cm_version_text());
    COPY(record->suite, plan->suite_name);
    if (comm != NULL)
        COPY(record->comm, comm->implementation);
    COPY(record->software, info->software);
    COPY(record->device, info->name);
    COPY(record->bus_id, info->bus_id);
    COPY(record->uuid, info->uuid);
    cm_host_name(record->host_name, sizeof record->host_name);
}

/* ---- fields that must be the same on all ranks ---- */

static void write_version(const struct cm_world_record *record, char *text)
{
    snprintf(text, VALUE_MAX, "clustermark %.39s", record->version);
    if (record->layout != CM_WORLD_LAYOUT)
        snprintf(text, VALUE_MAX, "clustermark %.39s (record %u)", record->version, record->layout);
}

static void write_size(const struct cm_world_record *record, char *text)
{
    snprintf(text, VALUE_MAX, "a world of %u", record->size);
}

static void write_plan(const struct cm_world_record *record, char *text)
{
    char hash[CM_HASH_TEXT_MAX];
    snprintf(text, VALUE_MAX, "%.39s, %u case%s (%s)", record->suite, record->cases,
             record->cases == 1 ? "" : "s", cm_hash_text(record->plan, hash));
}

static void write_comm(const struct cm_world_record *record, char *text)
{
    snprintf(text, VALUE_MAX, "%.63s", record->comm);
}

static void write_software(const struct cm_world_record *record, char *text)
{
    snprintf(text, VALUE_MAX, "%.95s", record->software[0] != '\0' ? record->software : "none");
}

/* In this order: what follows has a meaning only where the earlier ones are equal. */
static const struct field {
    void (*write)(const struct cm_world_record *record, char *text);
    const char *differs, *remedy;
} fields[] = {
    {write_version, "the ranks run different programs", "install one version on every node"},
    {write_size, "the ranks were told different worlds", "one launcher must start all of them"},
    {write_plan, "the ranks run different suites or settings",
     "give all ranks the same suite file and command line"},
    {write_comm, "the ranks use different communication libraries",
     "install one version on every node"},
    {write_software, "the ranks compute with different libraries",
     "install one version on every node"},
};

/* "3, 8-15": the ranks of a group. */
static void write_ranks(const unsigned *group_of, unsigned count, unsigned group,
                        struct cm_str *out)
{
    unsigned ranges = 0;
    for (unsigned rank = 0; rank < count; rank++) {
        if (group_of[rank] != group)
            continue;
        unsigned last = rank;
        while (last + 1 < count && group_of[last + 1] == group)
            last++;
        if (ranges++ == RANGES_MAX) {
            cm_str_add(out, " ...");
            return;
        }
        cm_str_addf(out, ranges > 1 ? ", %u" : "%u", rank);
        if (last > rank)
            cm_str_addf(out, "-%u", last);
        rank = last;
    }
}

/* " on node07" where a group is on one machine. */
static void write_host(const struct cm_world_record *records, const unsigned *group_of,
                       unsigned count, unsigned group, struct cm_str *out)
{
    const struct cm_world_record *first = NULL;
    for (unsigned rank = 0; rank < count; rank++) {
        if (group_of[rank] != group)
            continue;
        if (first != NULL && first->host != records[rank].host)
            return;
        first = first == NULL ? &records[rank] : first;
    }
    if (first != NULL && first->layout == CM_WORLD_LAYOUT)
        cm_str_addf(out, " on %.63s", first->host_name);
}

struct groups {
    unsigned *of;                            /* per rank; GROUPS_MAX: one more kind */
    unsigned sizes[GROUPS_MAX + 1], largest; /* `largest` of those that are told apart */
    char values[GROUPS_MAX][VALUE_MAX];
    unsigned count;
};

static void find_groups(const struct cm_world_record *records, unsigned count,
                        const struct field *field, struct groups *groups)
{
    groups->count = groups->largest = 0;
    memset(groups->sizes, 0, sizeof groups->sizes);
    for (unsigned rank = 0; rank < count; rank++) {
        char value[VALUE_MAX];
        unsigned at = 0;
        field->write(&records[rank], value);
        while (at < groups->count && strcmp(groups->values[at], value) != 0)
            at++;
        if (at == groups->count && at < GROUPS_MAX)
            memcpy(groups->values[groups->count++], value, VALUE_MAX);
        groups->of[rank] = at;
        groups->sizes[at]++;
    }
    for (unsigned i = 0; i < groups->count; i++)
        if (groups->sizes[i] > groups->sizes[groups->largest])
            groups->largest = i;
}

static enum cm_status complain(const struct cm_world_record *records, unsigned count,
                               const struct field *field, const struct groups *groups)
{
    struct cm_str text = CM_STR_INIT;
    for (unsigned i = 0; i < groups->count; i++) {
        if (i == groups->largest)
            continue;
        cm_str_addf(&text, "rank%s ", groups->sizes[i] == 1 ? "" : "s");
        write_ranks(groups->of, count, i, &text);
        write_host(records, groups->of, count, i, &text);
        cm_str_addf(&text, ": %s; ", groups->values[i]);
    }
    if (groups->sizes[GROUPS_MAX] > 0)
        cm_str_addf(&text, "%u more have others yet; ", groups->sizes[GROUPS_MAX]);
    cm_str_addf(&text, "the other %u: %s", groups->sizes[groups->largest],
                groups->values[groups->largest]);
    enum cm_status status =
        cm_error(CM_USAGE, "%s: %.380s; %s", field->differs, cm_str_text(&text), field->remedy);
    cm_str_release(&text);
    return status;
}

/* ---- devices ---- */

/* A MIG instance has a name of its own, so instances of one GPU are several devices. */
static uint64_t device_key(const struct cm_world_record *record)
{
    if (record->uuid[0] != '\0')
        return cm_hash(1, record->uuid, strnlen(record->uuid, sizeof record->uuid));
    if (record->bus_id[0] != '\0')
        return cm_hash(record->host, record->bus_id,
                       strnlen(record->bus_id, sizeof record->bus_id));
    return 0;
}

struct owner {
    uint64_t key;
    unsigned rank;
};

static int compare_owners(const void *a, const void *b)
{
    const struct owner *one = a, *other = b;
    if (one->key != other->key)
        return one->key < other->key ? -1 : 1;
    return one->rank < other->rank ? -1 : 1;
}

static enum cm_status distinct_devices(const struct cm_world_record *records, unsigned count)
{
    struct owner *owners = cm_alloc(count, sizeof *owners);
    if (owners == NULL)
        return CM_NO_MEMORY;
    const struct owner *first = NULL, *second = NULL;
    unsigned more = 0;
    for (unsigned rank = 0; rank < count; rank++)
        owners[rank] = (struct owner){device_key(&records[rank]), rank};
    qsort(owners, count, sizeof *owners, compare_owners);
    for (unsigned i = 1; i < count; i++) {
        if (owners[i].key == 0 || owners[i].key != owners[i - 1].key)
            continue;
        more += second != NULL;
        if (second == NULL || owners[i - 1].rank < first->rank) {
            first = &owners[i - 1];
            second = &owners[i];
        }
    }
    enum cm_status status = CM_OK;
    if (second != NULL) {
        const struct cm_world_record *record = &records[first->rank];
        char others[48] = "";
        if (more > 0)
            snprintf(others, sizeof others, " (and %u more rank%s)", more, more == 1 ? "" : "s");
        status = cm_error(CM_USAGE,
                          "ranks %u and %u have one device between them, %.79s %.23s on %.63s%s; "
                          "start as many ranks on a node as it has devices, and let each see its "
                          "own (CUDA_VISIBLE_DEVICES)",
                          first->rank, second->rank, record->device, record->bus_id,
                          record->host_name, others);
    }
    cm_free(owners);
    return status;
}

/* ---- the whole ---- */

static enum cm_status right_places(const struct cm_world_record *records, unsigned count)
{
    for (unsigned rank = 0; rank < count; rank++) {
        if (records[rank].size != count)
            return cm_error(CM_USAGE,
                            "the launcher told a world of %u ranks, but %u are here; one launcher "
                            "must start all of them",
                            records[rank].size, count);
        if (records[rank].rank != rank)
            return cm_error(CM_USAGE,
                            "a rank on %.63s was told that it is number %u, but it is number %u; "
                            "two launchers may be nested",
                            records[rank].host_name, records[rank].rank, rank);
    }
    return CM_OK;
}

enum cm_status cm_world_compare(const struct cm_world_record *records, unsigned count)
{
    struct groups *groups = cm_alloc(1, sizeof *groups);
    enum cm_status status = groups != NULL ? CM_OK : CM_NO_MEMORY;
    if (status == CM_OK)
        groups->of = cm_alloc(count, sizeof *groups->of);
    if (status == CM_OK && groups->of == NULL)
        status = CM_NO_MEMORY;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0] && status == CM_OK; i++) {
        find_groups(records, count, &fields[i], groups);
        if (groups->count > 1)
            status = complain(records, count, &fields[i], groups);
    }
    if (groups != NULL)
        cm_free(groups->of);
    cm_free(groups);
    if (status == CM_OK)
        status = right_places(records, count);
    return status == CM_OK ? distinct_devices(records, count) : status;
}

enum cm_status cm_world_check(const struct cm_exchange *exchange, const struct cm_world_record *own,
                              struct cm_world_record *records)
{
    enum cm_status status = cm_exchange_gather(exchange, own, sizeof *own, records);
    if (status != CM_OK)
        return cm_error_at(status, "the ranks do not hear from each other: ");
    return cm_world_compare(records, exchange->comm->size);
}
