/* host/comm/nccl_log.c: what NCCL printed becomes what it chose; its files have no names. */
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/memory.h"
#include "host/comm/nccl_log.h"

#define PREFIX "node1:4242:4250 [0] NCCL INFO "

static void take(struct cm_nccl_log *log, const char *text)
{
    assert_int_equal(cm_nccl_log_take(log, text, strlen(text)), strlen(text));
}

static void assert_choice(const struct cm_nccl_log *log, const char *operation, uint64_t bytes,
                          const char *algorithm, const char *protocol, unsigned channels)
{
    const struct cm_nccl_choice *choice = cm_nccl_log_find(log, operation, bytes);
    assert_non_null(choice);
    assert_string_equal(choice->algorithm, algorithm);
    assert_string_equal(choice->protocol, protocol);
    assert_int_equal(choice->channels, channels);
}

static void choices(void **state)
{
    (void)state;
    struct cm_nccl_log log = CM_NCCL_LOG_INIT;
    take(&log, PREFIX
         "AllReduce: 8388608 Bytes -> Algo RING proto SIMPLE channel{Lo..Hi}={0..15}\n" PREFIX
         "AllGather: 8388608 Bytes -> Algo NVLS_TREE proto LL128 channel{Lo..Hi}={4..4}\n");
    assert_choice(&log, "all_reduce", 8388608, "RING", "SIMPLE", 16);
    assert_choice(&log, "all_gather", 8388608, "NVLS_TREE", "LL128", 1);
    assert_null(cm_nccl_log_find(&log, "all_reduce", 8));
    assert_null(cm_nccl_log_find(&log, "broadcast", 8388608));
    /* The latest word counts. */
    take(&log, PREFIX "AllReduce: 8388608 Bytes -> Algo TREE proto LL channel{Lo..Hi}={0..1}\n");
    assert_choice(&log, "all_reduce", 8388608, "TREE", "LL", 2);
    /* Versions before 2.24 print numbers; a time stamp may stand before all. */
    take(&log, "[2026-01-01 00:00:00] " PREFIX
               "ReduceScatter: 64 Bytes -> Algo 4 proto 2 channel{Lo..Hi}={0..0}\n");
    assert_choice(&log, "reduce_scatter", 64, "NVLS", "SIMPLE", 1);
    assert_false(log.no_nvls);
}

static void no_nvls(void **state)
{
    (void)state;
    struct cm_nccl_log log = CM_NCCL_LOG_INIT;
    take(&log, PREFIX "NVLS multicast support is available on dev 0 (NVLS_NCHANNELS 24)\n");
    assert_false(log.no_nvls);
    take(&log, PREFIX "NVLS multicast support is not available on dev 0 (NVLS_NCHANNELS 0)\n");
    assert_true(log.no_nvls);
    log.no_nvls = false;
    take(&log, PREFIX "Failed to bind NVLink SHARP (NVLS) Multicast memory of size 2097152 : CUDA "
                      "error 2 'out of memory'. Proceeding without NVLS support.\n");
    assert_true(log.no_nvls);
}

static void not_choices(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",
        "AllReduce: 8 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..0}",
        PREFIX "AllReduce: 8 Bytes -> Algo RING proto LL channel{Lo..Hi}={3..0}",
        PREFIX "AllReduce: 8 Bytes -> Algo RING proto LL",
        PREFIX "AllReduce: Bytes -> Algo RING proto LL channel{Lo..Hi}={0..0}",
        PREFIX "SendRecv: 8 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..0}",
        PREFIX "Channel 00/24 : 0 1 2 3",
    };
    struct cm_nccl_log log = CM_NCCL_LOG_INIT;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char line[160];
        snprintf(line, sizeof line, "%s\n", lines[i]);
        take(&log, line);
    }
    assert_int_equal(log.count, 0);
}

/* More sizes than are kept: the latest ones are. */
static void many(void **state)
{
    (void)state;
    struct cm_nccl_log log = CM_NCCL_LOG_INIT;
    char line[160];
    for (unsigned i = 1; i <= 2 * CM_NCCL_CHOICES_MAX + 1; i++) {
        snprintf(line, sizeof line,
                 PREFIX "Broadcast: %u Bytes -> Algo RING proto LL channel{Lo..Hi}={0..%u}\n", i,
                 i);
        take(&log, line);
    }
    assert_int_equal(log.count, CM_NCCL_CHOICES_MAX);
    assert_choice(&log, "broadcast", 2 * CM_NCCL_CHOICES_MAX + 1, "RING", "LL",
                  2 * CM_NCCL_CHOICES_MAX + 2);
    assert_null(cm_nccl_log_find(&log, "broadcast", CM_NCCL_CHOICES_MAX + 1));
    assert_non_null(cm_nccl_log_find(&log, "broadcast", CM_NCCL_CHOICES_MAX + 2));
}

