/*
 * What the harness itself costs on the reporting rank of very many: its votes and gatherings in a
 * case, the result file of a suite, and reading that again. The other ranks are made (crowd.h), so
 * it is processor time and memory that this tells, not what a network adds.
 *
 *   bench_scale [RANKS [RUNS [SUITE]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/result.h"
#include "crowd.h"
#include "host/measure/vote.h"

static void need(enum cm_status status, const char *what)
{
    if (status == CM_OK)
        return;
    fprintf(stderr, "bench_scale: %s: %s\n", what, cm_error_text());
    exit(1);
}

static double processor_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double peak_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024e-6;
}

static void plan_of(const char *text, struct cm_suite *suite, struct cm_plan *plan)
{
    need(cm_suite_parse(text, "bench", suite), "suite");
    need(cm_plan_build(suite, NULL, 0, plan), "plan");
}

struct cost {
    double vote_s, gather_s, record_s, peak_mb; /* of one vote, of one gathering */
    uint64_t votes, gathers, received_bytes;
};

enum { TRIES = 200 };

/* Processor time of the harness's own exchanges: what a case takes besides depends on the machine's
 * noise far more than on the number of ranks. */
static void exchanges(struct cm_device *device, struct cm_comm *comm, struct cost *cost)
{
    struct cm_stream *stream;
    struct cm_vote vote;
    const void *all;
    char own[CM_GATHER_MAX] = {0};
    need(device->ops->stream_create(device, 0, &stream), "stream");
    need(cm_vote_open(device, comm, stream, 60, &vote), "vote");
    double begun_s = processor_s();
    for (int i = 0; i < TRIES; i++) {
        memset(cm_vote_values(&vote), 0, 512 * sizeof(double));
        need(cm_vote_phase(&vote), "vote");
    }
    cost->vote_s = (processor_s() - begun_s) / TRIES;
    begun_s = processor_s();
    for (int i = 0; i < TRIES; i++)
        need(cm_vote_gather(&vote, own, sizeof own, &all), "gather");
    cost->gather_s = (processor_s() - begun_s) / TRIES;
    cm_vote_close(&vote);
    device->ops->stream_destroy(stream);
}

/* One case of empty iterations, and its record; alone in a process, for its peak. */
static void measure(unsigned ranks, uint64_t iterations, int out)
{
    struct cost cost = {.votes = 0};
    char text[320];
    struct cm_suite suite;
    struct cm_plan plan;
    snprintf(text, sizeof text,
             "[global]\nwarmup_time = 0s\nwarmup_iterations = 1\nmin_time = 0s\nmin_iterations = "
             "%llu\nmax_iterations = %llu\nmax_time = 1000s\n[launch]\noperations = 1\n",
             (unsigned long long)iterations, (unsigned long long)iterations);
    plan_of(text, &suite, &plan);
    const struct cm_device_ops *ops = cm_device_find("cpu");
    struct cm_device_config config = {.threads = 1, .far_node = -1};
    struct cm_device *device;
    struct cm_comm *comm;
    need(ops->open(&config, &device), "device");
    need(crowd_open(device, ranks, &comm), "communicator");
    struct cm_bench bench = {.device = device, .comm = comm, .time_limit_s = INFINITY};
    struct cm_case_run run = {0};
    need(cm_measure_case(&bench, &plan.cases[0], 0, &run), "case");
    if (run.status != CM_CASE_OK) {
        fprintf(stderr, "bench_scale: %s\n", run.reason);
        exit(1);
    }
    struct cm_result_options options = {
        .path = "/dev/null", .device = ops, .ranks = ranks, .argc = 0};
    struct cm_result *result;
    need(cm_result_create(&plan, &options, &result), "result");
    double begun_s = processor_s();
    need(cm_result_add(result, &plan, &run), "record");
    cost.record_s = processor_s() - begun_s;
    const struct crowd *crowd = (const struct crowd *)comm;
    cost.votes = crowd->votes;
    cost.gathers = crowd->gathers;
    cost.received_bytes = crowd->received_bytes;
    cost.peak_mb = peak_mb();
    exchanges(device, comm, &cost);
    if (write(out, &cost, sizeof cost) != (ssize_t)sizeof cost)
        exit(1);
    exit(0);
}

