/*
 * nccl_log.h: what NCCL writes about itself, as far as it tells what it chose.
 *
 * NCCL has no call that tells an operation's algorithm; it prints it where its environment asks for
 * that. The text goes to memory that has no name in the file system, so nothing is left behind.
 */
#ifndef HOST_COMM_NCCL_LOG_H
#define HOST_COMM_NCCL_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "clustermark/status.h"

/* The choice for one operation and size. */
struct cm_nccl_choice {
    char operation[16]; /* "all_reduce" */
    uint64_t bytes;     /* count times the size of an element */
    char algorithm[16], protocol[12];
    unsigned channels;
};

#define CM_NCCL_CHOICES_MAX 32

struct cm_nccl_log {
    int file;   /* -1: NCCL is not asked, or what the user asked for goes elsewhere */
    off_t read; /* of the file */
    struct cm_nccl_choice choices[CM_NCCL_CHOICES_MAX]; /* the latest ones */
    size_t count, next;
    bool no_nvls; /* it said that there is no NVLink SHARP here, or none to be had */
};

#define CM_NCCL_LOG_INIT                                                                           \
    {                                                                                              \
        .file = -1                                                                                 \
    }

/* Take in the whole lines of `text`; returns how many bytes that were. Pure. */
size_t cm_nccl_log_take(struct cm_nccl_log *log, const char *text, size_t length);
/* NULL when nothing is known of it. */
const struct cm_nccl_choice *cm_nccl_log_find(const struct cm_nccl_log *log, const char *operation,
                                              uint64_t bytes);

/* Ask NCCL by the environment, before the first call of it in this process. Where the user has
 * asked for something himself, his wish stays and nothing is learnt. */
enum cm_status cm_nccl_log_open(struct cm_nccl_log *log);
/* Read what has been written, and give its memory back. */
enum cm_status cm_nccl_log_read(struct cm_nccl_log *log);

/* A file for NCCL's topology, named in the environment until it is taken; *file is -1 when the user
 * has named one. */
enum cm_status cm_nccl_topology_open(int *file);
/* Its text, "" when NCCL wrote none, to be freed. Closes the file, also when this fails. */
enum cm_status cm_nccl_topology_take(int file, char **text);

#endif
