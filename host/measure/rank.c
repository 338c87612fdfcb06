/* The body of a rank process: joins the supervisor, binds itself, opens, measures what it is told.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/measure/bind.h"
#include "host/measure/channel.h"
#include "host/measure/clock.h"
#include "host/measure/message.h"

#define HEARTBEAT_S 1.0

struct rank {
    struct cm_channel channel;
    pthread_mutex_t sending; /* the guard speaks too, once, at the end */
    int signals;
    struct cm_world world;
    struct cm_job job;
    struct cm_str binding;
    struct cm_device *device;
    struct cm_comm *comm;
    char phase[24]; /* last one sent, and when */
    double phase_s;
};

struct arguments {
    const char *channel;
    unsigned rank, size; /* size 0: ask the launcher's environment */
};

static enum cm_status parse_arguments(int argc, char **argv, struct arguments *arguments)
{
    struct arguments parsed = {.channel = NULL};
    for (int i = 0; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--channel") == 0)
            parsed.channel = argv[++i];
        else if (strcmp(argv[i], "--rank") == 0)
            parsed.rank = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--size") == 0)
            parsed.size = (unsigned)strtoul(argv[++i], NULL, 10);
    }
    if (parsed.channel == NULL || (parsed.size > 0 && parsed.rank >= parsed.size))
        return cm_error(CM_USAGE, "rank processes are started by `clustermark run`, not by hand");
    *arguments = parsed;
    return CM_OK;
}

/* A rank must never outlive its supervisor, nor measure without one. This thread sleeps until the
 * supervisor is gone or a signal asks the rank to end; the main thread may be anywhere, also in a
 * library that waits for ever, so the process ends from here. */
static void *guard(void *arg)
{
    struct rank *rank = arg;
    struct pollfd polls[] = {{.fd = rank->channel.fd, .events = POLLRDHUP},
                             {.fd = rank->signals, .events = POLLIN}};
    for (;;) {
        if (poll(polls, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            fprintf(stderr, "clustermark: rank %u: cannot wait for its supervisor: poll: %s\n",
                    rank->world.rank, strerror(errno));
            break;
        }
        if (polls[0].revents != 0)
            break;
        if (polls[1].revents != 0) {
            /* Tell, so that nobody takes this end for a crash; but not when in mid-sentence. */
            if (pthread_mutex_trylock(&rank->sending) == 0)
                cm_send_word(&rank->channel, "stopped");
            break;
        }
    }
    _exit(cm_status_exit_code(CM_LOST));
}

static enum cm_status start_guard(struct rank *rank)
{
    pthread_t thread;
    int failure = pthread_create(&thread, NULL, guard, rank);
    if (failure != 0) {
        errno = failure;
        return cm_error_errno(CM_SYSTEM, "cannot start the rank's guard thread");
    }
    pthread_detach(thread);
    return CM_OK;
}

/* Signals that end go to the guard; all threads made later inherit this. */
static enum cm_status take_signals(struct rank *rank)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    rank->signals = signalfd(-1, &set, SFD_CLOEXEC);
    return rank->signals >= 0 ? CM_OK : cm_error_errno(CM_SYSTEM, "signalfd");
}

static void report_phase(void *arg, const char *phase)
{
    struct rank *rank = arg;
    double now = cm_clock_s();
    /* Called at every batch: enough of it is passed on to show that the rank lives. */
    if (strcmp(phase, rank->phase) == 0 && now - rank->phase_s < HEARTBEAT_S)
        return;
    snprintf(rank->phase, sizeof rank->phase, "%s", phase);
    rank->phase_s = now;
    pthread_mutex_lock(&rank->sending);
    /* A supervisor that is gone is the guard's business. */
    cm_send_phase(&rank->channel, rank->phase);
    pthread_mutex_unlock(&rank->sending);
}

