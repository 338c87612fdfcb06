/*
 * Every faked call begins and ends here: one at a time, counted, and made to fail where it is told.
 *
 *   FAKE_FAIL=[RANK:]CALL:N[:ERROR]   the Nth call of that function fails, with that number of its
 *                                     library's errors
 *   FAKE_HANG=[RANK:]CALL:N           it is never done: work that it queues never ends, a query
 *                                     never says yes, and every other call does not return
 *   FAKE_KILL=[RANK:]CALL:N           the process is killed in it
 *   FAKE_ONCE=FILE                    only the first process has it: the one that makes the file
 *
 * CALL may be "any", which counts all calls. Without a rank, every process has it; "main" is the
 * one that is no rank. A program of tests/torture/ decides by its own rules besides.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fake/fake.h"
#include "torture/fail.h"

/* There in a program that is tortured. */
extern bool fail_now(enum fail_kind kind, const char *name) __attribute__((weak));

enum { CALLS_MAX = 256 };

struct order {
    bool set;
    char call[64];
    unsigned long nth;
    int error; /* -1: the call chooses */
};

static struct {
    pthread_mutex_t lock;
    bool ready;
    int rank;
    struct order fail, hang, kill;
    unsigned long all;
    const char *failed; /* the call that failed by order */
    struct {
        const char *name;
        unsigned long count;
    } calls[CALLS_MAX];
    long objects[FAKE_OBJECT_KINDS];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local bool in_host_function, stall;

void fake_die(const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "clustermark: fake: %s\n", text);
    abort();
}

/* From the command line (--rank N) or the launcher. */
static int find_rank(void)
{
    const char *text = getenv("OMPI_COMM_WORLD_RANK");
    if (text == NULL)
        text = getenv("RANK");
    if (text != NULL)
        return atoi(text);
    char words[1024] = "";
    int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = file >= 0 ? read(file, words, sizeof words - 1) : 0;
    if (file >= 0)
        close(file);
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(words + at) + 1) {
        if (strcmp(words + at, "--rank") == 0)
            return atoi(words + at + sizeof "--rank");
    }
    return -1;
}

static void read_order(const char *name, struct order *order)
{
    const char *text = getenv(name);
    if (text == NULL || text[0] == '\0')
        return;
    char who[16] = "";
    const char *rest = text;
    if (strncmp(text, "main:", 5) == 0 || (text[0] >= '0' && text[0] <= '9')) {
        snprintf(who, sizeof who, "%.*s", (int)strcspn(text, ":"), text);
        rest = text + strcspn(text, ":") + 1;
    }
    order->error = -1;
    if (sscanf(rest, "%63[^:]:%lu:%d", order->call, &order->nth, &order->error) < 2)
        fake_die("%s=%s is not [RANK:]CALL:N[:ERROR]", name, text);
    order->set =
        who[0] == '\0' || (strcmp(who, "main") == 0 ? state.rank < 0 : state.rank == atoi(who));
}

static void get_ready(void)
{
    state.ready = true;
    state.rank = find_rank();
    read_order("FAKE_FAIL", &state.fail);
    read_order("FAKE_HANG", &state.hang);
    read_order("FAKE_KILL", &state.kill);
}

static unsigned long count_call(const char *name)
{
    for (size_t i = 0; i < CALLS_MAX; i++) {
        if (state.calls[i].name == NULL)
            state.calls[i].name = name;
        if (strcmp(state.calls[i].name, name) == 0)
            return ++state.calls[i].count;
    }
    fake_die("more than %d functions are faked", CALLS_MAX);
}

static bool is_due(const struct order *order, const char *call, unsigned long number)
{
    if (!order->set)
        return false;
    bool any = strcmp(order->call, "any") == 0;
    if (any ? state.all != order->nth : strcmp(order->call, call) != 0 || number != order->nth)
        return false;
    const char *once = getenv("FAKE_ONCE");
    int file = once != NULL ? open(once, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    if (file >= 0)
        close(file);
    return once == NULL || file >= 0;
}

void fake_fail_any(unsigned long nth)
{
    state.fail = (struct order){.set = nth > 0, .call = "any", .nth = state.all + nth, .error = -1};
    state.failed = NULL;
}

const char *fake_failed(void)
{
    return state.failed;
}

long fake_objects(void)
{
    long sum = 0;
    for (int i = 0; i < FAKE_OBJECT_KINDS; i++)
        sum += state.objects[i];
    return sum;
}

int fake_rank(void)
{
    return state.ready ? state.rank : find_rank();
}

int fake_enter(const char *call, int otherwise)
{
    if (in_host_function)
        fake_die("%s is called in a host function", call);
    pthread_mutex_lock(&state.lock);
    if (!state.ready)
        get_ready();
    state.all++;
    unsigned long number = count_call(call);
    if (is_due(&state.kill, call, number))
        kill(getpid(), SIGKILL);
    stall = is_due(&state.hang, call, number) || (fail_now != NULL && fail_now(FAIL_HANG, call));
    if (is_due(&state.fail, call, number)) {
        state.failed = call;
        return state.fail.error >= 0 ? state.fail.error : otherwise;
    }
    return fail_now != NULL && fail_now(FAIL_GPU, call) ? otherwise : 0;
}

void fake_leave(void)
{
    fake_memory_close();
    pthread_mutex_unlock(&state.lock);
    while (stall)
        pause();
}

bool fake_take_stall(void)
{
    bool taken = stall;
    stall = false;
    return taken;
}

void fake_pause(void)
{
    fake_memory_close();
    pthread_mutex_unlock(&state.lock);
    nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    pthread_mutex_lock(&state.lock);
}

void fake_host_function(bool inside)
{
    in_host_function = inside;
}

void fake_count(enum fake_object kind, int change)
{
    state.objects[kind] += change;
}

__attribute__((destructor)) static void tell_what_is_left(void)
{
    static const char *const names[] = {
        "streams",       "events",        "device allocations", "host allocations", "IPC mappings",
        "communicators", "registrations", "cuBLASLt objects",   "cuDNN objects"};
    const char *path = getenv("FAKE_LOG");
    if (path == NULL)
        return;
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    for (int i = 0; file >= 0 && i < FAKE_OBJECT_KINDS; i++) {
        if (state.objects[i] != 0)
            dprintf(file, "rank %d left %ld %s\n", fake_rank(), state.objects[i], names[i]);
    }
    if (file >= 0)
        close(file);
}
