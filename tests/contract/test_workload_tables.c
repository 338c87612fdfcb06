/* Every workload's table: documented, defaults that parse, bad parameters refused. */
#include <stdlib.h>

#include "clustermark/measure.h"
#include "contract/params.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void test_documented(void **state)
{
    (void)state;
    for (size_t i = 0; cm_workloads[i] != NULL; i++) {
        const struct cm_workload *workload = cm_workloads[i];
        assert_ptr_equal(cm_workload_find(workload->name), workload);
        assert_true(strlen(workload->summary) > 10 && strchr(workload->summary, '\n') == NULL);
        assert_non_null(workload->headline);
        assert_non_null(workload->metrics);
        if (workload->sweep != NULL) {
            assert_non_null(workload->summarise);
            assert_non_null(cm_option_find(workload->options, workload->sweep));
        }
        for (const struct cm_option *option = workload->options; option->name; option++) {
            assert_true(strlen(option->help) > 10);
            assert_null(strchr(option->help, '\n'));
            assert_true(option->help[strlen(option->help) - 1] != '.');
            assert_null(cm_option_find(cm_run_options, option->name));
            assert_ptr_equal(cm_option_find(workload->options, option->name), option);
        }
    }
}

static void test_defaults(void **state)
{
    (void)state;
    for (size_t i = 0; cm_workloads[i] != NULL; i++) {
        const struct cm_workload *workload = cm_workloads[i];
        char *params = calloc(1, workload->params_size + 16);
        assert_non_null(params);
        memset(params + workload->params_size, 0x5a, 16);
        assert_ok(cm_option_defaults(workload->options, params));
        for (int j = 0; j < 16; j++)
            assert_int_equal(params[workload->params_size + (size_t)j], 0x5a);
        if (workload->validate != NULL)
            assert_ok(workload->validate(params, "test"));
        free(params);
    }
}

static void test_bad_parameters_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *workload, *settings, *message;
    } rows[] = {
        {"gemm", "m=1e7 n=1e7 k=1e7 batch=1e6", "2^56"},
        {"gemm", "dtype=i32", "i8"},
        {"gemm", "dtype=i8 out=f32", "out = auto"},
        {"gemm", "search=quick soak=1s", "exclude"},
        {"membw", "size=12 dtype=f64", "multiple"},
        {"membw", "size=8e18", "2^56"},
        {"collective", "size=1", "one element of 4"},
        {"collective", "size=8e18", "2^56"},
        {"collective", "op=all_gather in_place=yes", "all_reduce"},
        {"collective", "dtype=i8", "i32"},
        {"sendrecv", "size=6", "multiple of 4"},
        {"sendrecv", "latency_size=10", "latency_size"},
        {"sendrecv", "size=8e18", "2^56"},
        {"overlap", "m=1e7 n=1e7 k=1e7 dtype=f64 size=1", "size"},
        {"overlap", "size=8e18", "2^56"},
        {"hostlink", "size=6", "multiple of 4"},
        {"hostlink", "latency_size=8e18", "2^56"},
        {"hostlink", "direction=both memory=pageable", "waiting"},
        {"trainstep", "model=tinny", "tinny"},
        {"trainstep", "layers=many", "no number"},
        {"trainstep", "layers=9", "layers"},
        {"trainstep", "plan=dp=2,tq=2", "tq"},
        {"trainstep", "plan=tp=3", "heads"},
        {"trainstep", "plan=pp=2,vpp=2 micro_batches=3", "micro_batches"},
        {"trainstep", "plan=cp=2 sequence=66", "sequence"},
        {"p2p", "latency_size=6", "multiple of 4"},
        {"p2p", "size=8e18", "2^56"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct cm_workload *workload = cm_workload_find(rows[i].workload);
        void *params = calloc(1, workload->params_size);
        set_params(workload, rows[i].settings, params);
        assert_status(workload->validate(params, "x.ini:3"), CM_USAGE, rows[i].message);
        assert_memory_equal(cm_error_text(), "x.ini:3: ", 9);
        free(params);
    }
    /* No products at all do not pass the table. */
    const struct cm_workload *workload = cm_workload_find("gemm");
    void *params = calloc(1, workload->params_size);
    assert_status(cm_option_set(cm_option_find(workload->options, "batch"), "0", "x", params),
                  CM_USAGE, "batch");
    free(params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documented),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_bad_parameters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
