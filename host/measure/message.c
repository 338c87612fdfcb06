/* The payloads of messages between supervisor and ranks. */
#include "host/measure/message.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/option.h"
#include "host/measure/bind.h"

enum cm_status cm_send_object(struct cm_channel *channel, const char *kind, json_t *object)
{
    if (object == NULL)
        return cm_error(CM_NO_MEMORY, "out of memory for a message \"%s\"", kind);
    char *text = NULL;
    enum cm_status status = cm_json_dump(object, 0, &text);
    json_decref(object);
    if (status == CM_OK)
        status = cm_channel_send(channel, kind, text);
    cm_free(text);
    return status;
}

enum cm_status cm_send_hello(struct cm_channel *channel, const struct cm_hello *hello)
{
    return cm_send_object(channel, "hello",
                          json_pack("{s:I, s:I, s:s}", "rank", (json_int_t)hello->rank, "size",
                                    (json_int_t)hello->size, "launcher", hello->launcher));
}

enum cm_status cm_send_job(struct cm_channel *channel, const struct cm_job *job)
{
    json_t *bus_ids = json_array();
    for (unsigned i = 0; job->bus_ids != NULL && i < job->ranks && bus_ids != NULL; i++) {
        if (json_array_append_new(bus_ids, json_string(job->bus_ids[i])) != 0) {
            json_decref(bus_ids);
            bus_ids = NULL;
        }
    }
    /* "o" takes the list over, also when the rest fails. */
    return cm_send_object(channel, "job",
                          bus_ids == NULL
                              ? NULL
                              : json_pack("{s:s, s:I, s:I, s:f, s:I, s:o}", "device", job->device,
                                          "ranks", (json_int_t)job->ranks, "run",
                                          (json_int_t)job->run, "timeout_s", job->timeout_s,
                                          "devices", (json_int_t)job->devices, "bus_ids", bus_ids));
}

enum cm_status cm_send_case(struct cm_channel *channel, const struct cm_case *item, size_t index,
                            double limit_s)
{
    struct cm_str settings = CM_STR_INIT;
    cm_str_addf(&settings, "workload=%s\n", item->workload->name);
    cm_option_write_all(cm_run_options, &item->settings, "\n", &settings);
    cm_str_add(&settings, "\n");
    cm_option_write_all(item->workload->options, item->params, "\n", &settings);
    enum cm_status status = cm_str_status(&settings);
    if (status == CM_OK) {
        json_t *object = json_pack("{s:I, s:s, s:s, s:s, s:s}", "index", (json_int_t)index, "name",
                                   item->name, "section", item->section, "where", item->where,
                                   "settings", cm_str_text(&settings));
        if (object != NULL)
            status = cm_json_set(object, "limit_s", cm_json_real(limit_s));
        if (status == CM_OK)
            status = cm_send_object(channel, "case", object);
        else
            json_decref(object);
    }
    cm_str_release(&settings);
    return status;
}

enum cm_status cm_send_phase(struct cm_channel *channel, const char *phase)
{
    return cm_send_object(channel, "phase", json_pack("{s:s}", "phase", phase));
}

enum cm_status cm_send_error(struct cm_channel *channel, const struct cm_rank_error *error)
{
    return cm_send_object(
        channel, "error",
        json_pack("{s:i, s:s}", "status", (int)error->status, "text", error->text));
}

enum cm_status cm_send_meeting(struct cm_channel *channel, const struct cm_meeting_bytes *meeting)
{
    char hex[2 * CM_MEETING_MAX + 1] = "";
    for (size_t i = 0; i < meeting->size; i++)
        snprintf(hex + 2 * i, 3, "%02x", meeting->bytes[i]);
    return cm_send_object(channel, "meeting", json_pack("{s:s}", "bytes", hex));
}

enum cm_status cm_send_topology(struct cm_channel *channel, const char *text)
{
    return cm_send_object(channel, "topology", json_pack("{s:s}", "text", text));
}

enum cm_status cm_send_word(struct cm_channel *channel, const char *kind)
{
    return cm_channel_send(channel, kind, "{}");
}

