/* Who is to blame. */
#include "host/measure/culprit.h"

#include <math.h>
#include <string.h>

#include "host/measure/vote.h"

/* A failure is explained best by all who saw it: so long is waited for the others' words, in
 * silences. */
#define SETTLE 0.4
/* A rank that skipped two of its beats, of five in a silence, may be silent for good. */
#define QUIET 0.5
/* Ranks that fall silent together were heard of last within a beat of each other. Two beats after
 * the first one counts as silent, the others do too. */
#define TOGETHER 1.4

struct bench {
    const struct cm_watched *ranks;
    unsigned count;
    double silence_s, now_s;
};

/* Connected, and with nothing said that would explain a silence. */
static bool alive(const struct cm_watched *rank)
{
    return rank->joined && rank->loss == 0 && rank->word != CM_WORD_BYE;
}

static double silent_for(const struct bench *bench, unsigned rank)
{
    return alive(&bench->ranks[rank]) ? bench->now_s - bench->ranks[rank].heard_s : 0;
}

static double longest_silence(const struct bench *bench, unsigned *rank)
{
    double longest = 0;
    for (unsigned i = 0; i < bench->count; i++) {
        if (silent_for(bench, i) > longest) {
            longest = silent_for(bench, i);
            *rank = i;
        }
    }
    return longest;
}

static bool find_death(const struct bench *bench, struct cm_culprit *culprit)
{
    unsigned first = 0;
    for (unsigned i = 0; i < bench->count; i++) {
        const struct cm_watched *rank = &bench->ranks[i];
        if (rank->loss == 0 || rank->word != CM_WORD_NONE)
            continue;
        culprit->others += first > 0;
        if (first == 0 || rank->loss < first) {
            first = rank->loss;
            culprit->rank = i;
        }
    }
    culprit->fate = CM_FATE_DIED;
    return first > 0;
}

/* All who are not on the watcher's host fell silent, and there are several hosts of them: then it
 * is the watcher's that lost its link. */
static bool cut_off(const struct bench *bench)
{
    const struct cm_watched *first = NULL;
    bool several = false;
    for (unsigned i = 0; i < bench->count; i++) {
        const struct cm_watched *rank = &bench->ranks[i];
        if (!alive(rank))
            continue;
        if (rank->near != (silent_for(bench, i) < bench->silence_s))
            return false;
        if (rank->near)
            continue;
        several = several || (first != NULL && strcmp(first->host, rank->host) != 0);
        first = first != NULL ? first : rank;
    }
    return several;
}

/* The first that fell silent, or the lowest rank of its host when all there did. */
static void name_silent(const struct bench *bench, unsigned first, struct cm_culprit *culprit)
{
    unsigned lowest = first, here = 0;
    bool whole_host = true;
    culprit->fate = CM_FATE_SILENT;
    for (unsigned i = 0; i < bench->count; i++) {
        const struct cm_watched *rank = &bench->ranks[i];
        bool silent = silent_for(bench, i) >= bench->silence_s;
        if (!alive(rank) || strcmp(rank->host, bench->ranks[first].host) != 0)
            continue;
        whole_host = whole_host && silent;
        here += silent;
        lowest = silent && i < lowest ? i : lowest;
    }
    culprit->rank = whole_host ? lowest : first;
    culprit->others = here > 0 ? here - 1 : 0;
}

static bool find_silence(const struct bench *bench, struct cm_culprit *culprit)
{
    unsigned first = 0;
    culprit->for_s = longest_silence(bench, &first);
    if (culprit->for_s < TOGETHER * bench->silence_s)
        return false;
    if (cut_off(bench)) {
        culprit->fate = CM_FATE_CUT_OFF;
        for (unsigned i = bench->count; i-- > 0;)
            culprit->rank = bench->ranks[i].near && bench->ranks[i].joined ? i : culprit->rank;
        return true;
    }
    name_silent(bench, first, culprit);
    return true;
}

/* Whether `a` keeps `b` waiting: it is in an earlier phase, or in the same one has come to fewer
 * operations of all ranks. */
static bool behind(const struct cm_watched *a, const struct cm_watched *b)
{
    if (a->place.steps != b->place.steps)
        return a->place.steps < b->place.steps;
    return a->place.common < b->place.common;
}

