/* clustermark run: from a suite to a result file and a report. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "clustermark/suite.h"
#include "clustermark/topology.h"
#include "clustermark/units.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"
#include "host/cli/run_args.h"
#include "host/cli/run_cluster.h"
#include "host/cli/run_sim.h"
#include "host/cli/suites.h"

#define DEFAULT_WAIT_S 60.0

/* Everything one run holds; released in one place. */
struct session {
    struct cm_run_args args;
    struct cm_words operands;
    int argc;
    char **argv;
    struct cm_world world;
    bool inside;  /* an outside launcher started this process as a rank */
    bool of_node; /* what is wrong may be wrong on this node alone: its first rank tells it */
    bool agreed;  /* all ranks know of the failure: rank 0 tells it */
    struct cm_suite suite;
    struct cm_plan plan;
    struct cm_topology topology;
    bool topology_known;
    struct cm_run_request request;
    struct cm_machine machine; /* of a virtual clock */
    unsigned ranks;
    struct cm_result *result; /* rank 0 only */
    size_t added;             /* runs of cases in the result */
    char *library_topology;   /* the machine as the communication library sees it */
    bool out_of_budget;
    bool resumed; /* a rank was lost, the user knows, and this is the process that was left */
};

/* Nothing is measured: a virtual clock answers. */
static bool is_simulation(const struct cm_run_args *args)
{
    return args->device != NULL && strcmp(args->device, cm_device_sim.name) == 0;
}

static enum cm_status choose_device(const char *name, const struct cm_device_ops **device)
{
    struct cm_device_probe probe = {.count = 0};
    if (name == NULL) {
        *device = cm_device_default();
        return CM_OK;
    }
    const struct cm_device_ops *ops = cm_device_find(name);
    for (const struct cm_device_row *row = cm_device_rows; ops == NULL && row->name != NULL;
         row++) {
        if (strcmp(row->name, name) == 0)
            return cm_error(CM_NO_DEVICE, "no %s device: %s", name, cm_device_missing(name));
    }
    if (ops == NULL)
        return cm_error(CM_USAGE, "--device: unknown device '%.40s'; cuda, cpu or sim", name);
    enum cm_status status = cm_device_ask(ops, &probe);
    if (status != CM_OK)
        return status;
    if (probe.count == 0)
        return cm_error(CM_NO_DEVICE, "no %s device here: %s", name, probe.reason);
    *device = ops;
    return CM_OK;
}

static enum cm_status load_plan(struct session *session)
{
    const struct cm_run_args *args = &session->args;
    const char *name = session->operands.count > 0 ? session->operands.items[0] : "quick";
    char *path = NULL;
    enum cm_status status = cm_suite_find(name, &path);
    if (status == CM_OK)
        status = cm_suite_load(path, &session->suite);
    cm_free(path);
    for (size_t i = 0; status == CM_OK && i < args->set.count; i++)
        status = cm_suite_set(&session->suite, args->set.items[i]);
    if (status == CM_OK)
        status = cm_plan_build(&session->suite, args->only, is_simulation(args) ? 1 : args->runs,
                               &session->plan);
    return status;
}

/* How many ranks there are is the launcher's word inside a world, else the request's. */
static enum cm_status settle_ranks(struct session *session)
{
    struct cm_run_request *request = &session->request;
    if (is_simulation(&session->args)) {
        session->ranks = request->ranks;
        return CM_OK;
    }
    request->ranks = (unsigned)session->args.ranks;
    request->simulate = session->args.simulate;
    if (!session->inside)
        return cm_request_ranks(request, &session->ranks);
    if (request->ranks != 0 && request->ranks != session->world.size)
        return cm_error(CM_USAGE,
                        "--ranks %u, but %s started %u; leave --ranks out or make them agree",
                        request->ranks, session->world.launcher, session->world.size);
    session->ranks = request->ranks = session->world.size;
    enum cm_status status = cm_world_reach(request->device, &session->world);
    session->of_node = status != CM_OK;
    return status;
}

