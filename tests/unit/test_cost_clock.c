/* The cost model's closed form against its schedule executed on the virtual clock with the same
 * model's times of operations. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/cost.h"
#include "test.h"

struct plan_case {
    const char *model, *gpu, *plan;
    unsigned micro_batches, micro_batch;
    enum cm_recompute recompute;
};

/* Of |closed form / executed - 1|, and of the mean over all cases. */
#define BOUND      0.05
#define MEAN_BOUND 0.01

static struct cm_gpu_catalogue catalogue;
static struct cm_calibration calibration;

static int load(void **state)
{
    (void)state;
    return cm_gpu_catalogue_load(&catalogue) == CM_OK &&
                   cm_calibration_load(NULL, &calibration) == CM_OK
               ? 0
               : -1;
}

static int release(void **state)
{
    (void)state;
    cm_gpu_catalogue_release(&catalogue);
    return 0;
}

static void job_of(const struct plan_case *item, struct cm_cost_job *job, struct cm_step *step)
{
    struct cm_transformer model;
    struct cm_parallel plan;
    assert_ok(cm_transformer_load(item->model, 0, &model));
    assert_ok(cm_parallel_parse(item->plan, "plan", &plan));
    cm_cost_job_from(&model, &plan, cm_gpu_find(&catalogue, item->gpu), job);
    job->micro_batches = item->micro_batches;
    job->micro_batch = item->micro_batch;
    job->recompute = item->recompute;
    job->software = CM_SOFTWARE_OWN;
    cm_cost_step(&model, &plan, job, step);
}

