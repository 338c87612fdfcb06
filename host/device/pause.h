/* pause.h: what a thread does between two looks at a value that another thread will change. */
#ifndef HOST_DEVICE_PAUSE_H
#define HOST_DEVICE_PAUSE_H

static inline void cm_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

#endif