static void look_at_machine(struct session *session)
{
    struct cm_binding binding;
    enum cm_status status = cm_topology_live(&session->topology);
    session->topology_known = status == CM_OK;
    if (status != CM_OK) {
        cm_warn("the machine's topology is not known: %s", cm_error_text());
        return;
    }
    if (!session->inside && session->request.device->is_host &&
        cm_binding_plan(&session->topology, NULL, 0, session->ranks, &binding) == CM_OK &&
        binding.oversubscribed && !session->args.quiet)
        cm_warn(
            "%u ranks share fewer cores (oversubscribed): what is shorter than a turn on a core "
            "is timed as if alone, so that sums over ranks can be more than this machine does",
            session->ranks);
}

/* In place of a run: the cases whose workload can tell beforehand what a rank does. */
static enum cm_status explain(const struct session *session)
{
    struct cm_str out = CM_STR_INIT;
    uint64_t rank = 0;
    bool any = false;
    enum cm_status status = CM_OK;
    if (is_simulation(&session->args))
        return session->args.explain[0] == '\0'
                   ? cm_sim_explain(&session->plan, &session->request)
                   : cm_error(CM_USAGE, "--device sim tells of all stages: write --explain");
    if (session->args.explain[0] != '\0')
        status = cm_parse_count(session->args.explain, &rank);
    if (status != CM_OK || rank > UINT32_MAX)
        return cm_error(CM_USAGE, "--explain: \"%.40s\" is no rank; --explain=0",
                        session->args.explain);
    for (size_t i = 0; i < session->plan.count && status == CM_OK; i++) {
        const struct cm_case *item = &session->plan.cases[i];
        if (item->workload->explain == NULL)
            continue;
        any = true;
        cm_str_addf(&out, "%s\n", item->name);
        status = item->workload->explain(item->params, session->ranks, (unsigned)rank, &out);
    }
    if (status == CM_OK && !any)
        status = cm_error(CM_USAGE, "--explain: the suite has no case of trainstep");
    if (status == CM_OK)
        status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status;
}

static enum cm_status open_result(struct session *session)
{
    bool sim = is_simulation(&session->args);
    unsigned devices = sim ? 0 : cm_request_devices(&session->request);
    struct cm_result_options options = {
        .path = session->args.output,
        .show_hosts = session->args.show_hosts,
        .topology = session->topology_known ? &session->topology : NULL,
        .device = session->request.device,
        .ranks = session->ranks,
        .placement = session->args.cloud,
        .fresh_processes = !session->inside,
        .launcher = session->world.launcher,
        .simulated = !session->inside && devices > 0 && session->ranks > devices,
        .argc = session->argc,
        .argv = session->argv,
    };
    return cm_result_create(&session->plan, &options, &session->result);
}

static enum cm_status case_done(void *impl, const struct cm_plan *plan,
                                const struct cm_case_run *run)
{
    struct session *session = impl;
    enum cm_status status = cm_result_add(session->result, plan, run);
    if (status == CM_OK)
        session->added++;
    if (run->status == CM_CASE_SKIPPED && strstr(run->reason, "budget") != NULL)
        session->out_of_budget = true;
    return status;
}

static enum cm_status take_topology(void *impl, const char *text)
{
    struct session *session = impl;
    session->library_topology = cm_strdup(text);
    return session->library_topology != NULL ? CM_OK : CM_NO_MEMORY;
}

/* A rank was lost; what was recorded goes on in this process. */
static enum cm_status resume(void *impl)
{
    struct session *session = impl;
    session->resumed = true;
    return cm_result_resume(session->result, &session->added);
}

static bool has_run(void *impl, size_t case_index, uint64_t run)
{
    const struct session *session = impl;
    return cm_result_has(session->result, case_index, run);
}

static enum cm_status take_cluster(void *impl, const struct cm_cluster_map *cluster)
{
    struct session *session = impl;
    return cm_cli_cluster(cluster, &session->plan, session->request.device, session->args.quiet,
                          session->result);
}

