/*
 * loader.h: libraries that the product opens by name, and what it finds in them.
 */
#ifndef TESTS_FAKE_LOADER_H
#define TESTS_FAKE_LOADER_H

#include <stddef.h>

struct fake_symbol {
    const char *name;
    void (*function)(void);
};

/* The variable `setting` is "none" where there is no such library; "lacks=NAME" in it, where it has
 * no such symbol. */
struct fake_library {
    const char *file, *setting;
    const struct fake_symbol *symbols;
    size_t count;
};

#define FAKE_SYMBOL(name)                                                                          \
    {                                                                                              \
#name, (void (*)(void))name                                                                \
    }

extern const struct fake_library fake_nvml, fake_cudnn;

#endif
