/*
 * watch_message.h: what ranks and the watcher say to each other, as messages of a channel.
 *
 *   rank -> watcher                          watcher -> rank
 *   hello {cookie, rank, host, device, near} welcome {speaks}
 *   beat  {a cm_place}                       beat    {}
 *   error {status, text}  ends with it       end     {}   at once
 *   told  {}  got a signal, ends
 *   bye   {}  is through
 *   left  {}  rank 0, told to end: writes nothing any more, ends when the watcher does
 *
 * Readers trust nothing, as those of message.h.
 */
#ifndef HOST_MEASURE_WATCH_MESSAGE_H
#define HOST_MEASURE_WATCH_MESSAGE_H

#include "host/measure/channel.h"
#include "host/measure/culprit.h"
#include "host/measure/watch_meet.h"

struct cm_watch_hello {
    uint8_t cookie[CM_WATCH_COOKIE_BYTES];
    unsigned rank;
    char host[64], device[80];
    bool near; /* on the watcher's machine */
};

enum cm_status cm_send_watch_hello(struct cm_channel *channel, const struct cm_watch_hello *hello);
enum cm_status cm_read_watch_hello(const struct cm_message *message, struct cm_watch_hello *hello);
enum cm_status cm_send_beat(struct cm_channel *channel, const struct cm_place *place);
enum cm_status cm_read_beat(const struct cm_message *message, struct cm_place *place);
/* `speaks`: this rank tells the user when the watcher falls silent. */
enum cm_status cm_send_welcome(struct cm_channel *channel, bool speaks);
enum cm_status cm_read_welcome(const struct cm_message *message, bool *speaks);

#endif