static enum cm_status say(struct rank *rank, const char *kind, const char *payload)
{
    pthread_mutex_lock(&rank->sending);
    enum cm_status status = cm_channel_send(&rank->channel, kind, payload);
    pthread_mutex_unlock(&rank->sending);
    return status;
}

/* Joins the supervisor: before this nobody there knows whose words they would be. */
static enum cm_status join(struct rank *rank, const struct arguments *arguments)
{
    struct cm_hello hello = {.rank = 0};
    enum cm_status status = CM_OK;
    if (arguments->size > 0) {
        rank->world = (struct cm_world){.rank = arguments->rank,
                                        .size = arguments->size,
                                        .local_rank = arguments->rank,
                                        .local_size = arguments->size,
                                        .launcher = "none"};
    } else {
        status = cm_world_from_environment(&rank->world);
    }
    /* Fails when the supervisor, or a launcher that died before this process asked for its signal,
     * is gone. */
    if (status == CM_OK)
        status = cm_channel_connect(arguments->channel, &rank->channel);
    if (status != CM_OK)
        return status;
    hello.rank = rank->world.rank;
    hello.size = rank->world.size;
    snprintf(hello.launcher, sizeof hello.launcher, "%s", rank->world.launcher);
    return cm_send_hello(&rank->channel, &hello);
}

static enum cm_status take_job(struct rank *rank)
{
    struct cm_message message;
    enum cm_status status = cm_channel_receive(&rank->channel, &message);
    if (status == CM_OK && strcmp(message.kind, "job") != 0)
        status = cm_error(CM_COMM, "the supervisor said \"%s\" instead of \"job\"", message.kind);
    return status == CM_OK ? cm_read_job(&message, &rank->job) : status;
}

/* What rank 0 gives travels by the supervisor. */
static enum cm_status share(void *impl, void *bytes, size_t size, double timeout_s)
{
    struct rank *rank = impl;
    struct cm_meeting_bytes meeting = {.size = size};
    struct cm_message message;
    if (size > sizeof meeting.bytes)
        return cm_error(CM_INTERNAL, "a meeting of %zu bytes", size);
    if (rank->world.rank == 0) {
        memcpy(meeting.bytes, bytes, size);
        pthread_mutex_lock(&rank->sending);
        enum cm_status sent = cm_send_meeting(&rank->channel, &meeting);
        pthread_mutex_unlock(&rank->sending);
        return sent;
    }
    enum cm_status status = cm_channel_receive_within(&rank->channel, timeout_s, &message);
    if (status == CM_TIMEOUT)
        return cm_error(CM_TIMEOUT, "rank 0 did not tell within %g s where to meet", timeout_s);
    if (status == CM_OK && strcmp(message.kind, "meeting") != 0)
        status =
            cm_error(CM_COMM, "the supervisor said \"%s\" instead of \"meeting\"", message.kind);
    if (status == CM_OK)
        status = cm_read_meeting(&message, &meeting);
    if (status == CM_OK && meeting.size != size)
        status = cm_error(CM_COMM, "rank 0 told %zu bytes of where to meet, and not %zu",
                          meeting.size, size);
    if (status == CM_OK)
        memcpy(bytes, meeting.bytes, size);
    return status;
}

static enum cm_status open_comm(struct rank *rank)
{
    const char *name = cm_comm_default(rank->device->ops, rank->world.size);
    const struct cm_comm_ops *comm = cm_comm_find(name);
    const struct cm_meeting meeting = {.impl = rank, .share = share};
    if (comm == NULL)
        return cm_error(CM_UNSUPPORTED, "no communication by %s: %s", name, cm_comm_missing(name));
    return comm->open(rank->device, &rank->world, &meeting, rank->job.timeout_s, &rank->comm);
}

static enum cm_status send_topology(struct rank *rank)
{
    const struct cm_comm_ops *comm = rank->comm->ops;
    const char *text = comm->topology_dump != NULL ? comm->topology_dump(rank->comm) : NULL;
    if (rank->world.rank != 0 || text == NULL)
        return CM_OK;
    pthread_mutex_lock(&rank->sending);
    enum cm_status status = cm_send_topology(&rank->channel, text);
    pthread_mutex_unlock(&rank->sending);
    return status;
}

