/*
 * fail.h: makes one call fail. Linked into test executables only, by the linker's --wrap.
 *
 * CM_FAIL=PROCESS:KIND:PATH[#K]  the Kth (default first) call of KIND (alloc, file, thread, mpi;
 *                                gpu: a faked call; hang: one that is never done) on the call path
 *                                PATH (hexadecimal) fails in PROCESS ("main", "rank0", ...)
 * CM_FAIL=PROCESS:KIND:@N        the Nth call of the kind fails, whatever its path
 * CM_FAIL_LOG=FOLDER             each process appends its call paths to FOLDER/calls, one line per
 *                                path met for the first time: "PROCESS KIND PATH N NAME"; the call
 *                                that was made to fail is logged as "FAILED PROCESS KIND NAME". One
 *                                fails, also where a process of that name is started again: who
 *                                makes FOLDER/failed may fail.
 *
 * A call path is a hash of the return addresses inside the program and its modules.
 */
#ifndef TESTS_TORTURE_FAIL_H
#define TESTS_TORTURE_FAIL_H

#include <stdbool.h>

enum fail_kind {
    FAIL_ALLOC,
    FAIL_FILE,
    FAIL_THREAD,
    FAIL_MPI,
    FAIL_GPU,
    FAIL_HANG,
    FAIL_KIND_COUNT
};

/* Whether this call is the one to fail. Counts and logs it. */
bool fail_now(enum fail_kind kind, const char *name);

/* Where a module lies whose return addresses are to count. */
void fail_module(const char *start, const char *end);

/* Appends a line to FOLDER/calls. */
void fail_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What is allocated between these by this thread is not looked at for leaks. */
void fail_foreign_begin(void);
void fail_foreign_end(void);

#endif