/* Of two that have come equally far: who said that it waits is less likely the one that hangs, and
 * so is who moved later. */
static bool likelier(const struct cm_watched *a, const struct cm_watched *b)
{
    if ((a->word == CM_WORD_NONE) != (b->word == CM_WORD_NONE))
        return a->word == CM_WORD_NONE;
    return a->moved_s < b->moved_s;
}

/* The likeliest of those that no other is behind of. */
static bool find_behind(const struct bench *bench, struct cm_culprit *culprit)
{
    const struct cm_watched *last = NULL;
    for (unsigned i = 0; i < bench->count; i++) {
        const struct cm_watched *rank = &bench->ranks[i];
        if (!alive(rank) ||
            (last != NULL && !behind(rank, last) && (behind(last, rank) || !likelier(rank, last))))
            continue;
        last = rank;
        culprit->rank = i;
    }
    if (last == NULL)
        return false;
    for (unsigned i = 0; i < bench->count; i++) {
        const struct cm_watched *rank = &bench->ranks[i];
        culprit->others += alive(rank) && rank != last && !behind(last, rank) &&
                           (rank->word == CM_WORD_NONE) == (last->word == CM_WORD_NONE);
    }
    culprit->fate = CM_FATE_STALLED;
    culprit->for_s = bench->now_s - last->moved_s;
    return true;
}

/* Whether a rank is without progress for longer than another one was when it gave up waiting, and
 * still says nothing. */
static bool overdue(const struct bench *bench, const struct cm_watched *rank,
                    const struct cm_watched *other)
{
    return rank->word == CM_WORD_NONE &&
           bench->now_s - rank->moved_s > other->word_s - other->moved_s;
}

/* The first failure of the least doubt; one that only waited for others is no cause while some rank
 * is behind it, or hangs where it is. */
static bool find_failure(const struct bench *bench, struct cm_culprit *culprit)
{
    const struct cm_watched *first = NULL;
    double since_s = INFINITY;
    unsigned open = 0;
    for (unsigned i = 0; i < bench->count; i++) {
        const struct cm_watched *rank = &bench->ranks[i];
        open += alive(rank) && rank->word == CM_WORD_NONE;
        if (rank->word != CM_WORD_FAILED)
            continue;
        since_s = fmin(since_s, rank->word_s);
        int than = first != NULL ? cm_status_doubt(first->error.status) : 3;
        if (cm_status_doubt(rank->error.status) < than ||
            (cm_status_doubt(rank->error.status) == than && rank->word_s < first->word_s)) {
            first = rank;
            culprit->rank = i;
        }
    }
    if (first == NULL || (open > 0 && bench->now_s < since_s + SETTLE * bench->silence_s))
        return false;
    culprit->fate = CM_FATE_FAILED;
    struct cm_culprit late = {.fate = CM_FATE_FINE};
    if (cm_status_doubt(first->error.status) == 2 && find_behind(bench, &late) &&
        (behind(&bench->ranks[late.rank], first) ||
         overdue(bench, &bench->ranks[late.rank], first)))
        *culprit = late;
    return true;
}

static bool find_stall(const struct bench *bench, struct cm_culprit *culprit)
{
    bool stalled = false;
    for (unsigned i = 0; i < bench->count && !stalled; i++) {
        const struct cm_watched *rank = &bench->ranks[i];
        stalled = alive(rank) && bench->now_s - rank->moved_s > rank->place.allowed_s;
    }
    return stalled && find_behind(bench, culprit);
}

static bool find_end(const struct bench *bench, struct cm_culprit *culprit)
{
    unsigned open = 0, told = 0, joined = 0;
    double since_s = INFINITY;
    for (unsigned i = 0; i < bench->count; i++) {
        const struct cm_watched *rank = &bench->ranks[i];
        joined += rank->joined;
        open += alive(rank) && rank->word == CM_WORD_NONE;
        if (rank->word == CM_WORD_TOLD) {
            culprit->rank = told++ == 0 || rank->word_s < since_s ? i : culprit->rank;
            since_s = fmin(since_s, rank->word_s);
        }
    }
    if (told > 0 && (open == 0 || bench->now_s >= since_s + SETTLE * bench->silence_s)) {
        culprit->fate = open == 0 ? CM_FATE_ENDED : CM_FATE_TOLD;
        culprit->others = told - 1;
        return true;
    }
    culprit->fate = CM_FATE_OVER;
    return told == 0 && joined > 0 && open == 0;
}

