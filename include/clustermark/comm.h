/*
 * comm.h: communication among ranks, enqueued on streams like NCCL's.
 *
 * A backend is one file, host/comm/<name>.c. `self` serves one rank, `mpi` the CPU, `nccl` GPUs.
 *
 * Semantics are NCCL's: every rank of a communicator queues the same operations in the same order;
 * operations of one communicator do not overlap each other, whatever streams they are queued on:
 * they execute in the order in which they were queued. send and recv that must progress together
 * stand between group_begin and group_end. Buffers are the device's. Counts are elements; 0 is fine
 * and moves nothing. In place is allowed where stated; send and recv must not overlap otherwise.
 */
#ifndef CLUSTERMARK_COMM_H
#define CLUSTERMARK_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/device.h"
#include "clustermark/dtype.h"
#include "clustermark/status.h"

enum cm_reduce { CM_REDUCE_SUM, CM_REDUCE_MAX, CM_REDUCE_MIN };

/* The process's place in the world, as the launcher's environment or MPI tells it. */
struct cm_world {
    unsigned rank, size;
    unsigned local_rank, local_size; /* on this node */
    char launcher[24];               /* "mpirun", "srun", "none" ... */
    bool simulated; /* ranks share devices: what they compute counts, what they take does not */
};

/* How ranks whose library does not bring them together tell each other a few bytes: what rank 0
 * gives, the others get. Every rank calls it, once; it fails within timeout_s. */
#define CM_MEETING_MAX 256
struct cm_meeting {
    void *impl;
    enum cm_status (*share)(void *impl, void *bytes, size_t size, double timeout_s);
};

struct cm_comm;

/* color of split for a rank that joins no group: its output is NULL. */
#define CM_SPLIT_NONE (-1)

struct cm_comm_ops {
    const char *name;
    const char *summary;

    /* Whether it can be used here; `reason` (at least 160 bytes) says why not, or what was found
     * ("Open MPI 4.1.4"). */
    bool (*available)(char *reason, size_t size);

    /* Join the world. `world` is what the caller believes: a size that differs from what the
     * library sees is CM_USAGE (several single-rank worlds must never pass as one). `meeting` may
     * be NULL for a library that meets by itself (MPI), or that the environment tells where (NCCL).
     * `timeout_s` bounds the meeting: a library that does not return by then ends the process with
     * a line on stderr and CM_TIMEOUT's exit code. */
    enum cm_status (*open)(struct cm_device *device, const struct cm_world *world,
                           const struct cm_meeting *meeting, double timeout_s,
                           struct cm_comm **comm);
    /* Accepts NULL; collective over the ranks; all streams synced before. */
    void (*close)(struct cm_comm *comm);

    /* recv[i] = reduction over ranks of send[i]. In place allowed. F32 F64 BF16 F16 I32 I8. */
    enum cm_status (*all_reduce)(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                 void *recv, uint64_t count, enum cm_dtype dtype,
                                 enum cm_reduce op);
    /* send has size * recv_count elements; rank r gets part r reduced. */
    enum cm_status (*reduce_scatter)(struct cm_comm *comm, struct cm_stream *stream,
                                     const void *send, void *recv, uint64_t recv_count,
                                     enum cm_dtype dtype, enum cm_reduce op);
    /* recv has size * send_count elements in rank order. In place: send is the own part of recv. */
    enum cm_status (*all_gather)(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                 void *recv, uint64_t send_count, enum cm_dtype dtype);
    /* Part p of send (count elements) goes to part `own rank` of rank p's recv. */
    enum cm_status (*all_to_all)(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                 void *recv, uint64_t count, enum cm_dtype dtype);
    /* In place: root's buffer is read, the others' written. */
    enum cm_status (*broadcast)(struct cm_comm *comm, struct cm_stream *stream, void *buffer,
                                uint64_t count, enum cm_dtype dtype, unsigned root);
    enum cm_status (*send)(struct cm_comm *comm, struct cm_stream *stream, const void *buffer,
                           uint64_t count, enum cm_dtype dtype, unsigned peer);
    enum cm_status (*recv)(struct cm_comm *comm, struct cm_stream *stream, void *buffer,
                           uint64_t count, enum cm_dtype dtype, unsigned peer);

    /* Operations in between are queued together at group_end, and progress together. All on one
     * stream; groups do not nest. An empty group is fine. When an operation in between fails,
     * group_end queues nothing and fails too. A rank may send to itself inside a group only. */
    enum cm_status (*group_begin)(struct cm_comm *comm);
    enum cm_status (*group_end)(struct cm_comm *comm);

    /* Collective over `comm`, not queued. Ranks of equal color form a new communicator, ordered by
     * key, then by old rank. Where a rank is out of memory, CM_UNSUPPORTED tells the others. */
    enum cm_status (*split)(struct cm_comm *comm, int color, int key, struct cm_comm **part);

