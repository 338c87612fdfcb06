/* nvbandwidth's JSON (its option -j): a matrix per test case, its cells as text, in GB/s or ns. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "host/result/import.h"

#define SIDE_MAX 1024 /* rows and columns */

/* Test cases that measure what a workload of ours does. */
static const struct known {
    const char *name, *workload;
    const char *key[3], *value[3];
} known[] = {
    {"host_to_device_memcpy_ce", "hostlink", {"direction", "ranks"}, {"h2d", "one"}},
    {"device_to_host_memcpy_ce", "hostlink", {"direction", "ranks"}, {"d2h", "one"}},
    {"host_to_all_memcpy_ce", "hostlink", {"direction", "ranks"}, {"h2d", "all"}},
    {"all_to_host_memcpy_ce", "hostlink", {"direction", "ranks"}, {"d2h", "all"}},
    {"device_to_device_memcpy_read_ce", "p2p", {"engine", "op", "both"}, {"copy", "read", ""}},
    {"device_to_device_memcpy_write_ce", "p2p", {"engine", "op", "both"}, {"copy", "write", ""}},
    {"device_to_device_memcpy_read_sm", "p2p", {"engine", "op", "both"}, {"kernel", "read", ""}},
    {"device_to_device_memcpy_write_sm", "p2p", {"engine", "op", "both"}, {"kernel", "write", ""}},
};

static const struct known *find_known(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0)
            return &known[i];
    }
    return NULL;
}

static json_t *params_of(enum cm_status *status, const char *name, const struct known *row)
{
    json_t *params = json_object();
    for (size_t i = 0; row != NULL && i < 3 && row->key[i] != NULL; i++)
        cm_put(status, params, row->key[i],
               row->value[i][0] != '\0' ? json_string(row->value[i]) : json_false());
    if (row == NULL)
        cm_put(status, params, "test", json_string(name));
    return params;
}

/* A cell is a text, "N/A" where nothing was measured. */
static double cell_of(const json_t *value)
{
    const char *text = json_string_value(value);
    char *end;
    if (json_is_number(value))
        return json_number_value(value);
    if (text == NULL || text[0] == '\0')
        return NAN;
    double number = strtod(text, &end);
    return *end == '\0' && isfinite(number) ? number : NAN;
}

struct matrix {
    const json_t *rows;
    size_t first, count; /* of rows */
    bool latency, backwards, pairs;
    bool together; /* all devices at once, so that their sum means something */
};

/* Where a test has several tables they stand below each other, the one that counts last. */
static void read_matrix(const json_t *testcase, struct matrix *matrix)
{
    const char *text = cm_get_text(testcase, "bandwidth_description");
    size_t columns;
    matrix->rows = json_object_get(testcase, "bandwidth_matrix");
    matrix->count = json_array_size(matrix->rows);
    columns = json_array_size(json_array_get(matrix->rows, 0));
    matrix->first = 0;
    if (strstr(text, "Total") != NULL && columns > 1 && matrix->count == 3 * columns) {
        matrix->first = 2 * columns;
        matrix->count = columns;
    }
    matrix->latency = strstr(text, "(ns)") != NULL;
    matrix->backwards = strstr(text, "<-") != NULL && strstr(text, "<->") == NULL;
    matrix->pairs = matrix->count > 1;
}

/* Each cell by the rank of its column, or by its pair, from sender to receiver. */
static void put_cells(enum cm_status *status, json_t *item, const struct matrix *matrix)
{
    const char *base = matrix->latency ? "latency" : "bandwidth";
    const char *unit = matrix->latency ? "s" : "B/s";
    double scale = matrix->latency ? 1e-9 : 1e9, worst = NAN, sum = 0;
    for (size_t i = 0; i < matrix->count && i < SIDE_MAX; i++) {
        const json_t *row = json_array_get(matrix->rows, matrix->first + i);
        for (size_t j = 0; j < json_array_size(row) && j < SIDE_MAX; j++) {
            double value = cell_of(json_array_get(row, j)) * scale;
            char name[64];
            if (!isfinite(value) || !(value > 0))
                continue;
            if (matrix->pairs)
                snprintf(name, sizeof name, "%s.%zu-%zu", base, matrix->backwards ? j : i,
                         matrix->backwards ? i : j);
            else
                snprintf(name, sizeof name, "%s.rank%zu", base, j);
            cm_import_metric(status, item, name, value, unit, matrix->latency);
            sum += value;
            worst = !isfinite(worst)  ? value
                    : matrix->latency ? fmax(worst, value)
                                      : fmin(worst, value);
        }
    }
    cm_import_metric(status, item, base, worst, unit, matrix->latency);
    if (!matrix->latency && !matrix->pairs && matrix->together && sum > 0)
        cm_import_metric(status, item, "bandwidth_sum", sum, unit, false);
    if (!isfinite(worst) && *status == CM_OK)
        cm_import_outcome(status, item, "skipped", "no value in its matrix");
}

