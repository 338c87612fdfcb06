/* dlopen and its kin in place of the C library's, for the module alone. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/fake.h"
#include "fake/loader.h"

enum { LIBRARIES = 1 + CM_HAVE_CUDNN };
static const struct fake_library *const libraries[LIBRARIES] = {
    &fake_nvml,
#if CM_HAVE_CUDNN
    &fake_cudnn,
#endif
};

static char missing[160]; /* what dlerror tells next */

void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlsym(void *handle, const char *name);
int __wrap_dlclose(void *handle);
char *__wrap_dlerror(void);

void *__wrap_dlopen(const char *name, int flags)
{
    (void)flags;
    for (int i = 0; i < LIBRARIES; i++) {
        const char *text = getenv(libraries[i]->setting);
        if (strcmp(libraries[i]->file, name) != 0)
            continue;
        if (text == NULL || strcmp(text, "none") != 0)
            return (void *)libraries[i];
        snprintf(missing, sizeof missing,
                 "%s: cannot open shared object file: No such file or directory", name);
        return NULL;
    }
    fake_die("dlopen of %s", name);
}

static const struct fake_library *library_of(const void *handle, const char *call)
{
    for (int i = 0; i < LIBRARIES; i++) {
        if (libraries[i] == handle)
            return libraries[i];
    }
    fake_die("%s in %p, which is no library", call, handle);
}

void *__wrap_dlsym(void *handle, const char *name)
{
    const struct fake_library *library = library_of(handle, "dlsym");
    const char *text = getenv(library->setting);
    const char *lacks = text != NULL ? strstr(text, "lacks=") : NULL;
    for (size_t i = 0; i < library->count; i++) {
        const struct fake_symbol *symbol = &library->symbols[i];
        if (strcmp(symbol->name, name) != 0 || (lacks != NULL && strstr(lacks, name) != NULL))
            continue;
        void *function;
        memcpy(&function, &symbol->function, sizeof function);
        return function;
    }
    snprintf(missing, sizeof missing, "undefined symbol");
    return NULL;
}

int __wrap_dlclose(void *handle)
{
    library_of(handle, "dlclose");
    return 0;
}

char *__wrap_dlerror(void)
{
    static char told[sizeof missing];
    memcpy(told, missing, sizeof told);
    missing[0] = '\0';
    return told[0] != '\0' ? told : NULL;
}
