/*
 * units.h: numbers with units, read and printed.
 *
 * Sizes are binary (KiB, MiB, GiB, TiB), rates decimal (kB/s, GB/s, GFLOP/s), times in s, ms, us,
 * ns, min, h. A plain number has the base unit (byte, second, one). Exponents are allowed: 1e9, and
 * spaces before the unit. Reading is strict: a sign, rest text, an unknown unit, a value that is
 * not finite or, for sizes and counts, not a whole number below 2^63 is an error.
 *
 * Parsers record what was wrong, with the units that would be right, and return CM_USAGE.
 */
#ifndef CLUSTERMARK_UNITS_H
#define CLUSTERMARK_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include "clustermark/status.h"

/* "64MiB", "64KB" (decimal), "1e9", "512". A bare K, M, G, T is binary, as with dd and fio. */
enum cm_status cm_parse_size(const char *text, uint64_t *size_bytes);
/* "1e6", "4k" (1000), "2M" (10^6), "4096". */
enum cm_status cm_parse_count(const char *text, uint64_t *count);
/* "5m", "30s", "1.5ms", "2h", "10us", "250ns"; m and min are minutes. */
enum cm_status cm_parse_time(const char *text, double *seconds);
/* "3GB/s", "400Gb/s" (bits), "1e9" (B/s). */
enum cm_status cm_parse_rate(const char *text, double *bytes_per_s);
/* "0.05", "5%". */
enum cm_status cm_parse_real(const char *text, double *value);

/* Printers write into `buffer` (at least CM_UNITS_TEXT_MAX bytes) and return it. */
#define CM_UNITS_TEXT_MAX 32
char *cm_format_size(uint64_t size_bytes, char *buffer); /* 64 MiB; exact sizes only, else B */
char *cm_format_time(double seconds, char *buffer);      /* 12.3 us, three digits */
char *cm_format_rate(double bytes_per_s, char *buffer);  /* 12.3 GB/s */
char *cm_format_flops(double flop_per_s, char *buffer);  /* 1.23 TFLOP/s */
/* Any value with an SI base unit: "s", "B/s", "FLOP/s" as above, "B" exactly where that takes at
 * most four digits, "Hz" with a prefix; else three digits and the unit as it is, "1" being none. A
 * value that is not a number is "n/a". */
char *cm_format_value(double value, const char *unit, char *buffer);

/* The spelling a suite would use, which the parser reads back to the same number: "64MiB". */
char *cm_write_size(uint64_t size_bytes, char *buffer);

#endif
