/*
 * The built program under random kills: a rank, the launcher or the supervisor dies at a random
 * moment of a short run, or the user presses Ctrl-C. Whatever dies,
 *   - no process is left behind,
 *   - the result file can be read at every moment, and what it held before a kill it holds after;
 *   - a supervisor that lives ends in time, with an exit code that says how, and with every run of
 *     every case accounted for.
 *
 *     test_kill [ROUNDS [SEED]]
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/measure/clock.h"

#define CASES     3
#define RUNS      2
#define GONE_S    20.0
#define ENDS_S    120.0
#define LONGEST_S 8.0 /* of a delay: a busy machine must not make the test endless */
#define MARK_NAME "CM_TEST_KILL_MARK"

enum victim { RANK, LAUNCHER, SUPERVISOR, INTERRUPT, VICTIMS };
static const char *const victim_names[] = {"a rank", "the launcher", "the supervisor",
                                           "nobody; SIGINT"};

static char folder[] = "/tmp/clustermark-kill-XXXXXX";
static char suite_path[64], result_path[64], log_path[64], mark[64];
static unsigned round_number;

_Noreturn static void fail(const char *what)
{
    fprintf(stderr, "round %u: %s; see %s\n", round_number, what, folder);
    exit(1);
}

static void write_suite(void)
{
    FILE *file = fopen(suite_path, "w");
    if (file == NULL)
        fail("cannot write the suite");
    fprintf(file,
            "[global]\nruns = %d\nwarmup_time = 10ms\nmin_time = 50ms\nmax_time = 150ms\n"
            "timeout = 20s\n[gemm]\nm = 96\nn = 96\nk = 96\n"
            "[collective]\nop = all_reduce,all_gather\nsize = 64KiB\n",
            RUNS);
    fclose(file);
}

static pid_t start_program(void)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    setenv(MARK_NAME, mark, 1);
    setsid();
    dup2(log, 1);
    dup2(log, 2);
    execl(CM_TEST_BIN "/clustermark", "clustermark", "run", suite_path, "-o", result_path,
          "--ranks", "2", (char *)NULL);
    _exit(126);
}

static size_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size_t length = 0;
    ssize_t count;
    while (length < size && (count = read(fd, text + length, size - length)) > 0)
        length += (size_t)count;
    close(fd);
    return length;
}

/* Whether a process is one of this run's: its environment holds the mark. */
static bool is_marked(pid_t pid)
{
    static char text[65536];
    char wanted[128];
    snprintf(wanted, sizeof wanted, MARK_NAME "=%s", mark);
    size_t length = read_proc(pid, "environ", text, sizeof text);
    return memmem(text, length, wanted, strlen(wanted)) != NULL;
}

static bool is_kind(pid_t pid, enum victim kind)
{
    char words[4096];
    size_t length = read_proc(pid, "cmdline", words, sizeof words);
    bool rank = memmem(words, length, "\0--channel", 10) != NULL;
    bool launcher = memmem(words, length, "mpirun\0", 7) != NULL;
    return kind == LAUNCHER ? launcher : rank && !launcher;
}

/* Processes of this run; at most `most` ids. */
static unsigned list_processes(pid_t *pids, unsigned most)
{
    unsigned count = 0;
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        fail("cannot read /proc");
    for (const struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        pid_t pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;
        if (pid > 0 && count < most && is_marked(pid))
            pids[count++] = pid;
    }
    closedir(proc);
    return count;
}

static void expect_nobody(void)
{
    pid_t pids[64];
    double until = cm_clock_s() + GONE_S;
    while (list_processes(pids, 64) > 0) {
        if (cm_clock_s() > until)
            fail("processes were left behind");
        usleep(20000);
    }
}

/* The exit state of the supervisor, which must end by itself. */
static int expect_end(pid_t pid)
{
    int state;
    double until = cm_clock_s() + ENDS_S;
    while (waitpid(pid, &state, WNOHANG) == 0) {
        if (cm_clock_s() > until)
            fail("the supervisor did not end");
        usleep(5000);
    }
    return state;
}

/* Runs that the file holds, all cases together; -1 when there is no file yet. */
static int count_runs(const char **ending)
{
    static char text[64];
    json_error_t error;
    struct stat info;
    if (stat(result_path, &info) != 0)
        return -1;
    json_t *result = json_load_file(result_path, 0, &error);
    if (result == NULL)
        fail("the result file cannot be read");
    int runs = 0;
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(result, "cases"), i, item)
    {
        size_t k;
        json_t *run;
        json_array_foreach(json_object_get(item, "runs"), k, run)
        {
            if (json_string_value(json_object_get(run, "status")) == NULL)
                fail("a run without status");
            runs++;
        }
    }
    const char *end = json_string_value(json_object_get(result, "ending"));
    snprintf(text, sizeof text, "%s", end != NULL ? end : "");
    if (ending != NULL)
        *ending = text;
    json_decref(result);
    return runs;
}

