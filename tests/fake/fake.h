/*
 * fake.h: what the fakes of CUDA, cuBLASLt, NVML and NCCL share.
 *
 * A process has one pretend GPU of a machine that environment variables describe (machine.c). Data
 * really moves. Work waits in its stream until the process asks for what it brings about, and time
 * is a virtual clock, so that a run repeats whatever the load of the machine. The fakes are
 * stricter than what they stand for: a wrong use ends the process with a message (fake_die).
 *
 * Environment:
 *   FAKE_GPUS, FAKE_MODELS, FAKE_MEMORY   how many; which ("H200,H100", the last repeats); MiB each
 *   FAKE_NODE                             a number, which of several nodes this process is on
 *   FAKE_DRIVER                           "none", or a CUDA version in place of 13.0 ("12.4")
 *   FAKE_P2P                              "0": no GPU reaches another's memory
 *   FAKE_SEED                             which of the orders that streams allow is taken
 *   FAKE_FAIL, FAKE_HANG, FAKE_KILL       [RANK:]CALL:N[:ERROR], see inject.c
 *   FAKE_LOG                              a file that names objects which outlived the process
 *   FAKE_NCCL_VERSION                     22809; a call that this version lacks ends the process
 *   FAKE_NCCL_DEATH, FAKE_NCCL_MISMATCH   "hang": a dead peer is not noticed; ranks that do not do
 *                                         the same wait for ever, as in the real one
 *   FAKE_NVML                             "none", or readings, see fake_nvml.c
 *   FAKE_CUDNN                            "none", or how it is, see fake_cudnn.c
 */
#ifndef TESTS_FAKE_FAKE_H
#define TESTS_FAKE_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct CUstream_st;

/* ---- the machine (machine.c) ---- */

enum { FAKE_GPUS_MAX = 16 };

struct fake_model {
    const char *name; /* as FAKE_MODELS has it */
    const char *full_name;
    int major, minor, multiprocessors;
    int clock_khz, memory_clock_khz, bus_bits;
    size_t l2_bytes, shared_bytes;
    /* The cost model: bytes and operations per second. */
    double memory_rate, host_rate, link_rate, flop_rate;
};

struct fake_machine {
    unsigned count;
    const struct fake_model *models[FAKE_GPUS_MAX];
    size_t memory_bytes;
    int driver; /* 13000; 0: none */
    bool peers;
};
const struct fake_machine *fake_machine(void);
void fake_bus_id(unsigned index, char *text, size_t size); /* "0000:1b:00.0" */
void fake_uuid(unsigned index, unsigned char bytes[16]);
const struct fake_model *fake_model(void); /* of this process's GPU */
unsigned fake_device(void);
void fake_choose_device(unsigned index);
uint64_t fake_setting(const char *name, uint64_t otherwise);

/* ---- calls (inject.c) ---- */

/* At the begin and the end of every faked call. One thread is inside at a time. fake_enter gives
 * the error that the call is told to fail with, `otherwise` when it may choose; 0 goes on. */
int fake_enter(const char *call, int otherwise);
void fake_leave(void);
/* Whether this call was told never to be done; asked by calls that can say so by what they give. A
 * call that does not ask never returns. */
bool fake_take_stall(void);
/* Let another thread or process go on for a while. */
void fake_pause(void);
/* Around a function that the program queued: it may make no call. */
void fake_host_function(bool inside);
int fake_rank(void); /* of this process, -1 for one that is no rank */

_Noreturn void fake_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

enum fake_object {
    FAKE_STREAMS,
    FAKE_EVENTS,
    FAKE_DEVICE_BLOCKS,
    FAKE_HOST_BLOCKS,
    FAKE_IMPORTS,
    FAKE_COMMS,
    FAKE_REGISTRATIONS,
    FAKE_PLANS,
    FAKE_DESCRIPTORS,
    FAKE_OBJECT_KINDS
};
void fake_count(enum fake_object kind, int change);
/* Of all kinds. */
long fake_objects(void);
/* For tests: the nth call from now on fails; 0 ends that. Which one it was, NULL for none yet. */
void fake_fail_any(unsigned long nth);
const char *fake_failed(void);