static void part_of_a_line(void **state)
{
    (void)state;
    struct cm_nccl_log log = CM_NCCL_LOG_INIT;
    assert_int_equal(cm_nccl_log_take(&log, "a\nAllRe", 7), 2);
    assert_int_equal(cm_nccl_log_take(&log, "AllRe", 5), 0);
}

static void forget_environment(void)
{
    unsetenv("NCCL_DEBUG");
    unsetenv("NCCL_DEBUG_SUBSYS");
    unsetenv("NCCL_DEBUG_FILE");
    unsetenv("NCCL_TOPO_DUMP_FILE");
}

/* As NCCL does: the file is opened by its path, once, and written on. */
static void written_and_read(void **state)
{
    (void)state;
    struct cm_nccl_log log = CM_NCCL_LOG_INIT;
    struct stat info;
    forget_environment();
    assert_ok(cm_nccl_log_open(&log));
    assert_string_equal(getenv("NCCL_DEBUG"), "INFO");
    FILE *file = fopen(getenv("NCCL_DEBUG_FILE"), "w");
    assert_non_null(file);
    assert_ok(cm_nccl_log_read(&log)); /* nothing yet */
    for (unsigned i = 0; i < 20000; i++)
        fprintf(file, PREFIX "AllReduce: 8 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..%u}\n",
                i % 1000);
    fprintf(file, PREFIX "AllReduce: 16 Bytes ");
    fflush(file);
    assert_ok(cm_nccl_log_read(&log));
    assert_choice(&log, "all_reduce", 8, "RING", "LL", 1000);
    assert_null(cm_nccl_log_find(&log, "all_reduce", 16));
    assert_int_equal(fstat(log.file, &info), 0);
    assert_true(info.st_size > 1000000 && info.st_blocks < 64); /* given back */
    fprintf(file, "-> Algo TREE proto LL channel{Lo..Hi}={0..1}\n");
    fflush(file);
    assert_ok(cm_nccl_log_read(&log));
    assert_choice(&log, "all_reduce", 16, "TREE", "LL", 2);
    fclose(file);
    close(log.file);
}

static void the_users_wish_stays(void **state)
{
    (void)state;
    struct cm_nccl_log log = CM_NCCL_LOG_INIT;
    int file = 77;
    forget_environment();
    setenv("NCCL_DEBUG", "WARN", 1);
    setenv("NCCL_TOPO_DUMP_FILE", "mine.xml", 1);
    assert_ok(cm_nccl_log_open(&log));
    assert_int_equal(log.file, -1);
    assert_null(getenv("NCCL_DEBUG_FILE"));
    assert_ok(cm_nccl_log_read(&log));
    assert_ok(cm_nccl_topology_open(&file));
    assert_int_equal(file, -1);
    assert_string_equal(getenv("NCCL_TOPO_DUMP_FILE"), "mine.xml");
    forget_environment();
}

static void topology(void **state)
{
    (void)state;
    static const char text[] = "<system version=\"1\">\n</system>\n";
    int file = -1;
    char *read = NULL;
    forget_environment();
    assert_ok(cm_nccl_topology_open(&file));
    FILE *out = fopen(getenv("NCCL_TOPO_DUMP_FILE"), "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    assert_ok(cm_nccl_topology_take(file, &read));
    assert_string_equal(read, text);
    assert_null(getenv("NCCL_TOPO_DUMP_FILE"));
    cm_free(read);
    assert_ok(cm_nccl_topology_open(&file));
    assert_ok(cm_nccl_topology_take(file, &read));
    assert_string_equal(read, "");
    cm_free(read);
    assert_int_equal(fcntl(file, F_GETFD), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices),
        cmocka_unit_test(no_nvls),
        cmocka_unit_test(not_choices),
        cmocka_unit_test(many),
        cmocka_unit_test(part_of_a_line),
        cmocka_unit_test(written_and_read),
        cmocka_unit_test(the_users_wish_stays),
        cmocka_unit_test(topology),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
