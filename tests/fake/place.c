/* Tells a program that is tortured where this module lies. */
#include <stddef.h>

#include "torture/fail.h"

extern const char __ehdr_start[] __attribute__((visibility("hidden"))); /* the linker's */
extern const char _end[] __attribute__((visibility("hidden")));
extern void fail_module(const char *start, const char *end) __attribute__((weak));

static __attribute__((constructor)) void tell_place(void)
{
    if (fail_module != NULL)
        fail_module(__ehdr_start, _end);
}
