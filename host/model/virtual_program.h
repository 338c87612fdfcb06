/*
 * virtual_program.h: what virtual_program.c makes of schedules and virtual_clock.c executes: for
 * each lane its operations in order, with each distinct operation once in a table beside.
 */
#ifndef HOST_MODEL_VIRTUAL_PROGRAM_H
#define HOST_MODEL_VIRTUAL_PROGRAM_H

#include "clustermark/virtual_clock.h"

enum cm_instruction_kind {
    CM_DO_WORK,   /* `what`: of the table */
    CM_DO_MEET,   /* the same, of a group that joins stages */
    CM_DO_RECORD, /* `what`: number of the record within its stage */
    CM_DO_WAIT    /* `what`: likewise */
};

struct cm_instruction {
    uint32_t what;
    uint8_t kind;
    uint8_t lane_for; /* WAIT: the lane of its record */
    int16_t chunk;
    int32_t layer, micro;
};

/* Events are numbered anew: each record has a number of its own, and waiters or none. */
struct cm_lane_program {
    struct cm_instruction *items;
    size_t count, capacity;
};

struct cm_stage_program {
    unsigned rank; /* that stands for the stage */
    struct cm_lane_program lanes[CM_LANE_COUNT];
    struct cm_op *kinds; /* distinct operations */
    size_t kind_count, kind_capacity;
    uint32_t *waiters; /* of each record */
    size_t record_count;
    uint64_t operations, memory_bytes;
    double flops, bytes, message_bytes;
};

struct cm_virtual {
    struct cm_step step;
    struct cm_stage_program *stages;
    unsigned stage_count;
};

/* How a group that joins stages looks from stage `stage`: member number `index` of it is a stage,
 * which calls it *name. False: there are no more members. The caller's own stage is one of them. */
bool cm_virtual_member(const struct cm_virtual *program, unsigned stage, enum cm_group group,
                       unsigned index, unsigned *member, enum cm_group *name);

/* Whether two members of a group do the same there. */
bool cm_virtual_fits(const struct cm_op *a, const struct cm_op *b);

/* "rank 8 forward in recv forward_in 1024 bf16 m3", for messages; `item` may be NULL. */
void cm_virtual_write_op(const struct cm_stage_program *stage, enum cm_lane lane,
                         const struct cm_op *op, const struct cm_instruction *item,
                         struct cm_str *out);

#endif
