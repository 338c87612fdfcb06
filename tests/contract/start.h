/*
 * start.h: ranks of a test without a launcher, a GPU each, that meet by NCCL_COMM_ID.
 */
#ifndef TESTS_CONTRACT_START_H
#define TESTS_CONTRACT_START_H

/* Runs `program` with `words` (up to 6, NULL-terminated) `ranks` times, with torchrun's variables.
 * Returns when all have ended: 0 when all are well; the first that is not takes the others along.
 */
int start_ranks(const char *program, unsigned ranks, const char *const *words);

#endif