    /* The communicator's health, without waiting. */
    enum cm_status (*async_error)(struct cm_comm *comm);
    /* Give up: unblocks what this rank can. The communicator may then only be closed. A blocked
     * foreign call may never return; the process is then to _exit. */
    void (*abort)(struct cm_comm *comm);

    /* Optional. What the library chose for an operation ("all_reduce") of so many bytes (count
     * times the size of an element) that was last executed: "RING SIMPLE, 16 channels". "" when it
     * does not tell, as on other ranks than 0. Good until the next call. */
    const char *(*algorithm)(struct cm_comm *comm, const char *operation, uint64_t bytes);
    /* Optional. The machine as the library sees it, a file's text; NULL when it does not tell, as
     * on other ranks than 0. Lives as long as the library. */
    const char *(*topology_dump)(struct cm_comm *comm);
};

/* A backend's structure begins with this. */
struct cm_comm {
    const struct cm_comm_ops *ops;
    struct cm_device *device;
    unsigned rank, size;
    char implementation[64]; /* "Open MPI v4.1.4", "NCCL 2.28.9", "none": the one actually loaded */
};

/* All backends of this build, NULL-terminated. A backend that lives in a module of its own (MPI) is
 * found there when it is first asked for. */
const struct cm_comm_ops *cm_comm_find(const char *name);
/* Why cm_comm_find has none of that name, in one line without an end ("not built: no MPI was found
 * at configure time"); NULL when it has one. */
const char *cm_comm_missing(const char *name);
/* Names of all backends this source knows, NULL-terminated, whether built or not. */
extern const char *const cm_comm_names[];

/* The operation that this process queued last, on any communicator: where a rank that hangs may be
 * stuck. For any thread; what is queued meanwhile may show in part. */
struct cm_comm_note {
    uint64_t number; /* operations queued so far; a group counts as one */
    uint64_t common; /* of them those of all ranks together: no rank queues others */
    const char *name;
    uint64_t count;
    enum cm_dtype dtype;
    unsigned ranks; /* of its communicator */
};
void cm_comm_last(struct cm_comm_note *note);

/* The backend for ranks on that device: self for one rank, else the device's own choice. */
const char *cm_comm_default(const struct cm_device_ops *device, unsigned size);

/* The world as the environment of a launcher tells it: Open MPI, MPICH/PMI, Slurm, torchrun, an
 * Indexed Job of Kubernetes. size 1 and launcher "none" where nothing is set. A contradictory
 * environment is CM_USAGE, and so is one of a launcher that tells no size: several single ranks
 * must never pass as one world. */
enum cm_status cm_world_from_environment(struct cm_world *world);
/* After that has failed: whether it fails alike on another process of this node, which tells it. */
bool cm_world_told_elsewhere(void);

/* Whether the launcher's own means let MPI's library find its world: under mpirun and mpiexec,
 * under srun with PMIx, or with PMI where the library is not Open MPI, which has no PMI. */
bool cm_world_has_mpi(const struct cm_world *world);
/* Removes from the environment all by which a launcher told of `world`, and keeps its name: ranks
 * that mpirun starts from here find mpirun's variables alone, and name that launcher as theirs. */
void cm_world_forget(const struct cm_world *world);

/* The command that starts `ranks` processes of this build's MPI on this machine: fills `argv`
 * (CM_LAUNCH_ARGS_MAX) with the launcher's words, NULL-terminated, to be followed by the program's.
 * The strings live in `storage`. CM_USAGE when no launcher is on PATH. Sets in `environment` (pairs
 * name, value; NULL-terminated) what the launcher needs (root, oversubscription, no binding of its
 * own). */
#define CM_LAUNCH_ARGS_MAX        16
#define CM_LAUNCH_ENVIRONMENT_MAX 64
struct cm_launch {
    const char *argv[CM_LAUNCH_ARGS_MAX];
    const char *environment[CM_LAUNCH_ENVIRONMENT_MAX];
    char storage[4096];
};
enum cm_status cm_launch_command(unsigned ranks, struct cm_launch *launch);

/* The same over several nodes. What the user has set of the launcher's way to reach nodes does not
 * count. The strings must stay as long as `launch`. */
struct cm_launch_nodes {
    const char *hosts; /* "a:2,b:1": nodes in the order of ranks, and how many ranks each has */
    /* The remote shell: a path that is good on every node, without spaces; and its first words. It
     * gets the node's name and the words of a command besides. */
    const char *agent_program, *agent_words;
    bool crowded; /* a node has more ranks than cores */
};
enum cm_status cm_launch_command_on(unsigned ranks, const struct cm_launch_nodes *nodes,
                                    struct cm_launch *launch);

#endif
