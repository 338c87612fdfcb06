/* What happened to a crew, in one line. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "clustermark/memory.h"
#include "clustermark/strbuf.h"
#include "host/measure/clock.h"
#include "host/measure/crew.h"
#include "host/measure/vote.h"

#define NAMED_RANKS_MAX 8

/* "in warm-up of gemm" */
static void add_place(const struct cm_crew *crew, const struct cm_peer *peer, struct cm_str *out)
{
    const char *phase = peer != NULL ? peer->phase : cm_crew_phase(crew);
    if (crew->case_name == NULL)
        cm_str_addf(out, " while %s", phase[0] != '\0' ? phase : "starting");
    else if (peer != NULL && peer->done)
        cm_str_addf(out, " after %s", crew->case_name);
    else if (phase[0] == '\0')
        cm_str_addf(out, " before setup of %s", crew->case_name);
    else
        cm_str_addf(out, " in %s of %s", strcmp(phase, "measure") == 0 ? "measurement" : phase,
                    crew->case_name);
}

/* ": killed by signal 9", from what its parent knows. */
static void add_end(const struct cm_process *process, bool launcher, struct cm_str *out)
{
    if (!process->exited)
        return;
    if (WIFSIGNALED(process->wait_status) && !launcher)
        cm_str_addf(out, ": killed by signal %d", WTERMSIG(process->wait_status));
    if (!WIFEXITED(process->wait_status))
        return;
    int code = WEXITSTATUS(process->wait_status);
    if (launcher && code > 128) /* how launchers pass a rank's signal on */
        cm_str_addf(out, ": killed by signal %d", code - 128);
    else if (code != 0)
        cm_str_addf(out, ": exit code %d", code);
}

static void add_output(const struct cm_crew *crew, struct cm_str *out)
{
    char line[200];
    if (crew->processes.tail == NULL)
        return;
    cm_useful_line(crew->processes.tail, line, sizeof line);
    if (line[0] != '\0')
        cm_str_addf(out, ": %s", line);
}

static const struct cm_peer *peer_of(const struct cm_crew *crew, unsigned rank)
{
    for (size_t i = 0; i < crew->peer_count; i++) {
        if (crew->peers[i].rank == (int)rank)
            return &crew->peers[i];
    }
    return NULL;
}

static bool died(const struct cm_peer *peer)
{
    return peer->rank >= 0 && peer->lost && peer->loss > 0 && !peer->told && !peer->bye &&
           peer->error.status == CM_OK;
}

/* Whether the launcher says which rank ended first: Open MPI does, in one way for a signal and in
 * another for an exit code. */
static bool launcher_names(const struct cm_crew *crew, unsigned *rank)
{
    const char *tail = crew->processes.tail, *words;
    if (tail == NULL)
        return false;
    words = strstr(tail, "noticed that process rank ");
    if (words != NULL)
        return sscanf(words, "noticed that process rank %u", rank) == 1;
    words = strstr(tail, "Process name: [[");
    return words != NULL && sscanf(words, "Process name: [[%*u,%*u],%u]", rank) == 1;
}

/* The rank that died first. Where two deaths were seen at once the launcher's words decide. */
static const struct cm_peer *first_death(const struct cm_crew *crew)
{
    const struct cm_peer *first = NULL;
    unsigned rank;
    if (launcher_names(crew, &rank)) {
        first = peer_of(crew, rank);
        if (first != NULL && died(first))
            return first;
        first = NULL;
    }
    for (size_t i = 0; i < crew->peer_count; i++) {
        const struct cm_peer *peer = &crew->peers[i];
        if (died(peer) && (first == NULL || peer->loss < first->loss))
            first = peer;
    }
    return first;
}

static bool explain_launcher(const struct cm_crew *crew, struct cm_str *out)
{
    const struct cm_process *process = crew->processes.items;
    if (!crew->processes.launcher || !process->exited || !WIFSIGNALED(process->wait_status))
        return false;
    cm_str_addf(out, "the launcher (mpirun) was killed by signal %d",
                WTERMSIG(process->wait_status));
    add_place(crew, NULL, out);
    return true;
}