enum cm_status cm_message_object(const struct cm_message *message, json_t **object)
{
    enum cm_status status = cm_json_parse(message->payload, message->length, message->kind, object);
    return status == CM_OK || status == CM_NO_MEMORY
               ? status
               : cm_error(CM_COMM, "a message \"%s\" is not JSON: %s", message->kind,
                          cm_error_text());
}

static enum cm_status misfit(const struct cm_message *message, const char *what)
{
    if (cm_json_starved())
        return cm_error(CM_NO_MEMORY, "out of memory for a message \"%s\"", message->kind);
    return cm_error(CM_COMM, "a message \"%s\" does not fit: %s", message->kind, what);
}

/* json_unpack's "s" gives text of any length; only what fits is taken. */
static bool take_text(const char *text, char *to, size_t size)
{
    size_t length = strlen(text);
    if (length >= size)
        return false;
    memcpy(to, text, length + 1);
    return true;
}

enum cm_status cm_read_hello(const struct cm_message *message, struct cm_hello *hello)
{
    json_t *object = NULL;
    json_error_t error;
    json_int_t rank, size;
    const char *launcher;
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    struct cm_hello read = {.rank = 0};
    if (json_unpack_ex(object, &error, 0, "{s:I, s:I, s:s}", "rank", &rank, "size", &size,
                       "launcher", &launcher) != 0)
        status = misfit(message, error.text);
    else if (size < 1 || size > UINT32_MAX / 2 || rank < 0 || rank >= size ||
             !take_text(launcher, read.launcher, sizeof read.launcher))
        status = misfit(message, "rank or size out of range");
    if (status == CM_OK) {
        read.rank = (unsigned)rank;
        read.size = (unsigned)size;
        *hello = read;
    }
    json_decref(object);
    return status;
}

/* A list of all ranks' ids, or of nothing. */
static enum cm_status take_bus_ids(const struct cm_message *message, const json_t *list,
                                   struct cm_job *job)
{
    if (json_array_size(list) == 0)
        return CM_OK;
    if (json_array_size(list) != job->ranks)
        return misfit(message, "as many bus ids as ranks are wanted");
    job->bus_ids = cm_alloc(job->ranks, sizeof *job->bus_ids);
    if (job->bus_ids == NULL)
        return CM_NO_MEMORY;
    for (unsigned i = 0; i < job->ranks; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text == NULL)
            return misfit(message, "a bus id is no text");
        job->bus_ids[i] = cm_strdup(text);
        if (job->bus_ids[i] == NULL)
            return CM_NO_MEMORY;
    }
    return CM_OK;
}

enum cm_status cm_read_job(const struct cm_message *message, struct cm_job *job)
{
    json_t *object = NULL, *bus_ids = NULL;
    json_error_t error;
    json_int_t ranks, run, devices;
    const char *device;
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    struct cm_job read = {.ranks = 0};
    if (json_unpack_ex(object, &error, 0, "{s:s, s:I, s:I, s:F, s:I, s:o}", "device", &device,
                       "ranks", &ranks, "run", &run, "timeout_s", &read.timeout_s, "devices",
                       &devices, "bus_ids", &bus_ids) != 0)
        status = misfit(message, error.text);
    else if (ranks < 1 || ranks > UINT32_MAX / 2 || run < 0 || !(read.timeout_s > 0) ||
             devices < 0 || devices > UINT32_MAX / 2 || !json_is_array(bus_ids) ||
             !take_text(device, read.device, sizeof read.device))
        status = misfit(message, "a value out of range");
    if (status == CM_OK) {
        read.ranks = (unsigned)ranks;
        read.run = (uint64_t)run;
        read.devices = (unsigned)devices;
        status = take_bus_ids(message, bus_ids, &read);
    }
    if (status == CM_OK)
        *job = read;
    else
        cm_job_release(&read);
    json_decref(object);
    return status;
}

void cm_job_release(struct cm_job *job)
{
    cm_bus_ids_free(job->bus_ids, job->ranks);
    job->bus_ids = NULL;
}

static enum cm_status copy_order(const char *const *texts, struct cm_order *order)
{
    char **fields[] = {&order->name, &order->section, &order->where, &order->settings};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        *fields[i] = cm_strdup(texts[i]);
        if (*fields[i] == NULL)
            return CM_NO_MEMORY;
    }
    return CM_OK;
}

