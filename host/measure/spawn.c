/* Rank processes: fork, exec, wait. */
#include "host/measure/spawn.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"

#define ARGS_MAX (CM_LAUNCH_ARGS_MAX + 9)

/* All that a child needs is made before the fork; after it only plain system calls follow. */
struct recipe {
    const char *argv[ARGS_MAX];
    char **environment;
    char rank[16], size[16];
    struct cm_launch launch;
    int null, output, report; /* stdin; stdout and stderr; errno of a failed start */
    int death_signal;         /* when the parent dies */
};

/* This process's environment with `pairs` (name, value) set. */
static enum cm_status make_environment(const char *const *pairs, char ***environment)
{
    size_t count = 0, extra = 0;
    while (environ[count] != NULL)
        count++;
    while (pairs[extra] != NULL)
        extra += 2;
    char **list = cm_alloc(count + extra / 2 + 1, sizeof *list);
    if (list == NULL)
        return CM_NO_MEMORY;
    size_t used = 0;
    for (size_t i = 0; i < extra; i += 2) {
        list[used] = cm_strf("%s=%s", pairs[i], pairs[i + 1]);
        if (list[used++] == NULL) {
            for (size_t k = 0; k + 1 < used; k++)
                cm_free(list[k]);
            cm_free(list);
            return CM_NO_MEMORY;
        }
    }
    for (size_t i = 0; i < count; i++) {
        bool replaced = false;
        size_t name = strcspn(environ[i], "=");
        for (size_t k = 0; k < extra; k += 2)
            replaced =
                replaced || (strlen(pairs[k]) == name && strncmp(pairs[k], environ[i], name) == 0);
        if (!replaced)
            list[used++] = environ[i];
    }
    *environment = list;
    return CM_OK;
}

static void free_environment(char **list, const char *const *pairs)
{
    if (list == NULL)
        return;
    for (size_t i = 0; pairs[i] != NULL; i += 2)
        cm_free(list[i / 2]);
    cm_free(list);
}

static void make_words(const struct cm_spawn_config *config, unsigned rank, struct recipe *recipe)
{
    size_t used = 0;
    if (config->launcher) {
        while (recipe->launch.argv[used] != NULL && used + 1 < CM_LAUNCH_ARGS_MAX) {
            recipe->argv[used] = recipe->launch.argv[used];
            used++;
        }
    }
    recipe->argv[used++] = config->program;
    recipe->argv[used++] = "rank";
    recipe->argv[used++] = "--channel";
    recipe->argv[used++] = config->channel;
    if (!config->launcher) {
        snprintf(recipe->rank, sizeof recipe->rank, "%u", rank);
        snprintf(recipe->size, sizeof recipe->size, "%u", config->ranks);
        recipe->argv[used++] = "--rank";
        recipe->argv[used++] = recipe->rank;
        recipe->argv[used++] = "--size";
        recipe->argv[used++] = recipe->size;
    }
    recipe->argv[used] = NULL;
}

void cm_child_settle(pid_t parent, int death_signal)
{
    static const int defaults[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD, SIGQUIT};
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, death_signal);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
    setpgid(0, 0);
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
        signal(defaults[i], SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void become(const struct recipe *recipe, pid_t parent)
{
    int failure;
    cm_child_settle(parent, recipe->death_signal);
    if (dup2(recipe->null, 0) >= 0 && dup2(recipe->output, 1) >= 0 && dup2(recipe->output, 2) >= 0)
        execvpe(recipe->argv[0], (char *const *)recipe->argv, recipe->environment);
    failure = errno;
    if (write(recipe->report, &failure, sizeof failure) < 0)
        _exit(126);
    _exit(127);
}

static enum cm_status start_one(struct recipe *recipe, struct cm_process *process)
{
    int report[2], failure = 0;
    if (pipe2(report, O_CLOEXEC) != 0)
        return cm_error_errno(CM_SYSTEM, "cannot start %s: pipe", recipe->argv[0]);
    recipe->report = report[1];
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(recipe, parent);
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return cm_error_errno(CM_SYSTEM, "cannot start %s: fork", recipe->argv[0]);
    }
    setpgid(pid, pid); /* whoever of the two comes first */
    ssize_t count;
    do {
        count = read(report[0], &failure, sizeof failure);
    } while (count < 0 && errno == EINTR);
    close(report[0]);
    if (count == (ssize_t)sizeof failure) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        errno = failure;
        return cm_error_errno(CM_USAGE, "cannot start %s", recipe->argv[0]);
    }
    *process = (struct cm_process){.pid = pid};
    return CM_OK;
}

static void end_at_once(struct cm_processes *processes)
{
    cm_processes_signal(processes, SIGKILL);
    for (size_t i = 0; i < processes->count; i++) {
        while (!processes->items[i].exited && waitpid(processes->items[i].pid, NULL, 0) < 0 &&
               errno == EINTR)
            continue;
    }
}