/* Beside the result, which can do without it. */
static void write_topology(const struct session *session)
{
    struct stat info;
    const char *result = cm_result_path(session->result);
    if (session->library_topology == NULL || stat(result, &info) != 0 || !S_ISREG(info.st_mode))
        return;
    size_t length = strlen(result);
    if (length > 5 && strcmp(result + length - 5, ".json") == 0)
        length -= 5;
    char *path = cm_strf("%.*s.nccl-topo.xml", (int)length, result);
    if (path == NULL || cm_file_replace(path, session->library_topology,
                                        strlen(session->library_topology)) != CM_OK)
        cm_warn("NCCL's view of the machine is not kept: %s", cm_error_text());
    cm_free(path);
}

static enum cm_status measure(struct session *session)
{
    struct cm_sink sink = {.impl = session,
                           .done = case_done,
                           .topology = take_topology,
                           .cluster = take_cluster,
                           .resume = resume,
                           .has = has_run};
    if (is_simulation(&session->args)) {
        enum cm_status status =
            session->args.trace == NULL
                ? CM_OK
                : cm_sim_trace(&session->plan, &session->request, session->args.trace);
        return status == CM_OK ? cm_simulate(&session->plan, &session->request, &sink) : status;
    }
    if (session->inside)
        return cm_measure_inside(&session->plan, &session->request, &session->world,
                                 session->world.rank == 0 ? &sink : NULL, &session->agreed);
    return cm_supervise(&session->plan, &session->request, &sink);
}

static enum cm_status print_report(const struct session *session)
{
    const json_t *result = cm_result_json(session->result);
    /* A launcher may give its ranks a terminal that is not the user's. */
    int when = session->inside && session->args.color == CM_COLOR_AUTO ? CM_COLOR_NEVER
                                                                       : session->args.color;
    struct cm_report_style style = cm_cli_style(when);
    style.brief = session->args.quiet;
    if (session->args.json)
        return cm_cli_write_document(result);
    enum cm_status status = cm_report_text(result, &style, stdout);
    return status == CM_OK ? cm_cli_write("", 0) : status;
}

/* Whether a budget took runs away: those the sink never got, and the case that has none. */
static bool misses_runs(const struct session *session)
{
    uint64_t wanted = 0;
    for (size_t i = 0; i < session->plan.count; i++)
        wanted += session->plan.cases[i].settings.runs;
    return session->args.budget_s > 0 && session->added < wanted;
}

/* Say what went wrong first of all that did; the path comes last whatever happened. */
static int conclude(struct session *session, enum cm_status measured)
{
    int code = measured == CM_OK  ? 0
               : session->resumed ? cm_status_exit_code(measured)
                                  : cm_cli_fail(measured);
    if (session->added == 0 && measured != CM_OK)
        return code; /* nothing to keep */
    session->out_of_budget = session->out_of_budget || misses_runs(session);
    const char *ending = measured == CM_INTERRUPTED ? "interrupted"
                         : measured != CM_OK        ? "failed"
                         : session->out_of_budget   ? "budget"
                                                    : "complete";
    enum cm_status saved = cm_result_finish(session->result, ending);
    if (saved != CM_OK) {
        int failure = cm_cli_fail(saved);
        code = code != 0 ? code : failure;
    }
    if (saved == CM_OK)
        write_topology(session);
    enum cm_status printed = print_report(session);
    if (printed != CM_OK) {
        int failure = cm_cli_fail(printed);
        code = code != 0 ? code : failure;
    }
    enum cm_status verdict = cm_result_verdict(cm_result_json(session->result));
    if (verdict == CM_OK && session->args.fail_slow)
        verdict = cm_result_suspects(cm_result_json(session->result));
    if (verdict != CM_OK && measured == CM_OK) {
        int failure = cm_cli_fail(verdict);
        code = code != 0 ? code : failure;
    }
    if (saved == CM_OK)
        fprintf(stderr, "%s\n", cm_result_path(session->result));
    return code;
}