static bool kill_one(pid_t supervisor, enum victim victim)
{
    pid_t pids[64], found[64];
    unsigned count = list_processes(pids, 64), matches = 0;
    if (victim == SUPERVISOR || victim == INTERRUPT)
        return kill(supervisor, victim == INTERRUPT ? SIGINT : SIGKILL) == 0;
    for (unsigned i = 0; i < count; i++) {
        if (pids[i] != supervisor && is_kind(pids[i], victim))
            found[matches++] = pids[i];
    }
    return matches > 0 && kill(found[(unsigned)rand() % matches], SIGKILL) == 0;
}

static void check_end(pid_t supervisor, enum victim victim, int before)
{
    const char *ending = "";
    int state = expect_end(supervisor);
    expect_nobody();
    int after = count_runs(&ending);
    if (before > 0 && after < before) /* an empty file may be taken back */
        fail("the result file lost runs");
    if (victim == SUPERVISOR)
        return; /* it may even have been done already */
    /* Before it watches for signals nothing has begun, and SIGINT ends it as any program. */
    if (victim == INTERRUPT && WIFSIGNALED(state) && WTERMSIG(state) == SIGINT && after < 0)
        return;
    if (!WIFEXITED(state))
        fail("the supervisor did not exit");
    int code = WEXITSTATUS(state);
    if (victim == INTERRUPT && code == 130) {
        if (after >= 0 && strcmp(ending, "interrupted") != 0)
            fail("the result file does not say that it was interrupted");
        return;
    }
    if (code != 0 && code != 5)
        fail("an unexpected exit code");
    if (after != CASES * RUNS)
        fail("the result file lacks runs");
    if (strcmp(ending, "complete") != 0)
        fail("the result file does not say that it is complete");
}

static void disturb(double duration_s)
{
    unsigned drawn = (unsigned)rand() % (VICTIMS + 1);
    enum victim victim = drawn < VICTIMS ? (enum victim)drawn : RANK; /* ranks twice as often */
    double delay_s = duration_s * (rand() % 1000) / 1000.0;
    unlink(result_path);
    snprintf(mark, sizeof mark, "%d-%u", (int)getpid(), round_number);
    pid_t supervisor = start_program();
    usleep((useconds_t)(delay_s * 1e6));
    int before = count_runs(NULL);
    bool hit = kill_one(supervisor, victim);
    check_end(supervisor, victim, before);
    printf("round %u: %s after %.2f s%s: fine\n", round_number, victim_names[victim], delay_s,
           hit ? "" : " (not there)");
    fflush(stdout);
}

static double undisturbed(void)
{
    double begin = cm_clock_s();
    snprintf(mark, sizeof mark, "%d-0", (int)getpid());
    pid_t supervisor = start_program();
    int state = expect_end(supervisor);
    const char *ending = "";
    double took_s = cm_clock_s() - begin;
    expect_nobody();
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        fail("the program does not work even when it is left alone");
    if (count_runs(&ending) != CASES * RUNS || strcmp(ending, "complete") != 0)
        fail("the result file of an undisturbed run is not complete");
    return took_s;
}

/* With what a killed supervisor left of a file that it was just writing. */
static void remove_folder(void)
{
    char path[512];
    DIR *entries = opendir(folder);
    if (entries == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    closedir(entries);
    rmdir(folder);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 10;
    unsigned seed = argc > 2 ? (unsigned)atoi(argv[2]) : (unsigned)time(NULL);
    if (system("command -v mpirun >/dev/null 2>&1") != 0) {
        printf("no mpirun here: skipped\n");
        return 77;
    }
    if (mkdtemp(folder) == NULL)
        fail("cannot make a folder");
    snprintf(suite_path, sizeof suite_path, "%s/kill.ini", folder);
    snprintf(result_path, sizeof result_path, "%s/result.json", folder);
    snprintf(log_path, sizeof log_path, "%s/log", folder);
    write_suite();
    srand(seed);
    double duration_s = undisturbed();
    if (duration_s > LONGEST_S)
        duration_s = LONGEST_S;
    printf("seed %u; delays up to %.1f s\n", seed, duration_s);
    for (round_number = 1; round_number <= rounds; round_number++)
        disturb(duration_s);
    remove_folder();
    return 0;
}
