/* What the lanes of a warp do together, and the functions of the clock and of memory order. */
#include <time.h>

#include <atomic>

#include "simt.h"

/* ---- Shuffles ---- */

/* The lane that `lane` reads; itself where that lies outside its part of the warp. */
static unsigned source_of(const struct simt_shuffle_record *record, unsigned lane)
{
    int width = record->width, first = (int)lane / width * width, source = (int)lane;
    switch (record->kind) {
    case SIMT_INDEX:
        return (unsigned)(first + (record->operand & (width - 1)));
    case SIMT_UP:
        source = (int)lane - record->operand;
        return source < first ? lane : (unsigned)source;
    case SIMT_DOWN:
        source = (int)lane + record->operand;
        return source >= first + width ? lane : (unsigned)source;
    case SIMT_XOR:
        source = (int)lane ^ record->operand;
        return source >= first + width ? lane : (unsigned)source;
    }
    return lane;
}

static void act_shuffle(void **records, unsigned size)
{
    for (unsigned lane = 0; lane < size; lane++) {
        struct simt_shuffle_record *record =
            static_cast<struct simt_shuffle_record *>(records[lane]);
        if (record == nullptr)
            continue;
        unsigned source = source_of(record, lane);
        if (records[source] == nullptr)
            simt_fail("lane %u reads a value of lane %u, which takes no part in the shuffle", lane,
                      source);
        memcpy(record->result, static_cast<struct simt_shuffle_record *>(records[source])->value,
               sizeof record->result);
    }
}

void simt_shuffle(unsigned mask, struct simt_shuffle_record *record, const char *file, int line)
{
    static const char *const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                        "__shfl_xor_sync"};
    int width = record->width;
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
        simt_fail("a shuffle with width %d at %s:%d: it must be a power of two up to 32", width,
                  file, line);
    simt_warp_meet(mask, names[record->kind], record, act_shuffle, file, line);
}

/* ---- Votes ---- */

struct vote_record {
    bool predicate;
    unsigned ballot, voters;
};

static void act_vote(void **records, unsigned size)
{
    unsigned ballot = 0, voters = 0;
    for (unsigned lane = 0; lane < size; lane++) {
        const struct vote_record *record = static_cast<struct vote_record *>(records[lane]);
        voters |= (record != nullptr ? 1u : 0u) << lane;
        ballot |= (record != nullptr && record->predicate ? 1u : 0u) << lane;
    }
    for (unsigned lane = 0; lane < size; lane++) {
        struct vote_record *record = static_cast<struct vote_record *>(records[lane]);
        if (record != nullptr) {
            record->ballot = ballot;
            record->voters = voters;
        }
    }
}

static struct vote_record vote(unsigned mask, const char *what, int predicate, const char *file,
                               int line)
{
    struct vote_record record = {predicate != 0, 0, 0};
    simt_warp_meet(mask, what, &record, act_vote, file, line);
    return record;
}

unsigned __ballot_sync(unsigned mask, int predicate, const char *file, int line)
{
    return vote(mask, "__ballot_sync", predicate, file, line).ballot;
}

int __any_sync(unsigned mask, int predicate, const char *file, int line)
{
    return vote(mask, "__any_sync", predicate, file, line).ballot != 0;
}

int __all_sync(unsigned mask, int predicate, const char *file, int line)
{
    struct vote_record record = vote(mask, "__all_sync", predicate, file, line);
    return record.ballot == record.voters;
}

/* Which lanes happen to run together: here, each alone. */
unsigned __activemask()
{
    return 1u << simt_lane();
}

void __syncwarp(unsigned mask, const char *file, int line)
{
    simt_warp_meet(mask, "__syncwarp", nullptr, nullptr, file, line);
}

/* ---- Memory order, clock, trap ---- */

/* An atomic operation, because the thread sanitizer does not know fences. */
static void fence()
{
    static std::atomic<int> order;
    order.fetch_add(1, std::memory_order_seq_cst);
}

void __threadfence_block()
{
    fence();
}

void __threadfence()
{
    fence();
}

void __threadfence_system()
{
    fence();
}

long long clock64()
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

void __trap(const char *file, int line)
{
    simt_fail("__trap at %s:%d", file, line);
}