static void put_testcase(enum cm_status *status, json_t *result, const json_t *testcase)
{
    const char *name = cm_get_text(testcase, "name"), *word = cm_get_text(testcase, "status");
    const struct known *row = find_known(name);
    struct matrix matrix;
    char label[160], reason[300];
    snprintf(label, sizeof label, "nvbandwidth:%.120s", name);
    json_t *item =
        cm_import_case(status, result, label, row != NULL ? row->workload : "nvbandwidth",
                       params_of(status, name, row));
    if (item == NULL)
        return;
    if (strcmp(word, "Passed") == 0) {
        read_matrix(testcase, &matrix);
        matrix.together =
            strncmp(name, "all_to_host", 11) == 0 || strncmp(name, "host_to_all", 11) == 0;
        put_cells(status, item, &matrix);
        return;
    }
    const char *error = cm_get_text(testcase, "error");
    snprintf(reason, sizeof reason, "%.60s%s%.200s", word[0] != '\0' ? word : "no status",
             error[0] != '\0' ? ": " : "", error);
    bool waived = strcmp(word, "Waived") == 0 || strcmp(word, "Not Found") == 0;
    cm_import_outcome(status, item, waived ? "skipped" : "failed", reason);
}

/* "0: NVIDIA H200 (00000000:1b:00.0): (host)": without the number, and what follows the name. */
static void put_device(enum cm_status *status, json_t *devices, size_t rank, const char *text)
{
    const char *colon = strstr(text, ": ");
    const char *name = colon != NULL ? colon + 2 : text;
    size_t length = strcspn(name, "(:");
    char own[128];
    snprintf(own, sizeof own, "%.*s", (int)(length < 120 ? length : 120), name);
    for (size_t end = strlen(own); end > 0 && own[end - 1] == ' '; end--)
        own[end - 1] = '\0';
    json_t *row = json_object();
    cm_put(status, row, "rank", json_integer((json_int_t)rank));
    cm_put(status, row, "name", cm_result_string(own));
    cm_push(status, devices, row);
}

enum cm_status cm_import_nvbandwidth(const json_t *root, const char *name, json_t *result)
{
    enum cm_status status = CM_OK;
    const json_t *own = json_object_get(root, "nvbandwidth"), *row;
    const json_t *testcases = json_object_get(own, "testcases");
    const json_t *listed = json_object_get(own, "GPU Device list");
    json_t *devices = json_object_get(result, "devices");
    json_t *tool = json_object_get(result, "tool"), *stack = json_object_get(result, "stack");
    size_t index;
    if (json_array_size(testcases) > CM_IMPORT_MAX || json_array_size(listed) > CM_IMPORT_MAX)
        return cm_error(CM_USAGE, "%s: over %d test cases or devices", name, CM_IMPORT_MAX);
    cm_put(&status, tool, "name", json_string("nvbandwidth"));
    cm_put(&status, tool, "version", json_string(cm_get_text(own, "version")));
    cm_put(&status, stack, "driver", json_string(cm_get_text(own, "Driver Version")));
    double runtime = cm_get_number(own, "CUDA Runtime Version");
    if (isfinite(runtime))
        cm_put(&status, stack, "cuda_runtime", json_real(runtime));
    json_array_foreach(listed, index, row)
    {
        if (json_is_string(row))
            put_device(&status, devices, index, json_string_value(row));
    }
    cm_put(&status, result, "ranks", json_integer((json_int_t)json_array_size(devices)));
    json_array_foreach(testcases, index, row)
    {
        if (status == CM_OK)
            put_testcase(&status, result, row);
    }
    return status;
}