/* ---- memory (memory.c) ---- */

enum fake_place {
    FAKE_PAGEABLE, /* the host's, or none that the fakes gave */
    FAKE_PINNED,
    FAKE_DEVICE,
    FAKE_PEER /* another GPU's */
};

/* Where [memory, memory + size) lies. Ends the process when it leaves its block. */
enum fake_place fake_place_of(const void *memory, size_t size, const char *call);
/* NULL when there is not enough. */
void *fake_device_alloc(size_t size);
void fake_device_free(void *memory, const char *call);
void *fake_host_alloc(size_t size);
void fake_host_free(void *memory, const char *call);
bool fake_host_register(void *memory, size_t size);
void fake_host_unregister(void *memory, const char *call);
size_t fake_memory_left(void);
/* Device memory cannot be touched but between the two; fake_leave closes it. */
void fake_memory_open(void);
void fake_memory_close(void);
/* A touch of it then is told before it ends the process. */
void fake_watch_faults(void);

/* A block as another process finds it. */
struct fake_export {
    int pid, fd;
    unsigned device, number;
    size_t offset, size; /* in the file: of the block's first byte */
};
bool fake_export(const void *memory, struct fake_export *export); /* any place in a block */
size_t fake_offset(const void *memory);                           /* of device memory in its file */
void *fake_import(const struct fake_export *export);
bool fake_unimport(void *memory);

/* ---- streams (engine.c) ---- */

enum fake_outcome { FAKE_DONE, FAKE_LATER };

/* Work in a stream; a kind's structure begins with it. `run` is called when the stream has come to
 * it, at `start_s`, and again until it is done and has set *end_s. `drop` frees it. */
struct fake_work {
    enum fake_outcome (*run)(struct fake_work *work, double start_s, double *end_s);
    void (*drop)(struct fake_work *work);
    const char *call;
    double queued_s;
    bool never; /* is told never to be done */
    bool spins; /* waits for the host */
    struct fake_work *next;
};

struct CUstream_st {
    uint32_t mark;
    unsigned number;
    int priority;
    bool abandoned; /* destroyed with work in it */
    bool stalled;   /* queries are told that it is never done */
    unsigned polls;
    double time_s; /* when its last work ended */
    struct fake_work *first, *last;
    unsigned count;
    struct CUstream_st *next;
};

struct fake_record { /* of an event in a stream */
    unsigned references;
    bool done;
    double time_s;
};

struct CUevent_st {
    uint32_t mark;
    bool timed;
    struct fake_record *latest;
};

extern double fake_now_s; /* the host's clock */

struct CUstream_st *fake_stream_create(int priority);
void fake_stream_destroy(struct CUstream_st *stream);
void fake_check_stream(const struct CUstream_st *stream, const char *call);
void fake_check_event(const struct CUevent_st *event, const char *call);
void fake_queue(struct CUstream_st *stream, struct fake_work *work, const char *call);
/* Whether the stream is done; makes it so when it is asked often enough. */
bool fake_poll(struct CUstream_st *stream);
/* Run until the stream, or every stream (NULL), is done. */
void fake_finish(struct CUstream_st *stream, const char *call);
/* Run until the record has happened. */
void fake_finish_record(const struct fake_record *record, const char *call);
bool fake_poll_record(const struct fake_record *record);
void fake_record_release(struct fake_record *record);
uint64_t fake_random(void);
double fake_wall_s(void);

/* ---- launches (fake_launch.c) ---- */

/* What the next launch of this process costs, and the flag in pinned memory that it waits for. */
struct fake_hint {
    double bytes, flops;
    const uint32_t *flag;
    uint32_t until;
    uint64_t timeout_ns;
};
void fake_hint(const struct fake_hint *hint);
int fake_cuda_launch(struct CUstream_st *stream, void (*run)(void *arg), void *arg,
                     void (*drop)(void *arg));
double fake_cost_s(double bytes, double flops);

/* ---- what the fakes of CUDA share (fake_cudart.c); errors are a cudaError_t ---- */

int fake_cuda_enter(const char *call);
int fake_cuda_leave(int error);

#endif