static enum cm_status start_all(const struct cm_spawn_config *config, struct recipe *recipe,
                                struct cm_processes *processes)
{
    size_t count = config->launcher ? 1 : config->ranks;
    enum cm_status status = CM_OK;
    processes->items = cm_alloc(count, sizeof *processes->items);
    processes->tail = cm_alloc(CM_OUTPUT_TAIL_MAX + 1, 1);
    if (processes->items == NULL || processes->tail == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < count && status == CM_OK; i++) {
        make_words(config, (unsigned)i, recipe);
        status = start_one(recipe, &processes->items[i]);
        if (status == CM_OK)
            processes->count++;
    }
    if (status != CM_OK)
        end_at_once(processes);
    return status;
}

enum cm_status cm_processes_start(const struct cm_spawn_config *config,
                                  struct cm_processes *processes)
{
    int output[2] = {-1, -1};
    struct recipe recipe = {.null = -1, .death_signal = config->launcher ? SIGTERM : SIGKILL};
    struct cm_processes started = {.launcher = config->launcher, .output = -1};
    if (config->launcher) {
        enum cm_status found = cm_launch_command(config->ranks, &recipe.launch);
        if (found != CM_OK)
            return found;
    }
    enum cm_status status = make_environment(recipe.launch.environment, &recipe.environment);
    if (status != CM_OK)
        return status;
    recipe.null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (recipe.null < 0 || pipe2(output, O_CLOEXEC) != 0 ||
        fcntl(output[0], F_SETFL, O_NONBLOCK) != 0) {
        status = cm_error_errno(CM_SYSTEM, "cannot start the ranks: /dev/null or a pipe");
        goto close_files;
    }
    recipe.output = output[1];
    status = start_all(config, &recipe, &started);
    if (status != CM_OK) {
        cm_processes_release(&started);
        goto close_files;
    }
    started.output = output[0];
    output[0] = -1;
    *processes = started;

close_files:
    for (int i = 0; i < 2; i++) {
        if (output[i] >= 0)
            close(output[i]);
    }
    if (recipe.null >= 0)
        close(recipe.null);
    free_environment(recipe.environment, recipe.launch.environment);
    return status;
}

void cm_processes_reap(struct cm_processes *processes)
{
    for (size_t i = 0; i < processes->count; i++) {
        struct cm_process *process = &processes->items[i];
        if (!process->exited && waitpid(process->pid, &process->wait_status, WNOHANG) != 0)
            process->exited = true;
    }
}

bool cm_processes_gone(const struct cm_processes *processes)
{
    for (size_t i = 0; i < processes->count; i++) {
        if (!processes->items[i].exited)
            return false;
    }
    return true;
}

void cm_processes_signal(const struct cm_processes *processes, int signal_number)
{
    for (size_t i = 0; i < processes->count; i++) {
        if (!processes->items[i].exited)
            kill(-processes->items[i].pid, signal_number);
    }
}

void cm_processes_drain(struct cm_processes *processes)
{
    char bytes[4096];
    /* Bounded, so that a rank that prints without end cannot hold the supervisor here. */
    for (int i = 0; i < 16 && processes->output >= 0; i++) {
        ssize_t count = read(processes->output, bytes, sizeof bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (count <= 0) {
            close(processes->output);
            processes->output = -1;
            return;
        }
        size_t added = (size_t)count, kept = processes->tail_length;
        if (kept + added > CM_OUTPUT_TAIL_MAX) {
            size_t dropped = kept + added - CM_OUTPUT_TAIL_MAX;
            memmove(processes->tail, processes->tail + dropped, kept - dropped);
            kept -= dropped;
        }
        memcpy(processes->tail + kept, bytes, added);
        processes->tail_length = kept + added;
        processes->tail[processes->tail_length] = '\0';
    }
}

void cm_processes_release(struct cm_processes *processes)
{
    if (processes->output >= 0)
        close(processes->output);
    cm_free(processes->items);
    cm_free(processes->tail);
    *processes = (struct cm_processes){.output = -1};
}

static bool is_boilerplate(const char *line, size_t length)
{
    /* What mpirun prints around every failure, and what only repeats that there was one. */
    static const char *const parts[] = {
        "Primary job",           "non-zero exit code",
        "a non-zero exit",       "mpirun noticed that",
        "mpirun detected that",  "with errorcode",
        "NOTE: invoking",        "You may or may not see",
        "exactly when Open MPI", "Process name: ",
        "Exit code: ",           "MPI_ABORT was invoked",
        "Per user-direction",    "job to be terminated",
        "exited on signal",
    };
    bool word = false;
    for (size_t i = 0; i < length; i++)
        word = word || isalnum((unsigned char)line[i]);
    if (!word)
        return true;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (memmem(line, length, parts[i], strlen(parts[i])) != NULL)
            return true;
    }
    return false;
}

void cm_useful_line(const char *output, char *line, size_t size)
{
    line[0] = '\0';
    while (*output != '\0') {
        output += strspn(output, " \t\r\n");
        size_t length = strcspn(output, "\r\n");
        if (!is_boilerplate(output, length)) {
            size_t used = 0;
            for (size_t i = 0; i < length && used + 1 < size; i++) {
                unsigned char c = (unsigned char)output[i];
                line[used++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
            }
            line[used] = '\0';
            return;
        }
        output += length;
    }
}
