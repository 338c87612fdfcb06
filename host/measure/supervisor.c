/*
 * The supervisor: for each run, for each section, a fresh crew of ranks measures the section's
 * cases. Runs are the outer loop, so that a budget cuts all cases evenly and slow drift of the
 * machine spreads over them.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/measure/bind.h"
#include "host/measure/budget.h"
#include "host/measure/clock.h"
#include "host/measure/crew.h"
#include "host/measure/progress.h"

#define LEAST_START_S 60.0 /* a slow file system or a busy machine must not look like a failure */
#define PATH_BYTES    4096

struct supervisor {
    const struct cm_plan *plan;
    const struct cm_run_request *request;
    struct cm_sink *sink;
    unsigned ranks;
    char program[PATH_BYTES];
    struct cm_watch watch;
    struct cm_budget budget;
    struct cm_progress progress;
    struct cm_crew crew;
    bool crew_runs;
    uint64_t run;
    size_t index;           /* the case at hand */
    size_t finished, total; /* case runs */
    uint64_t *recorded;     /* per case: runs that the sink got */
    unsigned devices;       /* that the ranks have, or share; 0: the host */
    char **bus_ids;         /* of the ranks' devices; NULL where they are not known */
    bool topology_told;
    struct cm_str warnings; /* of ranks, passed on */
    double start_s;         /* what the crew's start took */
    unsigned starts_failed; /* in a row */
};

/* The process's signals as they were. */
struct saved_signals {
    sigset_t mask;
    struct sigaction child, pipe;
};

static enum cm_status take_signals(struct cm_watch *watch, struct saved_signals *saved)
{
    struct sigaction hangup;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    /* nohup: the terminal's end is no reason to stop */
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaddset(&set, SIGHUP);
    watch->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (watch->signals < 0)
        return cm_error_errno(CM_SYSTEM, "cannot follow signals: signalfd");
    pthread_sigmask(SIG_BLOCK, &set, &saved->mask);
    /* An inherited "ignore" would take the children's exit states away. */
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, &saved->child);
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, &saved->pipe);
    return CM_OK;
}

/* Signals that wait are swallowed: whoever pressed Ctrl-C twice meant this run, which is over, and
 * not what is done with its results. */
static void give_signals_back(struct cm_watch *watch, const struct saved_signals *saved)
{
    struct signalfd_siginfo info;
    while (read(watch->signals, &info, sizeof info) > 0)
        continue;
    close(watch->signals);
    sigaction(SIGCHLD, &saved->child, NULL);
    sigaction(SIGPIPE, &saved->pipe, NULL);
    pthread_sigmask(SIG_SETMASK, &saved->mask, NULL);
}

static struct cm_budget_place place_of(const struct supervisor *super)
{
    return (struct cm_budget_place){
        .run = super->run, .index = super->index, .launch = !super->crew_runs};
}

static void draw(void *arg, double now_s)
{
    struct supervisor *super = arg;
    if (super->crew.ending) /* between two sections */
        return;
    const char *phase = super->crew_runs ? cm_crew_phase(&super->crew) : "starting";
    struct cm_progress_state state = {
        .finished = super->finished,
        .total = super->total,
        .run = super->run + 1,
        .runs = super->plan->runs,
        .name = super->plan->cases[super->index].name,
        .phase = phase,
        .left_s = cm_budget_left(&super->budget, place_of(super), now_s),
    };
    cm_progress_draw(&super->progress, &state, now_s, false);
}

static enum cm_status record(struct supervisor *super, const struct cm_case_run *run)
{
    super->recorded[run->case_index]++;
    super->finished++;
    return super->sink->done(super->sink->impl, super->plan, run);
}

/* A case run that gave no figures. */
static enum cm_status record_without(struct supervisor *super, size_t index,
                                     enum cm_case_status status, const char *reason)
{
    struct cm_case_run run = {.case_index = index,
                              .run = super->run,
                              .status = status,
                              .started_unix_s = cm_clock_unix_s()};
    snprintf(run.reason, sizeof run.reason, "%s", reason);
    return record(super, &run);
}

/* No time for this case in this run: nothing to say when it has runs already. */
static enum cm_status cut(struct supervisor *super, size_t index, const char *when)
{
    char reason[160], text[CM_UNITS_TEXT_MAX];
    if (super->recorded[index] > 0) {
        super->finished++;
        return CM_OK;
    }
    snprintf(reason, sizeof reason, "no time left in the budget of %s%s",
             cm_format_time(super->request->budget_s, text), when);
    return record_without(super, index, CM_CASE_SKIPPED, reason);
}

static bool has_run(const struct supervisor *super, size_t index)
{
    return super->plan->cases[index].settings.runs > super->run;
}

