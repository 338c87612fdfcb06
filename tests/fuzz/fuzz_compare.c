/* What compare and gate make of a stranger's result: it is read as a set, held against itself and
 * against a fixed one, with a price that comes from the same bytes. Taking samples out of a text
 * leaves a result a result. */
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "fuzz/fuzz.h"
#include "host/result/compare.h"
#include "host/result/gate.h"
#include "host/result/price.h"
#include "host/result/record.h"

static void check_price(const uint8_t *data, size_t size)
{
    char text[256];
    struct cm_price price;
    snprintf(text, sizeof text, "%.*s", (int)(size < 200 ? size : 200), (const char *)data);
    if (cm_price_parse(text, "--price", &price) == CM_OK)
        REQUIRE(price.per_hour > 0 && isfinite(price.per_hour) && strlen(price.currency) == 3);
    else
        REQUIRE(strncmp(cm_error_text(), "--price:", 8) == 0);
}

static json_t *parse(const uint8_t *data, size_t size, bool shorten)
{
    json_t *result = NULL;
    char *text = malloc(size + 1);
    REQUIRE(text != NULL);
    memcpy(text, data, size);
    size_t length = shorten ? cm_samples_shorten(text, size) : size;
    REQUIRE(length <= size);
    if (cm_result_parse(text, length, "r.json", &result) != CM_OK)
        result = NULL;
    free(text);
    return result;
}

/* What the suites declare: at most as many as can be gated, or a line that says so. */
static void check_rules(const struct cm_set *sets)
{
    struct cm_gate_request request = {.rules = NULL};
    struct cm_gate_rules rules = {.count = 0};
    if (cm_gate_rules_make(&request, &sets[0], &sets[1], &rules) == CM_OK)
        REQUIRE(rules.count <= CM_GATED_MAX);
    else
        REQUIRE(cm_error_text()[0] != '\0');
    cm_gate_rules_release(&rules);
}

static void check_sets(json_t *result, json_t *again)
{
    struct cm_set sets[2] = {{.name = cm_strdup("a")}, {.name = cm_strdup("b")}};
    struct cm_differences differences = {.rows = NULL};
    json_t *rows = NULL;
    REQUIRE(cm_set_add_result(&sets[0], "a.json", result) == CM_OK);
    REQUIRE(cm_set_add_result(&sets[1], "b.json", again) == CM_OK);
    struct cm_price price = {.per_hour = 3.6, .currency = "USD", .devices = 8};
    REQUIRE(cm_price_add(&sets[0], &price) == CM_OK);
    cm_set_trim(&sets[0], 50);
    cm_set_trim(&sets[1], 50);
    REQUIRE(cm_differences_find(sets, 2, CM_USE_GATE, NULL, 0, &differences) == CM_OK);
    REQUIRE(cm_differences_json(&differences, &rows) == CM_OK);
    for (size_t i = 0; i < sets[0].series_count; i++) {
        const struct cm_series *base = &sets[0].series[i];
        const struct cm_series *other = cm_set_find(&sets[1], base->key);
        struct cm_variances parts;
        struct cm_pair pair;
        struct cm_shift shift;
        struct cm_sessions sessions;
        struct cm_power power = {.risk = 0.01, .power = 0.8, .margin = 0.02};
        double detectable;
        enum cm_gate_verdict verdict;
        char reason[240];
        cm_gate_invalid(&sets[0], base, &verdict, reason, sizeof reason);
        if (other == NULL || base->count == 0 || other->count == 0)
            continue;
        REQUIRE(cm_series_variances(&sets[0], base, &parts) == CM_OK);
        REQUIRE(cm_pair_make(base, other, &pair) == CM_OK);
        REQUIRE(cm_hodges_lehmann(pair.x.values, pair.x.count, pair.y.values, pair.y.count, 0.95,
                                  &shift) == CM_OK);
        cm_pair_judge(&pair, &shift, 0.02);
        REQUIRE(cm_session_widening(&pair.x, &pair.y, 0.01, &sessions) == CM_OK);
        REQUIRE(sessions.widening >= 0 || isnan(sessions.widening));
        REQUIRE(cm_resampled_shift(&pair.x, &pair.y, &power, &detectable) == CM_OK);
        cm_pair_release(&pair);
    }
    check_rules(sets);
    json_decref(rows);
    cm_differences_release(&differences);
    cm_set_release(&sets[0]);
    cm_set_release(&sets[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cm_json_init();
    cm_error_clear();
    check_price(data, size);
    json_t *whole = parse(data, size, false), *brief = parse(data, size, true);
    REQUIRE(whole == NULL || brief != NULL ||
            memmem(data, size, "samples_left_out", strlen("samples_left_out")) != NULL);
    if (whole != NULL && brief != NULL) {
        check_sets(whole, brief);
    } else {
        json_decref(whole);
        json_decref(brief);
    }
    return 0;
}