static struct cost cost_of(unsigned ranks, uint64_t iterations)
{
    int ends[2];
    struct cost cost;
    fflush(stdout);
    if (pipe(ends) != 0)
        exit(1);
    pid_t child = fork();
    if (child == 0)
        measure(ranks, iterations, ends[1]);
    close(ends[1]);
    if (child < 0 || read(ends[0], &cost, sizeof cost) != (ssize_t)sizeof cost) {
        fprintf(stderr, "bench_scale: a case of %u ranks and %llu iterations did not end well\n",
                ranks, (unsigned long long)iterations);
        exit(1);
    }
    close(ends[0]);
    waitpid(child, NULL, 0);
    return cost;
}

static void cases(unsigned ranks)
{
    static const uint64_t iterations[] = {50, 5000, 500000};
    printf(
        "a case of two parts      ranks  votes  of each  gatherings  of each  received  record   "
        "peak  share of a minute\n");
    for (size_t i = 0; i < sizeof iterations / sizeof *iterations; i++) {
        struct cost cost = cost_of(ranks, iterations[i]);
        double all_s =
            (double)cost.votes * cost.vote_s + (double)cost.gathers * cost.gather_s + cost.record_s;
        printf("%8llu iterations     %7u %6llu %5.1f us %11llu %5.0f us %6.1f MB %5.3f s %4.0f MB "
               "%.2f %%\n",
               2 * (unsigned long long)iterations[i], ranks, (unsigned long long)cost.votes,
               cost.vote_s * 1e6, (unsigned long long)cost.gathers, cost.gather_s * 1e6,
               (double)cost.received_bytes * 1e-6, cost.record_s, cost.peak_mb, all_s / 60 * 100);
    }
}

static void suite_of(unsigned ranks, uint64_t runs, const char *name, const char *path)
{
    struct cm_suite suite;
    struct cm_plan plan;
    struct cm_result *result;
    struct stat info;
    char *file;
    need(cm_config_find(name, "", &file), name);
    need(cm_suite_load(file, &suite), name);
    cm_free(file);
    need(cm_plan_build(&suite, NULL, runs, &plan), name);
    struct cm_result_options options = {
        .path = path, .device = cm_device_find("cpu"), .ranks = ranks};
    double most_s = 0, all_s = 0, before_mb = peak_mb();
    uint64_t added = 0;
    need(cm_result_create(&plan, &options, &result), "result");
    for (uint64_t number = 0; number < plan.runs; number++) {
        for (size_t i = 0; i < plan.count; i++) {
            struct cm_case_run run;
            if (number >= plan.cases[i].settings.runs)
                continue;
            need(crowd_run(&plan, i, number, ranks, &run), "run");
            double begun_s = processor_s();
            need(cm_result_add(result, &plan, &run), "record");
            double one_s = processor_s() - begun_s;
            cm_case_run_release(&run);
            most_s = one_s > most_s ? one_s : most_s;
            all_s += one_s;
            added++;
        }
    }
    need(cm_result_finish(result, "complete"), "finish");
    cm_result_free(result);
    if (stat(path, &info) != 0)
        exit(1);
    printf("%s, %zu cases, %llu runs of %u ranks: %.3f s each to record, the last %.3f s at most "
           "(%.2f %% of a minute); %.1f MB; %.0f MB of memory, of which %.0f before\n",
           name, plan.count, (unsigned long long)added, ranks, all_s / (double)added, most_s,
           most_s / 60 * 100, (double)info.st_size * 1e-6, peak_mb(), before_mb);
}

static void read_back(const char *path)
{
    json_t *value;
    struct cm_report_style style = {.width = 100};
    double begun_s = processor_s();
    need(cm_result_load(path, &value), path);
    double loaded_s = processor_s() - begun_s;
    FILE *out = fopen("/dev/null", "w");
    need(cm_report_text(value, &style, out), "report");
    fclose(out);
    json_decref(value);
    printf("loaded in %.3f s, reported in %.3f s\n", loaded_s, processor_s() - begun_s - loaded_s);
}

int main(int argc, char **argv)
{
    unsigned ranks = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1024;
    uint64_t runs = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    char path[] = "/tmp/bench-scale-XXXXXX";
    int file = mkstemp(path);
    if (file < 0 || ranks == 0)
        return 1;
    close(file);
    if (argc < 5)
        cases(ranks);
    suite_of(ranks, runs, argc > 3 ? argv[3] : "standard", path);
    read_back(path);
    unlink(path);
    return 0;
}