enum cm_status cm_read_order(const struct cm_message *message, struct cm_order *order)
{
    json_t *object = NULL, *limit = NULL;
    json_error_t error;
    json_int_t index;
    const char *texts[4];
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    struct cm_order read = {.limit_s = INFINITY};
    if (json_unpack_ex(object, &error, 0, "{s:I, s:o, s:s, s:s, s:s, s:s}", "index", &index,
                       "limit_s", &limit, "name", &texts[0], "section", &texts[1], "where",
                       &texts[2], "settings", &texts[3]) != 0)
        status = misfit(message, error.text);
    else if (index < 0 || !(json_is_null(limit) || json_number_value(limit) > 0))
        status = misfit(message, "index or limit out of range");
    if (status == CM_OK) {
        read.index = (size_t)index;
        if (!json_is_null(limit))
            read.limit_s = json_number_value(limit);
        status = copy_order(texts, &read);
    }
    if (status == CM_OK)
        *order = read;
    else
        cm_order_release(&read);
    json_decref(object);
    return status;
}

void cm_order_release(struct cm_order *order)
{
    cm_free(order->name);
    cm_free(order->section);
    cm_free(order->where);
    cm_free(order->settings);
    *order = (struct cm_order){.index = 0};
}

enum cm_status cm_read_phase(const struct cm_message *message, char *phase, size_t size)
{
    json_t *object = NULL;
    json_error_t error;
    const char *text;
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    if (json_unpack_ex(object, &error, 0, "{s:s}", "phase", &text) != 0)
        status = misfit(message, error.text);
    else if (!take_text(text, phase, size))
        status = misfit(message, "the phase's name is too long");
    json_decref(object);
    return status;
}

enum cm_status cm_read_error(const struct cm_message *message, struct cm_rank_error *rank_error)
{
    json_t *object = NULL;
    json_error_t error;
    int code;
    const char *text;
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    struct cm_rank_error read = {.status = CM_OK};
    if (json_unpack_ex(object, &error, 0, "{s:i, s:s}", "status", &code, "text", &text) != 0)
        status = misfit(message, error.text);
    else if (code <= CM_OK || code >= CM_STATUS_COUNT)
        status = misfit(message, "status out of range");
    if (status == CM_OK) {
        read.status = (enum cm_status)code;
        snprintf(read.text, sizeof read.text, "%s", text);
        *rank_error = read;
    }
    json_decref(object);
    return status;
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c != '\0' ? strchr(digits, c) : NULL;
    return found != NULL ? (int)(found - digits) : -1;
}

enum cm_status cm_read_meeting(const struct cm_message *message, struct cm_meeting_bytes *meeting)
{
    json_t *object = NULL;
    json_error_t error;
    const char *text;
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    struct cm_meeting_bytes read = {.size = 0};
    size_t length = 0;
    if (json_unpack_ex(object, &error, 0, "{s:s%}", "bytes", &text, &length) != 0)
        status = misfit(message, error.text);
    else if (length == 0 || length % 2 != 0 || length / 2 > sizeof read.bytes)
        status = misfit(message, "so many bytes cannot be");
    for (size_t i = 0; i < length / 2 && status == CM_OK; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            status = misfit(message, "the bytes are not in hexadecimal");
        else
            read.bytes[read.size++] = (unsigned char)(high * 16 + low);
    }
    if (status == CM_OK)
        *meeting = read;
    json_decref(object);
    return status;
}

enum cm_status cm_read_topology(const struct cm_message *message, char **text)
{
    json_t *object = NULL;
    json_error_t error;
    const char *read;
    enum cm_status status = cm_message_object(message, &object);
    if (status != CM_OK)
        return status;
    if (json_unpack_ex(object, &error, 0, "{s:s}", "text", &read) != 0)
        status = misfit(message, error.text);
    char *copy = status == CM_OK ? cm_strdup(read) : NULL;
    if (status == CM_OK && copy == NULL)
        status = CM_NO_MEMORY;
    if (status == CM_OK)
        *text = copy;
    json_decref(object);
    return status;
}