static enum cm_status open_all(struct rank *rank)
{
    const struct cm_device_ops *device = cm_device_find(rank->job.device);
    if (device == NULL)
        return cm_error(CM_NO_DEVICE, "no device %s: %s", rank->job.device,
                        cm_device_missing(rank->job.device));
    /* Where the supervisor could not count them, a device each. */
    unsigned devices = rank->job.devices > 0 ? rank->job.devices
                       : device->is_host     ? 1
                                             : rank->world.local_size;
    struct cm_device_config config = {.index = rank->world.local_rank % devices,
                                      .rank = rank->world.rank};
    rank->world.simulated = rank->job.devices > 0 && rank->world.local_size > devices;
    report_phase(rank, "binding to its cores");
    enum cm_status status =
        cm_bind_rank(&rank->world, (const char *const *)rank->job.bus_ids, &rank->binding, &config);
    if (status == CM_OK)
        status = start_guard(rank);
    if (status != CM_OK)
        return status;
    if (!device->is_host)
        config.memory_bytes = 0;
    report_phase(rank, "opening the device");
    status = device->open(&config, &rank->device);
    if (status != CM_OK)
        return status;
    if (rank->world.simulated) /* each takes its share of the memory too */
        rank->device->info.memory_bytes /= (rank->world.local_size + devices - 1) / devices;
    report_phase(rank, "joining the other ranks");
    status = open_comm(rank);
    if (status == CM_OK)
        status = send_topology(rank);
    return status == CM_OK ? say(rank, "ready", "{}") : status;
}

/* The same point of the sweep as in the supervisor's plan, made from its settings. */
static enum cm_status rebuild_case(const struct cm_order *order, struct cm_plan *plan)
{
    struct cm_suite suite = {.name = NULL};
    enum cm_status status = cm_suite_parse("[case]\n", order->where, &suite);
    if (status != CM_OK)
        return status;
    for (const char *line = order->settings; *line != '\0' && status == CM_OK;) {
        size_t length = strcspn(line, "\n");
        char *assignment = length > 0 ? cm_strf("case.%.*s", (int)length, line) : NULL;
        if (assignment != NULL)
            status = cm_suite_set(&suite, assignment);
        else if (length > 0)
            status = CM_NO_MEMORY;
        cm_free(assignment);
        line += length + (line[length] == '\n' ? 1 : 0);
    }
    if (status == CM_OK)
        status = cm_plan_build(&suite, NULL, 0, plan);
    cm_suite_release(&suite);
    if (status == CM_OK && plan->count != 1) {
        status = cm_error(CM_INTERNAL, "%s became %zu cases in the rank", order->name, plan->count);
        cm_plan_release(plan);
    }
    return status;
}

/* Give the case its names in the supervisor's plan. */
static void take_names(struct cm_order *order, struct cm_case *item)
{
    char **from[] = {&order->name, &order->section, &order->where};
    char **to[] = {&item->name, &item->section, &item->where};
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        cm_free(*to[i]);
        *to[i] = *from[i];
        *from[i] = NULL;
    }
}

static enum cm_status send_result(struct rank *rank, size_t index, struct cm_case_run *run)
{
    char *text = NULL;
    run->case_index = index;
    run->run = rank->job.run;
    enum cm_status status = cm_case_run_write(run, &text);
    if (status == CM_OK)
        status = say(rank, "result", text);
    cm_free(text);
    return status;
}

