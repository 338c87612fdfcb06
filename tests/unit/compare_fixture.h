/*
 * compare_fixture.h: result files made by hand, for compare and gate.
 */
#ifndef TESTS_UNIT_COMPARE_FIXTURE_H
#define TESTS_UNIT_COMPARE_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/compare.h"
#include "clustermark/json.h"
#include "test.h"

/* What a file is made from. Two cases: a time (lower is better) and a rate (higher is better). */
struct made {
    const char *file;
    unsigned runs;
    double time, rate; /* centre of the runs */
    double noise;      /* relative */
    uint64_t seed;
    const char *status; /* of the first case; NULL: ok */
    const char *unit;   /* of the time; NULL: s */
    const char *extra;  /* more fields of the suite, like ", \"injected\": 0.05" */
    const char *device, *digest, *environment, *telemetry; /* NULL: a default */
    bool no_time;                                          /* the time's case is left out */
    const char *time_gate, *rate_gate; /* more settings, like ", \"gate\": \"time\"" */
};

static char folder[64];

static const char *path_of(const char *file)
{
    static char paths[64][128];
    static unsigned next;
    char *path = paths[next++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", folder, file);
    return path;
}

static double uniform(uint64_t *seed)
{
    uint64_t z = *seed += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (double)(z >> 11) / 0x1p53;
}

static void write_case(FILE *out, const struct made *made, bool of_time, uint64_t *seed)
{
    double centre = of_time ? made->time : made->rate;
    const char *name = of_time ? "time" : "algbw";
    const char *unit = !of_time ? "B/s" : made->unit != NULL ? made->unit : "s";
    const char *better = of_time ? "lower" : "higher";
    const char *gate = of_time ? made->time_gate : made->rate_gate;
    const char *status = of_time && made->status != NULL ? made->status : "ok";
    fprintf(out,
            "{\"name\":\"%s\",\"section\":\"s\",\"workload\":\"collective\",\"ranks\":2,"
            "\"params\":{\"op\":\"all_reduce\",\"size\":1024},\"settings\":{\"runs\":6,"
            "\"min_time\":0.1%s},\"status\":\"%s\",\"reason\":\"because\",\"telemetry\":{%s},"
            "\"metrics\":{\"%s\":{\"value\":%.12g,\"unit\":\"%s\",\"better\":\"%s\"}},\"runs\":[",
            of_time ? "small" : "large", gate != NULL ? gate : "", status,
            of_time && made->telemetry != NULL ? made->telemetry : "", name, centre, unit, better);
    for (unsigned run = 0; run < made->runs; run++) {
        double value = centre * exp(made->noise * (uniform(seed) + uniform(seed) - 1));
        fprintf(out,
                "%s{\"run\":%u,\"status\":\"ok\",\"wall_s\":2,\"samples_s\":[%.9g,%.9g,%.9g,%.9g],"
                "\"metrics\":{\"%s\":{\"value\":%.12g,\"unit\":\"%s\",\"better\":\"%s\"}}}",
                run > 0 ? "," : "", run, value, value * 1.001, value * 0.999, value, name, value,
                unit, better);
    }
    fprintf(out, "]}");
}

static const char *make_file(const struct made *made)
{
    const char *path = path_of(made->file);
    uint64_t seed = made->seed;
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fprintf(out,
            "{\"schema\":\"clustermark.result\",\"version\":\"1.0\",\"ending\":\"complete\","
            "\"started\":\"2026-01-02T03:04:%02uZ\",\"device\":\"%s\",\"ranks\":2,"
            "\"tool\":{\"version\":\"0.1.0\"},\"machine\":{\"digest\":\"%s\",\"host\":\"h\"},"
            "\"stack\":{\"kernel\":\"k\"},\"environment\":{%s},\"suite\":{\"name\":\"s\"%s},"
            "\"devices\":[{\"name\":\"D\"},{\"name\":\"D\"}],\"sweeps\":[],\"cases\":[",
            (unsigned)(made->seed % 60), made->device != NULL ? made->device : "cpu",
            made->digest != NULL ? made->digest : "d1",
            made->environment != NULL ? made->environment : "",
            made->extra != NULL ? made->extra : "");
    if (!made->no_time) {
        write_case(out, made, true, &seed);
        fprintf(out, ",");
    }
    write_case(out, made, false, &seed);
    fprintf(out, "]}\n");
    assert_int_equal(fclose(out), 0);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    cm_json_init();
    snprintf(folder, sizeof folder, "/tmp/cm-compare-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static inline const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static inline double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* The row of an array whose "key" is that. */
static inline const json_t *row_of(const json_t *document, const char *array, const char *key)
{
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(document, array), index, row)
    {
        if (strcmp(text_of(row, "key"), key) == 0)
            return row;
    }
    return NULL;
}

#endif
