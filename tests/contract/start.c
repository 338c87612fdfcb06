/* Starting ranks. */
#include "start.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t start_rank(const char *program, unsigned rank, const char *const *words)
{
    char number[16];
    const char *argv[8] = {program};
    pid_t child = fork();
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(number, sizeof number, "%u", rank);
    setenv("RANK", number, 1);
    setenv("LOCAL_RANK", number, 1);
    for (size_t i = 0; i < 6 && words[i] != NULL; i++)
        argv[i + 1] = words[i];
    execv(program, (char *const *)(uintptr_t)argv);
    perror(program);
    _exit(1);
}

int start_ranks(const char *program, unsigned ranks, const char *const *words)
{
    char place[40], size[16];
    snprintf(place, sizeof place, "127.0.0.1:%d", 20000 + getpid() % 40000);
    snprintf(size, sizeof size, "%u", ranks);
    setenv("NCCL_COMM_ID", place, 1);
    setenv("WORLD_SIZE", size, 1);
    setenv("LOCAL_WORLD_SIZE", size, 1);
    for (unsigned rank = 0; rank < ranks; rank++) {
        if (start_rank(program, rank, words) < 0)
            return 1;
    }
    int result = 0;
    for (unsigned ended = 0; ended < ranks && result == 0; ended++) {
        int status = 0;
        result = wait(&status) < 0 || !WIFEXITED(status) ? 1 : WEXITSTATUS(status);
    }
    return result;
}
