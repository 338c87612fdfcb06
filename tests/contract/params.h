/*
 * params.h: parameters of a workload from a line of text.
 */
#ifndef TESTS_CONTRACT_PARAMS_H
#define TESTS_CONTRACT_PARAMS_H

#include <stdio.h>
#include <string.h>

#include "clustermark/workload.h"
#include "test.h"

/* "key=value key=value" over the defaults. */
static void set_params(const struct cm_workload *workload, const char *settings, void *params)
{
    char text[256];
    snprintf(text, sizeof text, "%s", settings);
    assert_ok(cm_option_defaults(workload->options, params));
    for (char *rest = text, *word; (word = strtok_r(rest, " ", &rest)) != NULL;) {
        char *value = strchr(word, '=');
        assert_non_null(value);
        *value++ = '\0';
        const struct cm_option *option = cm_option_find(workload->options, word);
        assert_non_null(option);
        assert_ok(cm_option_set(option, value, "test", params));
    }
}

#endif
