/*
 * wrap.h: a launcher that tells the cost model its bytes before it launches, for the files that are
 * linked with --wrap.
 */
#ifndef FAKE_WRAP_H
#define FAKE_WRAP_H

#define WRAP(name, parameters, arguments, hint_bytes)                                              \
    int __real_##name parameters;                                                                  \
    int __wrap_##name parameters;                                                                  \
    int __wrap_##name parameters                                                                   \
    {                                                                                              \
        fake_hint(&(struct fake_hint){.bytes = (double)(hint_bytes)});                             \
        return __real_##name arguments;                                                            \
    }

#endif
