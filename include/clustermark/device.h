/*
 * device.h: a device that computes: the CPU, a CUDA GPU, later one that has only a virtual clock.
 *
 * A backend is one table of functions, struct cm_device_ops, in host/device/ (devices.c lists
 * them); one that needs libraries of its own is a module (module.h). Everything is enqueued on a
 * stream and timed by the device's own events; nothing above this contract may assume that data
 * moves, or that the host's clock measures the device.
 *
 * Threads: one thread uses a device and what belongs to it; only the functions given to
 * cm_device_ops.call run elsewhere. Hooks return CM_OK or record an error and return its status. An
 * asynchronous failure (in queued work) is reported by the next stream_sync of that stream, and
 * queued work after it is skipped.
 */
#ifndef CLUSTERMARK_DEVICE_H
#define CLUSTERMARK_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/dtype.h"
#include "clustermark/status.h"

struct cm_device;
struct cm_stream;
struct cm_event;
struct cm_kernels;

enum cm_memory_kind {
    CM_MEMORY_DEVICE,   /* the device's own */
    CM_MEMORY_HOST,     /* the host's, pinned near the device */
    CM_MEMORY_HOST_FAR, /* the host's, pinned on the NUMA node farthest from the device */
    CM_MEMORY_PAGEABLE, /* the host's as the system gives it */
    CM_MEMORY_COMM      /* the device's, registered for communication where that exists */
};

/* What a figure is held against. value 0: not known, and `source` says why. */
struct cm_peak {
    double value;    /* FLOP/s, B/s ... as the field says */
    bool measured;   /* true: measured here; false: from the device's own units and clocks */
    char source[96]; /* "132 SMs x 4096 FLOP/clock x 1.98 GHz", "fused multiply-add loop" */
};

struct cm_device_info {
    char name[96];      /* "AMD EPYC 7763", "NVIDIA H200" */
    char kind[16];      /* the backend's name */
    char bus_id[24];    /* PCI, "0000:1b:00.0"; "" for the CPU */
    char uuid[24];      /* hash of what the device calls itself; "" where it has no name */
    char features[128]; /* "avx2 fma", "sm_90": what decides which code runs */
    char software[96];  /* "oneDNN 2.6.3", "CUDA 13.0, cuBLASLt 13.1.0": loaded here */
    /* Once `survey` was called: */
    char driver[32];       /* its version; "" where it has none or does not tell */
    char fabric[64];       /* the NVLink domain over several nodes that it is in; "" none */
    unsigned nvlinks;      /* that are up; 0 not known */
    unsigned units;        /* cores or SMs that this rank may use */
    double clock_hz;       /* highest clock known, 0 unknown */
    uint64_t memory_bytes; /* that this rank may use: what is free as it starts, and its share */
    uint64_t memory_total_bytes;              /* of the device, whoever uses it */
    uint64_t cache_bytes;                     /* last-level cache that serves this device */
    struct cm_peak memory_rate;               /* B/s, theoretical */
    struct cm_peak flop_rate[CM_DTYPE_COUNT]; /* dense matrix FLOP/s by dtype */
    bool virtual_clock;                       /* no data moves, no wall time passes */
};

/* Whether a backend can be used, for `clustermark list devices` and for choosing one. */
struct cm_device_probe {
    unsigned count;   /* usable devices on this machine; the CPU counts 1 */
    char reason[160]; /* why there is none, or what was found */
};

struct cm_device_config {
    unsigned index;        /* which of the probe's devices */
    unsigned rank;         /* of this process in the world, for messages */
    unsigned threads;      /* CPU: cores of this rank; 0 lets the backend read its affinity */
    uint64_t memory_bytes; /* limit for this rank, 0 for what there is */
    int far_node;          /* NUMA node for CM_MEMORY_HOST_FAR; negative: there is none */
};

/* What else happened while a window was measured. Fields that are not known stay NAN or "". */
struct cm_telemetry {
    double clock_hz; /* median */
    double power_w;  /* mean */
    double energy_j;
    double temperature_c;      /* highest */
    double steal_fraction;     /* CPU time taken by the hypervisor */
    double switches_per_s;     /* involuntary context switches of this process */
    double throttled_fraction; /* share of the window in which a throttle reason was active */
    char throttle_reasons[96];
    double lowest_clock_hz;
    double memory_clock_hz; /* median */
    double power_limit_w;
    double ecc_corrected, ecc_uncorrected; /* errors within the window */
    double remapped_rows;                  /* of the device, so far */
    double pcie_generation, pcie_width;    /* of the link under load: the highest seen */
    double nvlinks_active;
    double samples; /* readings that the figures come from */
    char modes[64]; /* "persistence, MIG": what was switched on */
};
/* Every field not known. */
extern const struct cm_telemetry cm_telemetry_unknown;

/* Work that runs in stream order. Not allowed to touch the device API. What it returns becomes the
 * stream's asynchronous status. */
typedef enum cm_status (*cm_call_fn)(const void *args);
/* Largest argument block of a call; it is copied when queued. */
#define CM_CALL_ARGS_MAX 192

/* Memory of a device as it travels to another process. */
struct cm_memory_handle {
    unsigned char bytes[128];
};

/* Who allocates CM_MEMORY_COMM in place of the device, once a communicator is open that can
 * register it. */
struct cm_comm_memory {
    void *impl;
    enum cm_status (*alloc)(void *impl, size_t size_bytes, void **memory);
    void (*free)(void *impl, void *memory);
};

struct cm_device_ops {
    const char *name;    /* as in --device */
    const char *summary; /* one line for `list devices` */
    const char *comm;    /* the communicator of several ranks: "mpi", "nccl" */
    bool is_host;        /* the machine's own cores, shared out among ranks; else a device each */