static enum cm_status settle_device(struct session *session)
{
    const struct cm_run_args *args = &session->args;
    if (!is_simulation(args))
        return args->machine == NULL && args->trace == NULL
                   ? choose_device(args->device, &session->request.device)
                   : cm_error(CM_USAGE, "--machine and --trace are for --device sim");
    if (session->inside)
        return cm_error(CM_USAGE, "--device sim is one process; leave out %s",
                        session->world.launcher);
    return cm_sim_request(args->machine, args->ranks, args->runs, &session->machine,
                          &session->request);
}

/* All that can be known to be wrong before anything is measured. */
static enum cm_status settle(struct session *session)
{
    const struct cm_run_args *args = &session->args;
    enum cm_status status = load_plan(session);
    if (status == CM_OK)
        status = settle_device(session);
    if (status == CM_OK)
        status = settle_ranks(session);
    session->request.budget_s = args->budget_s;
    session->request.show_hosts = args->show_hosts;
    session->request.wait_s = args->wait_s > 0 ? args->wait_s : DEFAULT_WAIT_S;
    return status;
}

static enum cm_status prepare(struct session *session)
{
    if (session->world.rank != 0)
        return CM_OK;
    session->request.progress =
        !session->args.quiet && !session->inside && isatty(STDERR_FILENO) != 0;
    if (!is_simulation(&session->args))
        look_at_machine(session);
    return open_result(session);
}

static int run(struct session *session)
{
    bool help = false;
    enum cm_status status = cm_args_parse(&cm_run_spec, session->argc, session->argv,
                                          &session->args, &session->operands, &help);
    if (status == CM_OK && help)
        status = cm_cli_help(&cm_run_spec);
    if (status != CM_OK || help)
        return status == CM_OK ? 0 : cm_cli_fail(status);
    status = cm_world_from_environment(&session->world);
    if (status != CM_OK)
        return cm_world_told_elsewhere() ? cm_status_exit_code(status) : cm_cli_fail(status);
    session->inside = session->world.size > 1 || strcmp(session->world.launcher, "none") != 0;
    bool speaks = session->world.rank == 0;
    status = settle(session);
    if (status == CM_OK && session->args.explain != NULL) {
        status = speaks ? explain(session) : CM_OK;
        return status == CM_OK ? 0 : cm_cli_fail(status);
    }
    if (status == CM_OK && session->inside &&
        cm_carry_needed(&session->world, session->request.device))
        return cm_carry(&session->world, session->request.wait_s, session->argv);
    if (status == CM_OK)
        status = prepare(session);
    speaks = session->of_node ? session->world.local_rank == 0 : speaks;
    if (status != CM_OK)
        return speaks ? cm_cli_fail(status) : cm_status_exit_code(status);
    status = measure(session);
    if (speaks)
        return conclude(session, status);
    /* Without a text it is rank 0 that says why. */
    if (status == CM_OK || session->agreed || cm_error_text()[0] == '\0')
        return cm_status_exit_code(status);
    cm_error_at(status, "rank %u: ", session->world.rank);
    return cm_cli_fail(status);
}

int cm_cmd_run(int argc, char **argv)
{
    struct session *session = cm_alloc(1, sizeof *session);
    if (session == NULL)
        return cm_cli_fail(CM_NO_MEMORY);
    session->argc = argc;
    session->argv = argv;
    int code = run(session);
    bool resumed = session->resumed;
    cm_result_free(session->result);
    cm_free(session->library_topology);
    if (session->topology_known)
        cm_topology_release(&session->topology);
    cm_plan_release(&session->plan);
    cm_suite_release(&session->suite);
    cm_words_release(&session->operands);
    cm_words_release(&session->args.set);
    cm_free(session);
    if (resumed) { /* what libraries do at the end is for the process that opened them */
        fflush(NULL);
        _exit(code);
    }
    return code;
}