/* What ranks warn of, each line once: every crew finds the same. */
static void pass_warnings(struct supervisor *super)
{
    static const char begin[] = "clustermark: warning: ";
    cm_processes_drain(&super->crew.processes);
    const char *line = super->crew.processes.tail;
    for (size_t length; line != NULL && *line != '\0'; line += length) {
        char text[CM_ERROR_TEXT_MAX];
        length = strcspn(line, "\n");
        length += line[length] == '\n';
        if (strncmp(line, begin, sizeof begin - 1) != 0 || length >= sizeof text)
            continue;
        snprintf(text, sizeof text, "%.*s", (int)length, line);
        if (strstr(cm_str_text(&super->warnings), text) != NULL)
            continue;
        cm_str_add(&super->warnings, text);
        cm_progress_clear(&super->progress);
        fputs(text, stderr);
    }
}

static void dismiss(struct supervisor *super)
{
    pass_warnings(super);
    cm_crew_kill(&super->crew);
    super->crew_runs = false;
}

static enum cm_status tell_topology(struct supervisor *super)
{
    const struct cm_sink *sink = super->sink;
    if (super->crew.topology == NULL || super->topology_told || sink->topology == NULL)
        return CM_OK;
    super->topology_told = true;
    return sink->topology(sink->impl, super->crew.topology);
}

static enum cm_status start_crew(struct supervisor *super)
{
    double timeout = super->plan->cases[super->index].settings.timeout_s;
    struct cm_crew_config config = {.device = super->request->device,
                                    .program = super->program,
                                    .ranks = super->ranks,
                                    .run = super->run,
                                    .start_timeout_s = fmax(timeout, LEAST_START_S),
                                    .devices = super->devices,
                                    .bus_ids = super->bus_ids};
    double begin = cm_clock_s();
    enum cm_status status = cm_crew_start(&config, &super->watch, &super->crew);
    if (status == CM_OK) {
        super->crew_runs = true;
        super->starts_failed = 0;
        super->start_s = cm_clock_s() - begin;
        status = tell_topology(super);
    }
    return status;
}

/* A crew that could not start takes the case that it was started for with it. A second in a row
 * takes the whole section: the next case would fare no better. */
static enum cm_status start_failed(struct supervisor *super, size_t *last)
{
    char reason[sizeof super->crew.reason];
    enum cm_status status = CM_OK;
    snprintf(reason, sizeof reason, "%s", super->crew.reason);
    dismiss(super);
    super->starts_failed++;
    size_t end = super->starts_failed > 1 ? *last : super->index + 1;
    for (size_t i = super->index; i < end && status == CM_OK; i++) {
        if (has_run(super, i))
            status = record_without(super, i, CM_CASE_FAILED, reason);
    }
    super->index = end;
    return status;
}

/* One case by the crew that runs. CM_TIMEOUT: the budget's end came. */
static enum cm_status measure(struct supervisor *super, double limit_s)
{
    struct cm_case_run run;
    double begin = cm_clock_s();
    enum cm_status status = cm_crew_measure(&super->crew, super->plan, super->index, limit_s, &run);
    if (status == CM_LOST) {
        status = record_without(super, super->index, CM_CASE_FAILED, super->crew.reason);
        dismiss(super);
        return status;
    }
    if (status != CM_OK)
        return status;
    /* Recorded before anything else can go wrong. */
    status = record(super, &run);
    cm_case_run_release(&run);
    if (status != CM_OK)
        return status;
    status = cm_crew_settle(&super->crew);
    cm_budget_ran(&super->budget, super->index, cm_clock_s() - begin, limit_s);
    if (status == CM_LOST) {
        cm_progress_clear(&super->progress);
        cm_warn("%s; its result is kept", super->crew.reason);
        dismiss(super);
        status = CM_OK;
    }
    return status;
}

/* The case at hand, with a crew if need be; moves on to the next. */
static enum cm_status one_case(struct supervisor *super, size_t *last)
{
    double limit_s;
    enum cm_status status = CM_OK;
    size_t index = super->index;
    uint64_t recorded = super->recorded[index];
    if (!has_run(super, index)) {
        super->index++;
        return CM_OK;
    }
    bool granted = cm_budget_grant(&super->budget, place_of(super), cm_clock_s(), &limit_s);
    if (granted && !super->crew_runs) {
        status = start_crew(super);
        if (status == CM_LOST)
            return start_failed(super, last);
        if (status == CM_OK) /* the start took time */
            granted = cm_budget_grant(&super->budget, place_of(super), cm_clock_s(), &limit_s);
    }
    if (status == CM_OK)
        status = granted ? measure(super, limit_s) : cut(super, index, "");
    if (status == CM_TIMEOUT) {
        char when[64], phase[24];
        snprintf(phase, sizeof phase, "%s", cm_crew_phase(&super->crew));
        snprintf(when, sizeof when, "%s%s", phase[0] != '\0' ? ": it ended during " : "", phase);
        dismiss(super);
        status = super->recorded[index] == recorded ? cut(super, index, when) : CM_OK;
    }
    super->index = index + 1;
    return status;
}

