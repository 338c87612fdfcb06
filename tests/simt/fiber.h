/*
 * fiber.h: a thread of execution that gives up the processor only when it says so. Each CUDA thread
 * of the emulator that has begun is one.
 */
#ifndef SIMT_FIBER_H
#define SIMT_FIBER_H

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

struct fiber {
    void *stack; /* its lowest byte */
    size_t stack_bytes;
#if defined(__x86_64__)
    void *pointer; /* the stack pointer while it is switched out */
#else
    ucontext_t context;
#endif
    void *fake_stack; /* the address sanitizer's */
};

/* With a stack of its own and a page below it that must not be touched. False without memory. */
bool fiber_init(struct fiber *fiber);
/* The operating system's thread that calls becomes one. */
void fiber_adopt(struct fiber *fiber);
/* The next switch to it calls `main`, which must not return. */
void fiber_start(struct fiber *fiber, void (*main)());
/* `from` runs now. With `ends`, it will not be switched to before it is started anew. */
void fiber_switch(struct fiber *from, struct fiber *to, bool ends);
/* First thing in `main`; `from` is the adopted fiber, which was switched from. */
void fiber_begun(struct fiber *from);

#endif
