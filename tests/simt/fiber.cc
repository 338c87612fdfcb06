/* Fibers: an own switch on x86-64, which costs no system call, and ucontext elsewhere. */
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

/* Untouched pages cost nothing. Sanitizers make frames several times as large. */
#define STACK_BYTES (size_t(512) << 10)
#define GUARD_BYTES (size_t(64) << 10)

bool fiber_init(struct fiber *fiber)
{
    void *memory = mmap(nullptr, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    mprotect(memory, GUARD_BYTES, PROT_NONE);
    *fiber = {};
    fiber->stack = static_cast<char *>(memory) + GUARD_BYTES;
    fiber->stack_bytes = STACK_BYTES;
    return true;
}

#if defined(__x86_64__)

/* Saves what a called function must preserve, and the stack pointer in *from. */
extern "C" __attribute__((visibility("hidden"))) void simt_switch_stack(void **from, void *to);
__asm__(R"(
    .text
    .hidden simt_switch_stack
    .globl simt_switch_stack
    .type simt_switch_stack, @function
simt_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size simt_switch_stack, . - simt_switch_stack
)");

static void start_stack(struct fiber *fiber, void (*main)())
{
    void **top = reinterpret_cast<void **>(static_cast<char *>(fiber->stack) + STACK_BYTES);
    *--top = nullptr; /* the address that main would return to; ends backtraces */
    *--top = reinterpret_cast<void *>(main);
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    fiber->pointer = top;
}

static void switch_stack(struct fiber *from, struct fiber *to)
{
    simt_switch_stack(&from->pointer, to->pointer);
}

#else

static void start_stack(struct fiber *fiber, void (*main)())
{
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, main, 0);
}

static void switch_stack(struct fiber *from, struct fiber *to)
{
    swapcontext(&from->context, &to->context);
}

#endif

void fiber_adopt(struct fiber *fiber)
{
    *fiber = {};
}

void fiber_start(struct fiber *fiber, void (*main)())
{
    start_stack(fiber, main);
}

void fiber_switch(struct fiber *from, struct fiber *to, bool ends)
{
    (void)ends;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(ends ? nullptr : &from->fake_stack, to->stack, to->stack_bytes);
#endif
    switch_stack(from, to);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void fiber_begun(struct fiber *from)
{
    (void)from;
#if defined(__SANITIZE_ADDRESS__)
    const void *stack;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &from->stack_bytes);
    from->stack = const_cast<void *>(stack);
#endif
}