/* A rank that ended before it joined; the launcher then ends those that had. */
static bool explain_early_end(const struct cm_crew *crew, struct cm_str *out)
{
    unsigned rank;
    if (!crew->processes.launcher || !launcher_names(crew, &rank) || rank >= crew->config.ranks ||
        peer_of(crew, rank) != NULL)
        return false;
    cm_str_addf(out, "rank %u ended before it joined", rank);
    add_end(crew->processes.items, true, out);
    add_output(crew, out);
    return true;
}

static bool explain_death(const struct cm_crew *crew, struct cm_str *out)
{
    const struct cm_peer *peer = first_death(crew);
    if (peer == NULL)
        return false;
    const struct cm_processes *processes = &crew->processes;
    cm_str_addf(out, "rank %d died", peer->rank);
    add_place(crew, peer, out);
    add_end(&processes->items[processes->launcher ? 0 : peer->rank], processes->launcher, out);
    add_output(crew, out);
    return true;
}

/* Ranks for which `is` holds (also asked with NULL: never connected), as "rank 1" or "ranks 1, 2".
 */
static unsigned add_ranks(const struct cm_crew *crew,
                          bool (*is)(const struct cm_crew *, const struct cm_peer *),
                          struct cm_str *out)
{
    unsigned count = 0;
    struct cm_str names = CM_STR_INIT;
    for (unsigned rank = 0; rank < crew->config.ranks; rank++) {
        if (!is(crew, peer_of(crew, rank)))
            continue;
        if (count < NAMED_RANKS_MAX)
            cm_str_addf(&names, "%s%u", count > 0 ? ", " : "", rank);
        count++;
    }
    if (count > 0)
        cm_str_addf(out, "rank%s %s", count > 1 ? "s" : "", cm_str_text(&names));
    if (count > NAMED_RANKS_MAX)
        cm_str_addf(out, " and %u more", count - NAMED_RANKS_MAX);
    cm_str_release(&names);
    return count;
}

static bool is_missing(const struct cm_crew *crew, const struct cm_peer *peer)
{
    (void)crew;
    return peer == NULL;
}

static bool explain_missing(const struct cm_crew *crew, struct cm_str *out)
{
    const struct cm_processes *processes = &crew->processes;
    struct cm_str ranks = CM_STR_INIT;
    unsigned missing = add_ranks(crew, is_missing, &ranks);
    if (missing > 0 && cm_processes_gone(processes)) {
        cm_str_addf(out, "%s ended before %s started",
                    processes->launcher ? "the launcher (mpirun)" : "the process",
                    cm_str_text(&ranks));
        add_end(processes->items, false, out);
        add_output(crew, out);
    } else if (missing > 0) {
        cm_str_addf(out, "%s did not start within %.0f s", cm_str_text(&ranks),
                    crew->config.start_timeout_s);
        add_output(crew, out);
    }
    cm_str_release(&ranks);
    return missing > 0;
}

static bool waited(const struct cm_crew *crew, const struct cm_peer *peer)
{
    (void)crew;
    return peer != NULL && peer->error.status != CM_OK && cm_status_doubt(peer->error.status) == 2;
}

/* Whose deadline passed knows more than who saw others go; of two alike the first does. */
static bool tells_more(const struct cm_peer *a, const struct cm_peer *b)
{
    bool late = a->error.status == CM_TIMEOUT;
    return late != (b->error.status == CM_TIMEOUT) ? late : a->failure < b->failure;
}

/* The first failure that is no more doubtful than that. Of those whose deadline passed, any may be
 * the one that hangs. */
static bool explain_error(const struct cm_crew *crew, int most_doubt, struct cm_str *out)
{
    const struct cm_peer *first = NULL;
    for (size_t i = 0; i < crew->peer_count; i++) {
        const struct cm_peer *peer = &crew->peers[i];
        if (peer->rank >= 0 && peer->error.status != CM_OK &&
            cm_status_doubt(peer->error.status) <= most_doubt &&
            (first == NULL || tells_more(peer, first)))
            first = peer;
    }
    if (first == NULL)
        return false;
    if (first->error.status == CM_TIMEOUT)
        add_ranks(crew, waited, out);
    else
        cm_str_addf(out, "rank %d", first->rank);
    cm_str_add(out, " failed");
    add_place(crew, first, out);
    cm_str_addf(out, ": %s", first->error.text);
    return true;
}