static const struct plan_case cases[] = {
    /* clang-format off */
    {"llama3-8b", "H100", "tp=1", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-8b", "H100", "tp=1", 8, 1, CM_RECOMPUTE_SELECTIVE},
    {"llama3-8b", "H100", "tp=1", 8, 1, CM_RECOMPUTE_FULL},
    {"gpt3-175b", "A100", "tp=8,sp=1", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "tp=8,sp=1", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "tp=8", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "tp=2,sp=1", 8, 1, CM_RECOMPUTE_FULL},
    {"llama3-70b", "H100", "pp=4,tp=4,sp=1", 16, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "pp=8,tp=4,sp=1", 16, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "pp=8,vpp=2,tp=4,sp=1", 16, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "pp=4,vpp=5,tp=4,sp=1", 16, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "pp=4,tp=8,sp=1,dp=16,zero=1", 16, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "pp=4,tp=8,sp=1,dp=128,zero=1", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-8b", "H100", "dp=8", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-8b", "H100", "dp=8,zero=1", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-8b", "H100", "dp=64,zero=1", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-8b", "H100", "dp=64,zero=2", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-8b", "H100", "dp=64,zero=3", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-8b", "H100", "dp=512,zero=3", 4, 1, CM_RECOMPUTE_NONE},
    {"llama3-70b", "H100", "tp=8,sp=1,dp=16,zero=3", 4, 1, CM_RECOMPUTE_SELECTIVE},
    {"llama3-70b", "H100", "tp=4,sp=1,cp=2,pp=4,dp=4,zero=1", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-8b", "H100", "cp=8", 8, 1, CM_RECOMPUTE_NONE},
    {"mixtral-8x7b", "H100", "dp=8,ep=8,zero=1", 8, 1, CM_RECOMPUTE_NONE},
    {"mixtral-8x7b", "H100", "dp=8,ep=2,tp=4,sp=1,zero=1,pp=2", 8, 1, CM_RECOMPUTE_NONE},
    {"llama3-405b", "H100", "tp=8,sp=1,pp=16,dp=128,zero=1", 16, 1, CM_RECOMPUTE_SELECTIVE},
    {"llama3-405b", "GB200", "tp=8,sp=1,pp=8,dp=1024,zero=1", 16, 1, CM_RECOMPUTE_SELECTIVE},
    {"llama3-405b", "H100", "tp=8,sp=1,pp=16,vpp=2,dp=1024,zero=1", 16, 1, CM_RECOMPUTE_SELECTIVE},
    /* clang-format on */
};

static void tell(const struct plan_case *item, const struct cm_step_cost *c,
                 const struct cm_step_cost *e)
{
    const struct {
        const char *name;
        double closed, executed;
    } parts[] = {{"gemm", c->gemm, e->gemm},
                 {"attention", c->attention, e->attention},
                 {"elementwise", c->elementwise, e->elementwise},
                 {"host", c->host, e->host},
                 {"head", c->head, e->head},
                 {"tensor", c->tensor, e->tensor},
                 {"context", c->context, e->context},
                 {"expert", c->expert, e->expert},
                 {"overlap", c->overlap, e->overlap},
                 {"shards", c->shards, e->shards},
                 {"data", c->data, e->data},
                 {"optimizer", c->optimizer, e->optimizer},
                 {"idle", c->stages + c->imbalance + c->bubble, e->bubble},
                 {"straggler", c->straggler, e->straggler}};
    printf("%s on %s, %s, %u: closed form %.4f s, executed %.4f s: %+.1f %%\n", item->model,
           item->gpu, item->plan, item->micro_batches, c->step, e->step,
           100 * (c->step / e->step - 1));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (fabs(parts[i].closed - parts[i].executed) > 0.005 * e->step)
            printf("    %-11s %.4f against %.4f: %+.1f %% of the step\n", parts[i].name,
                   parts[i].closed, parts[i].executed,
                   100 * (parts[i].closed - parts[i].executed) / e->step);
}

static void closed_form_is_the_schedule(void **state)
{
    (void)state;
    int far = 0;
    double sum = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_cost_job job;
        struct cm_step step;
        struct cm_step_cost closed, executed;
        uint64_t operations;
        job_of(&cases[i], &job, &step);
        cm_step_cost(&job, calibration.value, &closed);
        assert_ok(cm_cost_execute(&step, &job, calibration.value, &executed, &operations));
        double off = fabs(closed.step / executed.step - 1);
        bool is_far = !(off <= BOUND);
        far += is_far;
        sum += off;
        if (is_far || getenv("CM_TEST_VERBOSE") != NULL)
            tell(&cases[i], &closed, &executed);
    }
    assert_int_equal(far, 0);
    assert_true(sum / (sizeof cases / sizeof *cases) <= MEAN_BOUND);
}

static double sum_of_parts(const struct cm_step_cost *c)
{
    return c->gemm + c->attention + c->elementwise + c->cast + c->head + c->host + c->tensor +
           c->context + c->expert + c->overlap + c->stages + c->shards + c->imbalance + c->bubble +
           c->data + c->optimizer + c->fixed + c->straggler;
}

/* Whatever the plan and the software: the parts are the step, and none is negative. */
static void executed_parts_add_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_cost_job job;
        struct cm_step step;
        struct cm_step_cost cost;
        uint64_t operations;
        job_of(&cases[i], &job, &step);
        job.software = i % 2 ? CM_SOFTWARE_FUSED : CM_SOFTWARE_OWN;
        assert_ok(cm_cost_execute(&step, &job, calibration.value, &cost, &operations));
        assert_near(sum_of_parts(&cost), cost.step, 1e-9);
        assert_true(cost.bubble >= 0 && cost.data >= 0 && cost.shards >= 0 && cost.gemm > 0);
        assert_true(operations > 0 && (job.pp > 1 || cost.bubble < 0.01 * cost.step));
    }
}

static void execution_is_refused(void **state)
{
    (void)state;
    const struct plan_case item = {"llama3-8b", "H100", "tp=1", 1, 1, CM_RECOMPUTE_NONE};
    struct cm_cost_job job;
    struct cm_step step;
    struct cm_step_cost cost;
    uint64_t operations;
    job_of(&item, &job, &step);
    step.parallel.tp = 3;
    assert_status(cm_cost_execute(&step, &job, calibration.value, &cost, &operations), CM_USAGE,
                  "tp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_form_is_the_schedule),
        cmocka_unit_test(executed_parts_add_up),
        cmocka_unit_test(execution_is_refused),
    };
    return cmocka_run_group_tests(tests, load, release);
}
