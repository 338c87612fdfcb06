/*
 * message.h: what supervisor and ranks say to each other: JSON payloads of the channel's messages.
 *
 *   rank -> supervisor                      supervisor -> rank
 *   hello   {rank, size, launcher}          job   {device, ranks, run, timeout_s, bus_ids}
 *   meeting {bytes}  from rank 0, in hex    meeting {bytes}  the same, to the others
 *   topology {text}  from rank 0: the machine as its library sees it
 *   ready   {}    device and comm are open  case  {index, limit_s, name, section, where, settings}
 *   phase   {phase}                         end   {}
 *   result  a cm_case_run_write line; from rank 0
 *   done    {}    the case is over here
 *   error   {status, text}  and it will do nothing more
 *   stopped {}    was told to end by a signal
 *   bye     {}    closed everything, exits
 *
 * Readers trust nothing: a field that is missing, of the wrong type or out of range is CM_COMM.
 */
#ifndef HOST_MEASURE_MESSAGE_H
#define HOST_MEASURE_MESSAGE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "host/measure/channel.h"

struct cm_hello {
    unsigned rank, size; /* as the rank's own launcher environment says */
    char launcher[24];
};

struct cm_job {
    char device[16];
    unsigned ranks;
    uint64_t run;
    double timeout_s; /* for opening the communicator */
    unsigned devices; /* of this machine, which its ranks share when they are more; 0: the host */
    char **bus_ids;   /* of all ranks' devices; NULL where they are not known */
};

/* What the ranks of a world need in order to meet. */
struct cm_meeting_bytes {
    size_t size; /* 0: nothing yet */
    unsigned char bytes[CM_MEETING_MAX];
};

/* A case to measure. Its settings are lines "key=value", from which the rank builds the same point
 * of the sweep again. */
struct cm_order {
    size_t index;
    double limit_s; /* INFINITY for none */
    char *name, *section, *where, *settings;
};

struct cm_rank_error {
    enum cm_status status;
    char text[CM_ERROR_TEXT_MAX];
};

enum cm_status cm_send_hello(struct cm_channel *channel, const struct cm_hello *hello);
enum cm_status cm_send_job(struct cm_channel *channel, const struct cm_job *job);
enum cm_status cm_send_case(struct cm_channel *channel, const struct cm_case *item, size_t index,
                            double limit_s);
enum cm_status cm_send_phase(struct cm_channel *channel, const char *phase);
enum cm_status cm_send_error(struct cm_channel *channel, const struct cm_rank_error *error);
enum cm_status cm_send_meeting(struct cm_channel *channel, const struct cm_meeting_bytes *meeting);
enum cm_status cm_send_topology(struct cm_channel *channel, const char *text);
/* A JSON object that json_pack has made, and is given up; NULL: it was out of memory. */
enum cm_status cm_send_object(struct cm_channel *channel, const char *kind, json_t *object);
/* A message without content. */
enum cm_status cm_send_word(struct cm_channel *channel, const char *kind);

/* The object of a message; CM_COMM when it is none. */
enum cm_status cm_message_object(const struct cm_message *message, json_t **object);
enum cm_status cm_read_hello(const struct cm_message *message, struct cm_hello *hello);
enum cm_status cm_read_job(const struct cm_message *message, struct cm_job *job);
void cm_job_release(struct cm_job *job);
enum cm_status cm_read_order(const struct cm_message *message, struct cm_order *order);
void cm_order_release(struct cm_order *order);
enum cm_status cm_read_phase(const struct cm_message *message, char *phase, size_t size);
enum cm_status cm_read_error(const struct cm_message *message, struct cm_rank_error *error);
enum cm_status cm_read_meeting(const struct cm_message *message, struct cm_meeting_bytes *meeting);
/* *text is the caller's. */
enum cm_status cm_read_topology(const struct cm_message *message, char **text);

#endif
