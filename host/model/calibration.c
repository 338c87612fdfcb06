/* The cost model's parameters: their first guesses, read and written. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/cost.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/suite.h"
#include "clustermark/units.h"

/* What rows differ by where nothing was fitted. */
#define UNFITTED_RESIDUAL 0.15
#define UNFITTED_EXPERTS  0.40

const struct cm_cost_parameter_info cm_cost_parameter_infos[CM_COST_PARAMETER_COUNT] = {
#define CM_COST_INFO(name, guess, spread, help) {#name, guess, spread, help},
    CM_COST_PARAMETERS(CM_COST_INFO)
#undef CM_COST_INFO
};

void cm_calibration_guess(struct cm_calibration *calibration)
{
    memset(calibration, 0, sizeof *calibration);
    for (size_t i = 0; i < CM_COST_PARAMETER_COUNT; i++) {
        calibration->value[i] = cm_cost_parameter_infos[i].guess;
        calibration->spread[i] = cm_cost_parameter_infos[i].spread;
    }
    calibration->residual = UNFITTED_RESIDUAL;
    calibration->residual_experts = UNFITTED_EXPERTS;
}

static int find_parameter(const char *name)
{
    for (int i = 0; i < CM_COST_PARAMETER_COUNT; i++)
        if (strcmp(cm_cost_parameter_infos[i].name, name) == 0)
            return i;
    return -1;
}

static enum cm_status read_positive(const struct cm_setting *setting, const char *text,
                                    double *value)
{
    double read;
    enum cm_status status = cm_parse_real(text, &read);
    if (status != CM_OK)
        return cm_error_at(status, "%s: %s", setting->where, setting->key);
    if (!(read > 0))
        return cm_error(CM_USAGE, "%s: %.40s is %.20s; above 0", setting->where, setting->key,
                        text);
    *value = read;
    return CM_OK;
}

/* "0.75 +- 0.02": the value, and the standard deviation of its logarithm. */
static enum cm_status read_parameter(const struct cm_setting *setting, double *value,
                                     double *spread)
{
    char text[64];
    const char *sign = strstr(setting->value, "+-");
    if (sign == NULL || (size_t)(sign - setting->value) >= sizeof text)
        return cm_error(CM_USAGE, "%s: '%.40s' is no parameter; write it like 0.75 +- 0.02",
                        setting->where, setting->value);
    snprintf(text, sizeof text, "%.*s", (int)(sign - setting->value), setting->value);
    for (size_t length = strlen(text); length > 0 && text[length - 1] == ' '; length--)
        text[length - 1] = '\0';
    enum cm_status status = read_positive(setting, text, value);
    if (status == CM_OK)
        status = read_positive(setting, sign + 2 + strspn(sign + 2, " "), spread);
    return status;
}

static enum cm_status read_fit(const struct cm_section *section, struct cm_calibration *made)
{
    for (size_t i = 0; i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        enum cm_status status = CM_OK;
        size_t used = strlen(made->sources);
        if (strcmp(setting->key, "residual") == 0)
            status = read_positive(setting, setting->value, &made->residual);
        else if (strcmp(setting->key, "residual_experts") == 0)
            status = read_positive(setting, setting->value, &made->residual_experts);
        else if (strcmp(setting->key, "rows") == 0)
            status = cm_parse_count(setting->value, &made->rows);
        else if (strncmp(setting->key, "source", 6) == 0)
            snprintf(made->sources + used, sizeof made->sources - used, "%s%s",
                     used > 0 ? ", " : "", setting->value);
        else
            return cm_error(CM_USAGE, "%s: [fit] has no '%.40s'", setting->where, setting->key);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static enum cm_status read_section(const struct cm_section *section, struct cm_calibration *made,
                                   size_t *found)
{
    if (strcmp(section->name, "fit") == 0)
        return read_fit(section, made);
    if (strcmp(section->name, "parameters") != 0)
        return cm_error(CM_USAGE, "%s: section [%.40s]; [parameters] and [fit] are read",
                        section->where, section->name);
    for (size_t i = 0; i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        int which = find_parameter(setting->key);
        if (which < 0)
            return cm_error(CM_USAGE, "%s: the model has no parameter '%.40s'", setting->where,
                            setting->key);
        enum cm_status status = read_parameter(setting, &made->value[which], &made->spread[which]);
        if (status != CM_OK)
            return status;
        (*found)++;
    }
    return CM_OK;
}

static enum cm_status read_file(const char *path, struct cm_calibration *calibration)
{
    struct cm_suite file = {.name = NULL};
    struct cm_calibration made;
    size_t found = 0;
    cm_calibration_guess(&made);
    enum cm_status status = cm_suite_load(path, &file);
    for (size_t i = 0; status == CM_OK && i < file.section_count; i++)
        status = read_section(&file.sections[i], &made, &found);
    if (status == CM_OK && found != CM_COST_PARAMETER_COUNT)
        status = cm_error(CM_USAGE, "%s: %zu of the model's %d parameters", path, found,
                          CM_COST_PARAMETER_COUNT);
    cm_suite_release(&file);
    if (status == CM_OK)
        *calibration = made;
    return status;
}

enum cm_status cm_calibration_load(const char *path, struct cm_calibration *calibration)
{
    char *found = NULL;
    enum cm_status status = cm_config_find(path != NULL ? path : "calibration", "", &found);
    if (status == CM_OK && found == NULL)
        status = cm_error(CM_USAGE, "there is no calibration '%.200s'",
                          path != NULL ? path : "configs/calibration.ini");
    if (status == CM_OK)
        status = read_file(found, calibration);
    cm_free(found);
    return status;
}

void cm_calibration_write(const struct cm_calibration *calibration, struct cm_str *out)
{
    cm_str_add(out,
               "; What `clustermark project` knows of rates and overlaps, written by its --fit. "
               "value +- standard\n; deviation of its logarithm; a spread equal to the first "
               "guess's means that no row spoke of it.\n\n[parameters]\n");
    for (size_t i = 0; i < CM_COST_PARAMETER_COUNT; i++) {
        const struct cm_cost_parameter_info *info = &cm_cost_parameter_infos[i];
        cm_str_addf(out, "; %s; first guess %g +- %g\n%s = %.6g +- %.3g\n", info->help, info->guess,
                    info->spread, info->name, calibration->value[i], calibration->spread[i]);
    }
    cm_str_addf(out,
                "\n; the rows that it was fitted on, by source; residuals: what rows of other "
                "sources differ by\n[fit]\nrows = %llu\nresidual = %.4g\nresidual_experts = %.4g\n",
                (unsigned long long)calibration->rows, calibration->residual,
                calibration->residual_experts);
}