/* The cases [first, *last) of this run. */
static enum cm_status run_section(struct supervisor *super, size_t first, size_t last)
{
    enum cm_status status = CM_OK;
    super->index = first;
    super->starts_failed = 0;
    while (super->index < last && status == CM_OK)
        status = one_case(super, &last);
    super->index = last - 1;
    if (status == CM_OK && super->crew_runs) {
        double begin = cm_clock_s();
        status = cm_crew_end(&super->crew);
        cm_budget_launched(&super->budget, super->start_s + cm_clock_s() - begin);
        if (status == CM_LOST) {
            cm_progress_clear(&super->progress);
            cm_warn("%s; their results are kept", super->crew.reason);
        }
        if (status == CM_LOST || status == CM_TIMEOUT) /* everything is recorded */
            status = CM_OK;
    }
    dismiss(super);
    return status;
}

static enum cm_status run_all(struct supervisor *super)
{
    const struct cm_plan *plan = super->plan;
    enum cm_status status = CM_OK;
    for (super->run = 0; super->run < plan->runs && status == CM_OK; super->run++) {
        for (size_t first = 0, last; first < plan->count && status == CM_OK; first = last) {
            last = first + 1;
            while (last < plan->count &&
                   strcmp(plan->cases[last].section, plan->cases[first].section) == 0)
                last++;
            status = run_section(super, first, last);
        }
    }
    return status;
}

/* The program that ranks run: this one. */
static enum cm_status find_program(const struct cm_run_request *request, char *program)
{
    if (request->program != NULL) {
        if (snprintf(program, PATH_BYTES, "%s", request->program) >= PATH_BYTES)
            return cm_error(CM_USAGE, "the program's path is too long");
        return CM_OK;
    }
    ssize_t length = readlink("/proc/self/exe", program, PATH_BYTES - 1);
    if (length < 0)
        return cm_error_errno(CM_SYSTEM, "cannot find this program: /proc/self/exe");
    program[length] = '\0';
    return CM_OK;
}

static size_t count_case_runs(const struct cm_plan *plan)
{
    size_t total = 0;
    for (size_t i = 0; i < plan->count; i++)
        total += (size_t)plan->cases[i].settings.runs;
    return total;
}

static enum cm_status prepare(struct supervisor *super)
{
    const struct cm_run_request *request = super->request;
    double now = cm_clock_s();
    super->ranks = request->ranks;
    if (super->ranks == 0) {
        enum cm_status status = cm_request_ranks(request, &super->ranks);
        if (status != CM_OK)
            return status;
    }
    enum cm_status status = find_program(request, super->program);
    if (status == CM_OK)
        status = cm_budget_make(super->plan, request->budget_s, now, &super->budget);
    if (status != CM_OK)
        return status;
    super->recorded = cm_alloc(super->plan->count, sizeof *super->recorded);
    if (super->recorded == NULL)
        return CM_NO_MEMORY;
    super->devices = cm_request_devices(request);
    super->bus_ids = cm_bus_ids_locate(request->device, super->devices, super->ranks);
    super->watch.hard_stop_s = super->budget.end_s;
    super->total = count_case_runs(super->plan);
    cm_progress_open(&super->progress, request->progress, STDERR_FILENO);
    if (super->progress.fd >= 0) {
        super->watch.tick = draw;
        super->watch.tick_arg = super;
    }
    return CM_OK;
}

enum cm_status cm_supervise(const struct cm_plan *plan, const struct cm_run_request *request,
                            struct cm_sink *sink)
{
    struct saved_signals saved;
    struct supervisor super = {.plan = plan,
                               .request = request,
                               .sink = sink,
                               .watch = {.signals = -1},
                               .progress = {.fd = -1},
                               .warnings = CM_STR_INIT,
                               .crew = {.listener = {.fd = -1}, .processes = {.output = -1}}};
    enum cm_status status = prepare(&super);
    if (status != CM_OK)
        goto release_budget;
    status = take_signals(&super.watch, &saved);
    if (status != CM_OK)
        goto release_budget;
    status = run_all(&super);
    cm_progress_clear(&super.progress);
    give_signals_back(&super.watch, &saved);

release_budget:
    cm_bus_ids_free(super.bus_ids, super.ranks);
    cm_str_release(&super.warnings);
    cm_free(super.recorded);
    cm_budget_release(&super.budget);
    return status;
}
