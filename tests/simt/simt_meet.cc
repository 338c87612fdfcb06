/* The emulator: threads that meet, barriers, and memory that lasts as long as a block. */
#include "run.h"

static struct meeting *open_meeting(unsigned first, unsigned size, unsigned mask, unsigned left)
{
    struct meeting *meeting;
    if (simt_now->spare_meetings.empty()) {
        meeting = new struct meeting;
    } else {
        meeting = simt_now->spare_meetings.back();
        simt_now->spare_meetings.pop_back();
    }
    memset(meeting->records, 0, size * sizeof meeting->records[0]);
    meeting->first = first;
    meeting->size = size;
    meeting->mask = mask;
    meeting->left = left;
    simt_now->meetings[first / WARP].push_back(meeting);
    return meeting;
}

static void close_meeting(struct meeting *meeting)
{
    std::vector<struct meeting *> &open = simt_now->meetings[meeting->first / WARP];
    for (size_t i = 0; i < open.size(); i++) {
        if (open[i] == meeting) {
            open.erase(open.begin() + (ptrdiff_t)i);
            break;
        }
    }
    for (unsigned i = 0; i < meeting->size; i++) {
        struct thread *thread = &simt_now->threads[meeting->first + i];
        if (meeting->records[i] != nullptr && thread != simt_now->self)
            simt_make_ready(thread);
    }
    simt_now->spare_meetings.push_back(meeting);
}

static void meet(unsigned first, unsigned size, unsigned mask, unsigned members, const char *what,
                 void *record, simt_act act, const char *file, int line)
{
    static char nothing; /* the record of one that has none */
    struct meeting *meeting = nullptr;
    for (struct meeting *open : simt_now->meetings[first / WARP]) {
        if (open->size == size && open->mask == mask)
            meeting = open;
    }
    if (meeting == nullptr) {
        meeting = open_meeting(first, size, mask, members);
        meeting->what = what;
        meeting->file = file;
        meeting->line = line;
    } else if (strcmp(meeting->what, what) != 0 || strcmp(meeting->file, file) != 0 ||
               meeting->line != line) {
        simt_fail("%s at %s:%d, while others of the same %u threads are at %s, %s:%d", what, file,
                  line, size, meeting->what, meeting->file, meeting->line);
    }
    meeting->records[simt_now->self->rank - first] = record == nullptr ? &nothing : record;
    if (--meeting->left > 0) {
        simt_wait_for(meeting, what, file, line);
        return;
    }
    if (act != nullptr)
        act(meeting->records, size);
    close_meeting(meeting);
}

void simt_warp_meet(unsigned mask, const char *what, void *record, simt_act act, const char *file,
                    int line)
{
    unsigned first = simt_now->self->rank - simt_lane();
    unsigned lanes = simt_now->thread_count - first < WARP ? simt_now->thread_count - first : WARP;
    if (lanes < WARP)
        mask &= (1u << lanes) - 1; /* lanes beyond the block's end do not exist */
    if (!(mask >> simt_lane() & 1))
        simt_fail("%s at %s:%d: the mask %08x lacks the calling lane", what, file, line, mask);
    meet(first, WARP, mask, (unsigned)__builtin_popcount(mask), what, record, act, file, line);
}

void simt_group_meet(unsigned size, const char *what, void *record, simt_act act, const char *file,
                     int line)
{
    unsigned first = simt_now->self->rank - simt_thread() % size;
    if (simt_thread() / size * size + size > simt_now->block_threads)
        simt_fail("%s at %s:%d: the block ends within the group of %u threads", what, file, line,
                  size);
    meet(first, size, 0, size, what, record, act, file, line);
}

void simt_complete_barrier(struct barrier *barrier)
{
    *barrier = {};
    simt_wake(barrier);
}

void __syncthreads(const char *file, int line)
{
    struct barrier *barrier = &simt_now->barriers[simt_cluster_rank()][0];
    if (barrier->arrived > 0 && (barrier->line != line || strcmp(barrier->file, file) != 0))
        simt_fail("__syncthreads at %s:%d, while others are at that of %s:%d", file, line,
                  barrier->file, barrier->line);
    barrier->file = file;
    barrier->line = line;
    barrier->arrived++;
    if (barrier->arrived == simt_now->live_in[simt_cluster_rank()])
        simt_complete_barrier(barrier);
    else
        simt_wait_for(barrier, "__syncthreads", file, line);
}

void simt_cluster_barrier(const char *file, int line)
{
    struct barrier *barrier = &simt_now->cluster_barrier;
    if (barrier->arrived++ > 0 && (barrier->line != line || strcmp(barrier->file, file) != 0))
        simt_fail("a barrier of the cluster at %s:%d, while others are at that of %s:%d", file,
                  line, barrier->file, barrier->line);
    barrier->file = file;
    barrier->line = line;
    if (barrier->arrived == simt_now->live)
        simt_complete_barrier(barrier);
    else
        simt_wait_for(barrier, "a barrier of the cluster", file, line);
}

void simt_barrier(unsigned id, unsigned count, bool wait, const char *file, int line)
{
    if (id == 0 || id >= BARRIERS || count == 0 || count % WARP != 0 || count > THREADS_MAX)
        simt_fail("barrier %u for %u threads at %s:%d: there are 1 to 15, for whole warps", id,
                  count, file, line);
    struct barrier *barrier = &simt_now->barriers[simt_cluster_rank()][id];
    if (barrier->arrived > 0 && barrier->count != count)
        simt_fail("barrier %u at %s:%d is for %u threads here, for %u at %s:%d", id, file, line,
                  count, barrier->count, barrier->file, barrier->line);
    barrier->count = count;
    barrier->file = file;
    barrier->line = line;
    barrier->arrived++;
    if (barrier->arrived == count)
        simt_complete_barrier(barrier);
    else if (wait)
        simt_wait_for(barrier, "a named barrier", file, line);
}

void *simt_state(const void *key, unsigned index, size_t size)
{
    void *&state = simt_now->state[{key, index, simt_cluster_rank()}];
    if (state == nullptr)
        state = calloc(1, size);
    return state;
}