    enum cm_status (*probe)(struct cm_device_probe *probe);
    enum cm_status (*open)(const struct cm_device_config *config, struct cm_device **device);
    void (*close)(struct cm_device *device); /* accepts NULL; all streams must be gone */
    /* PCI bus id ("0000:1b:00.0") of a device of the probe, without opening it. Optional. */
    enum cm_status (*locate)(unsigned index, char *bus_id, size_t size);

    /* Optional. Fill what of `info` takes another question to the driver, for a cluster's map. */
    void (*survey)(struct cm_device *device);

    /* Alignment of at least 64 bytes. The content is undefined. A size of 0 is an error. */
    enum cm_status (*alloc)(struct cm_device *device, enum cm_memory_kind kind, size_t size_bytes,
                            void **memory);
    void (*free)(struct cm_device *device, enum cm_memory_kind kind, void *memory);

    /* priority 0 is normal, 1 is for communication (served first where the device can). */
    enum cm_status (*stream_create)(struct cm_device *device, int priority,
                                    struct cm_stream **stream);
    void (*stream_destroy)(struct cm_stream *stream); /* accepts NULL; waits for what runs */

    /* Everything queued after it waits until stream_release: a batch is queued whole before its
     * first operation starts. A device whose queue is full starts it earlier. Holding a held stream
     * is an error. */
    enum cm_status (*stream_hold)(struct cm_stream *stream);
    enum cm_status (*stream_release)(struct cm_stream *stream);
    /* Whether a held stream still waits: false once its queue was full. Optional, NULL where
     * nothing starts early. */
    bool (*stream_waits)(const struct cm_stream *stream);

    enum cm_status (*event_create)(struct cm_device *device, struct cm_event **event);
    void (*event_destroy)(struct cm_event *event); /* accepts NULL; queued work may still name it */
    enum cm_status (*event_record)(struct cm_event *event, struct cm_stream *stream);
    /* What is queued on `stream` afterwards waits for the event's latest record so far; an event
     * that was never recorded holds nothing up. */
    enum cm_status (*stream_wait)(struct cm_stream *stream, struct cm_event *event);
    /* Seconds from one event to the other; both must have happened (sync their stream first). */
    enum cm_status (*elapsed)(struct cm_event *start, struct cm_event *end, double *seconds);

    /* Wait for all that was queued. CM_TIMEOUT when it is not done after `timeout_s` (INFINITY
     * waits for ever); the work goes on, and a stream that is destroyed while it still does is
     * abandoned with what it uses, so that the process can end. Reports the stream's asynchronous
     * status once; then the stream works again. Syncing a held stream is an error. */
    enum cm_status (*stream_sync)(struct cm_stream *stream, double timeout_s);

    enum cm_status (*copy)(struct cm_stream *stream, void *to, const void *from, size_t size_bytes);
    /* Host work in stream order. `args` (size_bytes <= CM_CALL_ARGS_MAX) is copied. `what` is a
     * constant string for messages. */
    enum cm_status (*call)(struct cm_stream *stream, cm_call_fn function, const void *args,
                           size_t size_bytes, const char *what);
    /* The backend's own stream handle (a CUDA stream); NULL where there is none. Optional. */
    void *(*native_stream)(struct cm_stream *stream);

    /* Optional, NULL where devices cannot reach each other's memory. An export is of a whole block
     * from alloc (CM_MEMORY_DEVICE). import gives a pointer that `copy` and kernels of this device
     * take; CM_UNSUPPORTED with the reason where this device cannot reach the other. The block must
     * outlive the import; unimport accepts NULL. */
    enum cm_status (*memory_export)(struct cm_device *device, void *memory,
                                    struct cm_memory_handle *handle);
    enum cm_status (*memory_import)(struct cm_device *device, const struct cm_memory_handle *handle,
                                    void **memory);
    void (*memory_unimport)(struct cm_device *device, void *memory);
    /* Optional. `memory` NULL ends it; what was allocated through it is freed before. */
    void (*use_comm_memory)(struct cm_device *device, const struct cm_comm_memory *memory);

    /* Optional, NULL where there is no telemetry. Windows do not nest. */
    enum cm_status (*telemetry_begin)(struct cm_device *device);
    enum cm_status (*telemetry_end)(struct cm_device *device, struct cm_telemetry *telemetry);
};

/* A backend's structures begin with these. */
struct cm_device {
    const struct cm_device_ops *ops;
    const struct cm_kernels
        *kernels; /* the CPU reference, overridden by what the backend does better */
    struct cm_device_info info;
};

struct cm_stream {
    struct cm_device *device;
    int priority;
};

struct cm_event {
    struct cm_device *device;
};

/* The devices that this program knows, by preference, ended by a row without a name: built in, or a
 * module. Part of the program, not of the library: test programs have lists of their own. */
struct cm_backend;
struct cm_device_row {
    const char *name;
    const struct cm_device_ops *ops; /* NULL for a module */
    struct cm_backend *module;
};
extern const struct cm_device_row cm_device_rows[];

/* The backend of that name, its module opened if need be; NULL when it is not known or cannot be
 * used, cm_device_missing then says why ("not built: no CUDA toolkit was found ..."). */
const struct cm_device_ops *cm_device_find(const char *name);
const char *cm_device_missing(const char *name);

/* What a backend's probe finds; a driver that does not answer ends the process (deadline.h). */
enum cm_status cm_device_ask(const struct cm_device_ops *ops, struct cm_device_probe *probe);

/* The backend to use when none is named: the first with a device, GPUs before the CPU. Records
 * nothing and never fails: the CPU is always there. */
const struct cm_device_ops *cm_device_default(void);

#endif