static bool is_silent(const struct cm_crew *crew, const struct cm_peer *peer)
{
    bool waits = peer != NULL && (crew->case_name != NULL ? peer->done : peer->ready);
    return peer != NULL && !peer->lost && !peer->told && !waits && peer->error.status == CM_OK;
}

/* Ranks meet at the end of each of these, so who is in an earlier one keeps the others waiting. */
static unsigned phase_number(const struct cm_peer *peer)
{
    static const char *const phases[] = {"binding to its cores",
                                         "opening the device",
                                         "joining the other ranks",
                                         "setup",
                                         "warm-up",
                                         "measure",
                                         "check"};
    unsigned number = 0;
    while (number < sizeof phases / sizeof *phases && strcmp(peer->phase, phases[number]) != 0)
        number++;
    return number;
}

static bool is_behind(const struct cm_crew *crew, const struct cm_peer *peer)
{
    if (!is_silent(crew, peer))
        return false;
    for (size_t i = 0; i < crew->peer_count; i++) {
        const struct cm_peer *other = &crew->peers[i];
        if (other->rank >= 0 && is_silent(crew, other) && phase_number(other) < phase_number(peer))
            return false;
    }
    return true;
}

/* 'T' for a process that a signal stopped, and so on; 0 when it cannot be read. */
static char process_state(pid_t pid)
{
    char path[40], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *name_end = strrchr(text, ')'); /* the name may hold anything */
    return name_end != NULL && name_end[1] == ' ' ? name_end[2] : 0;
}

static bool is_stopped(const struct cm_crew *crew, const struct cm_peer *peer)
{
    char state = is_silent(crew, peer) ? process_state(peer->pid) : 0;
    return state == 'T' || state == 't';
}

static bool explain_silence(const struct cm_crew *crew, struct cm_str *out)
{
    /* Where a process is stopped the others' silence is no wonder. */
    bool stopped = add_ranks(crew, is_stopped, out) > 0;
    if (!stopped && add_ranks(crew, is_behind, out) == 0)
        return false;
    const struct cm_peer *slowest = NULL;
    for (size_t i = 0; i < crew->peer_count; i++) {
        const struct cm_peer *peer = &crew->peers[i];
        bool named = stopped ? is_stopped(crew, peer) : is_behind(crew, peer);
        if (peer->rank >= 0 && named && (slowest == NULL || peer->heard_s < slowest->heard_s))
            slowest = peer;
    }
    if (slowest == NULL)
        return false;
    cm_str_addf(out, " gave no sign of life for %.1f s", cm_clock_s() - slowest->heard_s);
    add_place(crew, slowest, out);
    cm_str_addf(out, "%s; the deadline is %g s", stopped ? " (the process is stopped)" : "",
                crew->deadline_s);
    return true;
}

static bool is_told(const struct cm_crew *crew, const struct cm_peer *peer)
{
    (void)crew;
    return peer != NULL && peer->told;
}

static bool explain_told(const struct cm_crew *crew, struct cm_str *out)
{
    if (add_ranks(crew, is_told, out) == 0)
        return false;
    cm_str_add(out, " got a signal to end");
    add_place(crew, NULL, out);
    return true;
}

void cm_crew_explain(struct cm_crew *crew)
{
    struct cm_str out = CM_STR_INIT;
    /* What is nearest to the cause comes first. */
    if (!explain_launcher(crew, &out) && !explain_early_end(crew, &out) &&
        !explain_death(crew, &out) && !explain_error(crew, 0, &out) &&
        !explain_missing(crew, &out) && !explain_error(crew, 1, &out) &&
        !explain_silence(crew, &out) && !explain_error(crew, 2, &out) &&
        !explain_told(crew, &out)) {
        cm_str_add(&out, "the ranks ended");
        add_place(crew, NULL, &out);
        add_output(crew, &out);
    }
    snprintf(crew->reason, sizeof crew->reason, "%s", cm_str_text(&out));
    cm_str_release(&out);
}