struct cm_culprit cm_judge(const struct cm_watched *ranks, unsigned count, double silence_s,
                           double now_s)
{
    const struct bench bench = {
        .ranks = ranks, .count = count, .silence_s = silence_s, .now_s = now_s};
    struct cm_culprit culprit = {0};
    unsigned quiet;
    /* What is nearest to the cause comes first. */
    if (find_death(&bench, &culprit))
        return culprit;
    culprit = (struct cm_culprit){0};
    if (find_silence(&bench, &culprit))
        return culprit;
    /* Who may just be falling silent would explain what others complain of. */
    if (longest_silence(&bench, &quiet) > QUIET * silence_s)
        return (struct cm_culprit){0};
    bool (*const ways[])(const struct bench *, struct cm_culprit *) = {find_failure, find_stall,
                                                                       find_end};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        culprit = (struct cm_culprit){0};
        if (ways[i](&bench, &culprit))
            return culprit;
    }
    return (struct cm_culprit){0};
}

void cm_place_text(const struct cm_place *place, struct cm_str *out)
{
    const char *phase = strcmp(place->phase, "measure") == 0 ? "measurement" : place->phase;
    if (place->in_case)
        cm_str_addf(out, "in %s of %s", phase, place->name);
    else
        cm_str_addf(out, "while %s", phase[0] != '\0' ? phase : "starting");
    if (place->operation[0] != '\0')
        cm_str_addf(out, "; last communication %s", place->operation);
}

/* "rank 2 on node7 (NVIDIA H100 0000:1b:00.0)" */
static void add_name(const struct cm_watched *ranks, unsigned rank, bool hosts, struct cm_str *out)
{
    cm_str_addf(out, "rank %u", rank);
    if (hosts && ranks[rank].host[0] != '\0')
        cm_str_addf(out, " on %s", ranks[rank].host);
    if (ranks[rank].device[0] != '\0')
        cm_str_addf(out, " (%s)", ranks[rank].device);
}

static void add_others(const char *before, unsigned others, const char *after, struct cm_str *out)
{
    if (others > 0)
        cm_str_addf(out, "%s %u other%s%s", before, others, others > 1 ? "s" : "", after);
}

void cm_culprit_text(const struct cm_watched *ranks, const struct cm_culprit *culprit, bool hosts,
                     struct cm_str *out)
{
    const struct cm_watched *rank = &ranks[culprit->rank];
    if (culprit->fate == CM_FATE_ENDED) {
        cm_str_add(out, "interrupted: all ranks got a signal to end");
        return;
    }
    if (culprit->fate == CM_FATE_CUT_OFF && hosts && rank->host[0] != '\0')
        cm_str_addf(out, "%s, ", rank->host);
    if (culprit->fate == CM_FATE_CUT_OFF)
        cm_str_addf(out,
                    "the host of rank %u, was cut off: all other hosts fell silent at once, "
                    "%.1f s ago, ",
                    culprit->rank, culprit->for_s);
    else
        add_name(ranks, culprit->rank, hosts, out);
    switch (culprit->fate) {
    case CM_FATE_DIED:
        cm_str_add(out, " died ");
        break;
    case CM_FATE_SILENT:
        add_others(" and", culprit->others, " of this host", out);
        cm_str_addf(out, " gave no sign of life for %.1f s (stopped, or cut off) ", culprit->for_s);
        break;
    case CM_FATE_STALLED:
        add_others(" and", culprit->others, "", out);
        cm_str_addf(out, " made no progress for %.1f s ", culprit->for_s);
        break;
    case CM_FATE_TOLD:
        cm_str_add(out, " got a signal to end ");
        break;
    case CM_FATE_FAILED:
        cm_str_add(out, " failed ");
        break;
    default:
        break;
    }
    cm_place_text(&rank->place, out);
    if (culprit->fate == CM_FATE_FAILED)
        cm_str_addf(out, ": %s", rank->error.text);
}
