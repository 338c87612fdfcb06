/* A 64-bit hash of text. */
#include "clustermark/hash.h"

#include <inttypes.h>
#include <stdio.h>

uint64_t cm_hash(uint64_t start, const void *bytes, size_t length)
{
    const unsigned char *text = bytes;
    uint64_t hash = start ^ UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ text[i]) * UINT64_C(0x100000001b3);
    hash ^= hash >> 32;
    hash *= UINT64_C(0xd6e8feb86659fd93);
    return hash ^ hash >> 32;
}

char *cm_hash_text(uint64_t hash, char *buffer)
{
    snprintf(buffer, CM_HASH_TEXT_MAX, "%016" PRIx64, hash);
    return buffer;
}
