/* Whether ranks are one world: what differs, on which of them, in one line. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "host/measure/world_check.h"

#define RANKS 16

static struct cm_world_record *world(unsigned count)
{
    struct cm_world_record *records = calloc(count, sizeof *records);
    assert_non_null(records);
    for (unsigned rank = 0; rank < count; rank++) {
        struct cm_world_record *record = &records[rank];
        *record = (struct cm_world_record){.layout = CM_WORLD_LAYOUT,
                                           .rank = rank,
                                           .size = count,
                                           .local_rank = rank % 4,
                                           .local_size = 4,
                                           .cases = 9,
                                           .version = "0.1.0",
                                           .host = 100 + rank / 4,
                                           .plan = 77,
                                           .suite = "quick",
                                           .comm = "NCCL 2.28.9",
                                           .software = "CUDA 13.0, cuBLASLt 13.1.0",
                                           .device = "NVIDIA H200"};
        snprintf(record->host_name, sizeof record->host_name, "node%02u", rank / 4);
        snprintf(record->bus_id, sizeof record->bus_id, "0000:%02x:00.0", 16 * (rank % 4));
        snprintf(record->uuid, sizeof record->uuid, "%x", 0xa000 + rank);
    }
    return records;
}

static void test_one_world(void **state)
{
    (void)state;
    for (unsigned count = 1; count <= RANKS; count += 5) {
        struct cm_world_record *records = world(count);
        assert_ok(cm_world_compare(records, count));
        /* CPU ranks have no device of their own; without names bus ids and hosts are enough. */
        for (unsigned rank = 0; rank < count; rank++)
            records[rank].uuid[0] = '\0';
        assert_ok(cm_world_compare(records, count));
        for (unsigned rank = 0; rank < count; rank++)
            records[rank].bus_id[0] = '\0';
        assert_ok(cm_world_compare(records, count));
        free(records);
    }
}

static void refuse(struct cm_world_record *records, const char *message)
{
    assert_status(cm_world_compare(records, RANKS), CM_USAGE, message);
    assert_null(strchr(cm_error_text(), '\n'));
    free(records);
}

static void test_versions(void **state)
{
    (void)state;
    struct cm_world_record *records = world(RANKS);
    for (unsigned rank = 3; rank < RANKS; rank++) {
        if (rank == 3 || rank >= 8) /* most of them: the others are then named */
            strcpy(records[rank].version, "0.1.1");
    }
    refuse(records, "the ranks run different programs: ranks 0-2, 4-7: clustermark 0.1.0; the "
                    "other 9: clustermark 0.1.1; install");
    records = world(RANKS);
    strcpy(records[3].version, "0.2.0");
    refuse(records, "rank 3 on node00: clustermark 0.2.0; the other 15: clustermark 0.1.0");
    /* What another layout holds beyond its version counts for nothing. */
    records = world(RANKS);
    for (unsigned rank = 8; rank < 12; rank++) {
        memset(&records[rank], 0xff, sizeof records[rank]);
        records[rank].layout = 2;
        strcpy(records[rank].version, "0.9.0");
    }
    refuse(records, "ranks 8-11: clustermark 0.9.0 (record 2); the other 12: clustermark 0.1.0");
    records = world(RANKS);
    for (unsigned rank = 0; rank < RANKS; rank++)
        snprintf(records[rank].version, sizeof records[rank].version, "0.%u", rank);
    refuse(records, "rank 1 on node00: clustermark 0.1; rank 2 on node00: clustermark 0.2; 13 more "
                    "have others yet; the other 1: clustermark 0.0");
    records = world(RANKS);
    for (unsigned rank = 0; rank < RANKS; rank += 2)
        strcpy(records[rank].version, "1");
    strcpy(records[1].version, "1");
    refuse(records, "ranks 3, 5, 7, 9, 11, 13 ...: clustermark 0.1.0; the other 9: clustermark 1");
}

static void test_other_fields(void **state)
{
    (void)state;
    struct cm_world_record *records = world(RANKS);
    records[5].plan = 78;
    refuse(records, "the ranks run different suites or settings: rank 5 on node01: quick, 9 cases");
    records = world(RANKS);
    strcpy(records[15].comm, "NCCL 2.27.3");
    refuse(records, "rank 15 on node03: NCCL 2.27.3; the other 15: NCCL 2.28.9");
    records = world(RANKS);
    for (unsigned rank = 4; rank < 8; rank++)
        strcpy(records[rank].software, "CUDA 12.8, cuBLASLt 12.9.1");
    refuse(records, "compute with different libraries: ranks 4-7 on node01: CUDA 12.8");
    records = world(RANKS);
    records[2].size = 8;
    refuse(records, "rank 2 on node00: a world of 8; the other 15: a world of 16");
    records = world(RANKS);
    for (unsigned rank = 0; rank < RANKS; rank++)
        records[rank].size = 4;
    refuse(records, "told a world of 4 ranks, but 16 are here");
    records = world(RANKS);
    records[7].rank = 0;
    refuse(records, "a rank on node01 was told that it is number 0, but it is number 7");
}

static void test_devices(void **state)
{
    (void)state;
    struct cm_world_record *records = world(RANKS);
    strcpy(records[6].uuid, records[5].uuid);
    refuse(records, "ranks 5 and 6 have one device between them, NVIDIA H200 0000:10:00.0 on "
                    "node01; start");
    records = world(RANKS);
    for (unsigned rank = 4; rank < 8; rank++)
        strcpy(records[rank].uuid, "same");
    strcpy(records[2].uuid, records[1].uuid);
    refuse(records, "ranks 1 and 2 have one device between them, NVIDIA H200 0000:10:00.0 on "
                    "node00 (and 3 more ranks);");
    /* Without a name of its own a device is where it is: on another node it is another one. */
    records = world(RANKS);
    for (unsigned rank = 0; rank < RANKS; rank++)
        records[rank].uuid[0] = '\0';
    strcpy(records[13].bus_id, records[12].bus_id);
    refuse(records, "ranks 12 and 13 have one device between them");
    /* Instances of a divided GPU have one place and names of their own. */
    records = world(RANKS);
    for (unsigned rank = 0; rank < RANKS; rank++)
        strcpy(records[rank].bus_id, "0000:1b:00.0");
    assert_ok(cm_world_compare(records, RANKS));
    free(records);
}

/* Every message is one line that is not cut in the middle of its advice. */
static void test_long_names(void **state)
{
    (void)state;
    struct cm_world_record *records = world(RANKS);
    for (unsigned rank = 0; rank < RANKS; rank++) {
        memset(records[rank].software, 'a' + (int)rank % 3, sizeof records[rank].software - 1);
        memset(records[rank].host_name, 'h', sizeof records[rank].host_name - 1);
        records[rank].host = 1;
    }
    assert_status(cm_world_compare(records, RANKS), CM_USAGE,
                  "; install one version on every node");
    free(records);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_world),    cmocka_unit_test(test_versions),
        cmocka_unit_test(test_other_fields), cmocka_unit_test(test_devices),
        cmocka_unit_test(test_long_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