static enum cm_status measure(struct rank *rank, const struct cm_message *message)
{
    struct cm_order order;
    struct cm_plan plan;
    enum cm_status status = cm_read_order(message, &order);
    if (status != CM_OK)
        return status;
    status = rebuild_case(&order, &plan);
    if (status != CM_OK) {
        cm_order_release(&order);
        return status;
    }
    take_names(&order, &plan.cases[0]);
    struct cm_bench bench = {.device = rank->device,
                             .comm = rank->comm,
                             .memory_bytes = rank->device->info.memory_bytes,
                             .time_limit_s = order.limit_s,
                             .binding = cm_str_text(&rank->binding),
                             .phase = report_phase,
                             .phase_arg = rank};
    struct cm_case_run run = {.run = rank->job.run};
    rank->phase[0] = '\0';
    status = cm_measure_case(&bench, &plan.cases[0], rank->job.run, &run);
    if (rank->world.rank == 0) {
        char text[CM_ERROR_TEXT_MAX];
        snprintf(text, sizeof text, "%s", cm_error_text());
        enum cm_status sent = send_result(rank, order.index, &run);
        if (status != CM_OK) /* its reason is the one that counts */
            cm_error(status, "%s", text);
        else
            status = sent;
    }
    cm_case_run_release(&run);
    cm_plan_release(&plan);
    cm_order_release(&order);
    return status == CM_OK ? say(rank, "done", "{}") : status;
}

static enum cm_status serve(struct rank *rank)
{
    for (;;) {
        struct cm_message message;
        enum cm_status status = cm_channel_receive(&rank->channel, &message);
        if (status != CM_OK)
            return status;
        if (strcmp(message.kind, "end") == 0)
            return CM_OK;
        if (strcmp(message.kind, "case") != 0)
            return cm_error(CM_COMM, "the supervisor said \"%s\"", message.kind);
        status = measure(rank, &message);
        if (status != CM_OK)
            return status;
    }
}

/* Say what went wrong and wait to be ended: an exit would make the launcher end the other ranks
 * before they have said what they know. */
_Noreturn static void give_up(struct rank *rank, enum cm_status status)
{
    struct cm_rank_error error = {.status = status};
    const char *text = cm_error_text();
    snprintf(error.text, sizeof error.text, "%s", text[0] != '\0' ? text : cm_status_text(status));
    pthread_mutex_lock(&rank->sending);
    enum cm_status sent = cm_send_error(&rank->channel, &error);
    pthread_mutex_unlock(&rank->sending);
    if (sent != CM_OK)
        fprintf(stderr, "clustermark: rank %u: %s\n", rank->world.rank, error.text);
    struct pollfd hangup = {.fd = rank->channel.fd, .events = POLLRDHUP};
    while (sent == CM_OK && hangup.revents == 0) {
        if (poll(&hangup, 1, -1) < 0 && errno != EINTR)
            break;
    }
    _exit(cm_status_exit_code(status));
}

int cm_rank_main(int argc, char **argv)
{
    /* Static: the guard's thread uses it until the process ends. */
    static struct rank rank = {
        .channel = CM_CHANNEL_INIT, .sending = PTHREAD_MUTEX_INITIALIZER, .signals = -1};
    struct arguments arguments = {.channel = NULL};
    enum cm_status status = parse_arguments(argc, argv, &arguments);
    if (status == CM_OK) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Standard output is the user's data; what libraries print there goes with the errors. */
        dup2(STDERR_FILENO, STDOUT_FILENO);
        status = take_signals(&rank);
    }
    if (status == CM_OK)
        status = join(&rank, &arguments);
    if (status != CM_OK) {
        fprintf(stderr, "clustermark: rank: %s\n", cm_error_text());
        return cm_status_exit_code(status);
    }
    status = take_job(&rank);
    if (status == CM_OK)
        status = open_all(&rank);
    if (status == CM_OK)
        status = serve(&rank);
    if (status != CM_OK)
        give_up(&rank, status);
    rank.comm->ops->close(rank.comm);
    rank.device->ops->close(rank.device);
    cm_str_release(&rank.binding);
    cm_job_release(&rank.job);
    say(&rank, "bye", "{}");
    /* The guard still uses the channel; the system closes it. */
    return 0;
}
