/* A machine through its JSON and back: the drawing is the same to the last byte. What is not whole,
 * or strange, is refused or taken for not known. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/topology.h"
#include "test.h"

static json_t *json_of(const struct cm_topology *topology)
{
    json_t *value = NULL;
    assert_ok(cm_topology_json(topology, &value));
    return value;
}

static void check_same(const char *path)
{
    struct cm_topology topology, back;
    struct cm_str before = CM_STR_INIT, after = CM_STR_INIT;
    assert_ok(cm_topology_load(path, &topology));
    json_t *value = json_of(&topology);
    assert_ok(cm_topology_from_json(value, &back));
    assert_ok(cm_topology_svg(&topology, &before));
    assert_ok(cm_topology_svg(&back, &after));
    assert_string_equal(cm_str_text(&before), cm_str_text(&after));
    cm_str_release(&before);
    cm_str_release(&after);
    json_decref(value);
    cm_topology_release(&topology);
    cm_topology_release(&back);
}

static unsigned check_folder(const char *folder, int depth)
{
    unsigned found = 0;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        char path[1024];
        size_t length = strlen(entry->d_name);
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] == '.')
            continue;
        if (entry->d_type == DT_DIR && depth > 0) {
            found += check_folder(path, depth - 1);
        } else if (length > 4 && strcmp(entry->d_name + length - 4, ".xml") == 0) {
            struct cm_topology topology;
            if (cm_topology_load(path, &topology) != CM_OK)
                continue; /* some are there to be refused */
            cm_topology_release(&topology);
            check_same(path);
            found++;
        }
    }
    if (entries != NULL)
        closedir(entries);
    return found;
}

static void test_fixtures(void **state)
{
    (void)state;
    assert_true(check_folder(CM_TEST_FIXTURES "/topology", 1) >= 2);
}

static void test_recorded(void **state)
{
    (void)state;
    if (check_folder(CM_TEST_RECORDED, 2) == 0)
        skip();
}

static void test_not_whole(void **state)
{
    (void)state;
    struct cm_topology topology, back;
    assert_ok(cm_topology_live(&topology));
    json_t *value = json_of(&topology);
    json_object_del(value, "gpus");
    assert_status(cm_topology_from_json(value, &back), CM_UNSUPPORTED, "as a whole");
    json_object_set_new(value, "gpus", json_pack("[{s:s}]", "bus_id", "0000:1b:00.0"));
    assert_status(cm_topology_from_json(value, &back), CM_UNSUPPORTED, "bridges");
    assert_status(cm_topology_from_json(NULL, &back), CM_UNSUPPORTED, "as a whole");
    json_decref(value);
    cm_topology_release(&topology);
}

static const char strange[] =
    "{\"packages\": [{\"model\": \"<b>\"}],"
    "\"numa_nodes\": [{\"package\": 77, \"cpus\": \"x-\", \"memory_bytes\": 1e300}, 5],"
    "\"gpus\": [{\"name\": \"\\u00e9 GPU\", \"numa\": -5, \"switch\": 9, \"bridges\": [3]}],"
    "\"nics\": [], \"nvswitches\": [], \"switches\": [], \"other_devices\": [],"
    "\"nvlinks\": [{\"gpu\": 0, \"to\": \"gpu\", \"peer_gpu\": 50, \"count\": 3},"
    "{\"gpu\": 4, \"to\": \"gpu\"}],"
    "\"findings\": [{\"level\": \"dreadful\", \"text\": \"</svg><script>\"}]}";

/* Indices beyond their tables count as none. */
static void test_strange(void **state)
{
    (void)state;
    struct cm_topology back;
    struct cm_str svg = CM_STR_INIT;
    json_t *value = json_loads(strange, 0, NULL);
    assert_non_null(value);
    assert_ok(cm_topology_from_json(value, &back));
    assert_int_equal(back.gpus[0].numa, -1);
    assert_int_equal(back.gpus[0].parent_switch, -1);
    assert_int_equal(back.numa[0].package, -1);
    assert_int_equal(back.nvlink_count, 1);
    assert_int_equal(back.nvlinks[0].peer_gpu, -1);
    assert_ok(cm_topology_svg(&back, &svg));
    assert_null(strstr(cm_str_text(&svg), "<script>"));
    cm_str_release(&svg);
    cm_topology_release(&back);
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_not_whole),
        cmocka_unit_test(test_strange),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
