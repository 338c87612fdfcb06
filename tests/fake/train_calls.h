/* train_calls.h: every kernel of a training step, once. */
#ifndef TESTS_FAKE_TRAIN_CALLS_H
#define TESTS_FAKE_TRAIN_CALLS_H

#include "clustermark/device.h"
#include "clustermark/status.h"

#define TRAIN_MEMORY_BYTES ((size_t)16 << 15)

/* Queues them one after the other, on shapes that fit `memory`; the first failure ends it. */
enum cm_status queue_train_calls(struct cm_stream *stream, void *memory);

#endif
