/*
 * hash.h: a 64-bit hash of text, for digests that tell machines apart and for names that must not
 * be shown. Not cryptographic: it hides a host name from a reader, not from a determined search.
 */
#ifndef CLUSTERMARK_HASH_H
#define CLUSTERMARK_HASH_H

#include <stddef.h>
#include <stdint.h>

/* FNV-1a, then a finishing mix so that short texts differ in all bits. Chain by passing the last
 * result as `start`; 0 begins. */
uint64_t cm_hash(uint64_t start, const void *bytes, size_t length);

/* 16 hexadecimal digits and the terminating zero. */
#define CM_HASH_TEXT_MAX 17
char *cm_hash_text(uint64_t hash, char *buffer);

#endif
