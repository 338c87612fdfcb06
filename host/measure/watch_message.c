/* The payloads of messages between ranks and the watcher. */
#include "host/measure/watch_message.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/measure/message.h"

static enum cm_status misfit(const struct cm_message *message)
{
    if (cm_json_starved())
        return cm_error(CM_NO_MEMORY, "out of memory for a message \"%s\"", message->kind);
    return cm_error(CM_COMM, "a message \"%s\" does not fit", message->kind);
}

/* What does not fit is cut, and what would steer a terminal replaced: texts of other hosts are
 * printed. */
static void take_text(const char *text, char *to, size_t size)
{
    size_t length = strnlen(text, size - 1);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        to[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    to[length] = '\0';
}

enum cm_status cm_send_watch_hello(struct cm_channel *channel, const struct cm_watch_hello *hello)
{
    char cookie[2 * CM_WATCH_COOKIE_BYTES + 1];
    for (size_t i = 0; i < CM_WATCH_COOKIE_BYTES; i++)
        snprintf(cookie + 2 * i, 3, "%02x", hello->cookie[i]);
    return cm_send_object(channel, "hello",
                          json_pack("{s:s, s:I, s:s, s:s, s:b}", "cookie", cookie, "rank",
                                    (json_int_t)hello->rank, "host", hello->host, "device",
                                    hello->device, "near", (int)hello->near));
}

enum cm_status cm_read_watch_hello(const struct cm_message *message, struct cm_watch_hello *hello)
{
    json_t *object = NULL;
    json_int_t rank;
    int near;
    const char *cookie, *host, *device;
    struct cm_watch_hello read = {.rank = 0};
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    if (json_unpack(object, "{s:s, s:I, s:s, s:s, s:b}", "cookie", &cookie, "rank", &rank, "host",
                    &host, "device", &device, "near", &near) != 0 ||
        rank < 0 || rank > UINT32_MAX / 2 || strlen(cookie) != 2 * CM_WATCH_COOKIE_BYTES)
        status = misfit(message);
    for (size_t i = 0; status == CM_OK && i < CM_WATCH_COOKIE_BYTES; i++) {
        unsigned byte;
        if (sscanf(cookie + 2 * i, "%2x", &byte) != 1)
            status = misfit(message);
        else
            read.cookie[i] = (uint8_t)byte;
    }
    if (status == CM_OK) {
        read.rank = (unsigned)rank;
        read.near = near != 0;
        take_text(host, read.host, sizeof read.host);
        take_text(device, read.device, sizeof read.device);
        *hello = read;
    }
    json_decref(object);
    return status;
}

enum cm_status cm_send_beat(struct cm_channel *channel, const struct cm_place *place)
{
    json_t *object = json_pack("{s:b, s:I, s:I, s:s, s:s, s:I, s:I, s:I, s:s}", "in",
                               (int)place->in_case, "case", (json_int_t)place->case_index, "run",
                               (json_int_t)place->run, "name", place->name, "phase", place->phase,
                               "steps", (json_int_t)place->steps, "ticks", (json_int_t)place->ticks,
                               "ops", (json_int_t)place->common, "op", place->operation);
    if (object != NULL && cm_json_set(object, "allowed", cm_json_real(place->allowed_s)) != CM_OK) {
        json_decref(object);
        object = NULL;
    }
    return cm_send_object(channel, "beat", object);
}

enum cm_status cm_read_beat(const struct cm_message *message, struct cm_place *place)
{
    json_t *object = NULL, *allowed = NULL;
    json_int_t numbers[5];
    int in_case;
    const char *name, *phase, *operation;
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    bool fits = json_unpack(object, "{s:b, s:I, s:I, s:s, s:s, s:I, s:I, s:I, s:s, s:o}", "in",
                            &in_case, "case", &numbers[0], "run", &numbers[1], "name", &name,
                            "phase", &phase, "steps", &numbers[2], "ticks", &numbers[3], "ops",
                            &numbers[4], "op", &operation, "allowed", &allowed) == 0;
    for (size_t i = 0; fits && i < sizeof numbers / sizeof numbers[0]; i++)
        fits = numbers[i] >= 0;
    if (fits) {
        struct cm_place read = {.in_case = in_case != 0,
                                .case_index = (uint64_t)numbers[0],
                                .run = (uint64_t)numbers[1],
                                .steps = (uint64_t)numbers[2],
                                .ticks = (uint64_t)numbers[3],
                                .common = (uint64_t)numbers[4],
                                .allowed_s = json_is_number(allowed) ? json_number_value(allowed)
                                                                     : INFINITY};
        take_text(name, read.name, sizeof read.name);
        take_text(phase, read.phase, sizeof read.phase);
        take_text(operation, read.operation, sizeof read.operation);
        *place = read;
    } else {
        status = misfit(message);
    }
    json_decref(object);
    return status;
}

enum cm_status cm_send_welcome(struct cm_channel *channel, bool speaks)
{
    return cm_send_object(channel, "welcome", json_pack("{s:b}", "speaks", (int)speaks));
}

enum cm_status cm_read_welcome(const struct cm_message *message, bool *speaks)
{
    json_t *object = NULL;
    int read;
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    if (json_unpack(object, "{s:b}", "speaks", &read) != 0)
        status = misfit(message);
    else
        *speaks = read != 0;
    json_decref(object);
    return status;
}
