/*
 * dtype.h: element types of matrices, memory kernels and messages. One row each.
 *
 * Types of blocks are those of matrices for products alone: neighbours in a row share a scale
 * (blocks.h), so an element has no value of its own. Nothing else takes them.
 */
#ifndef CLUSTERMARK_DTYPE_H
#define CLUSTERMARK_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

/* X(NAME, name, alias, bytes in memory, relative rounding step 2^-mantissa bits). tf32 is stored as
 * f32 and rounded inside the matrix unit. Integer types have step 0. */
#define CM_DTYPE_LIST(X)                                                                           \
    X(F64, "f64", "fp64", 8, 0x1p-52)                                                              \
    X(F32, "f32", "fp32", 4, 0x1p-23)                                                              \
    X(TF32, "tf32", "tf32", 4, 0x1p-10)                                                            \
    X(BF16, "bf16", "bfloat16", 2, 0x1p-7)                                                         \
    X(F16, "f16", "fp16", 2, 0x1p-10)                                                              \
    X(F8E4M3, "f8e4m3", "fp8_e4m3", 1, 0x1p-3)                                                     \
    X(F8E5M2, "f8e5m2", "fp8_e5m2", 1, 0x1p-2)                                                     \
    X(I32, "i32", "int32", 4, 0)                                                                   \
    X(I8, "i8", "int8", 1, 0)

/* X(NAME, name, alias, bits in memory, relative rounding step). mxfp8 is f8e4m3 with a power of two
 * for 32 elements, nvfp4 a float of 4 bits (sign, two of exponent, one of mantissa) with an
 * unsigned f8e4m3 for 16. */
#define CM_BLOCK_DTYPE_LIST(X)                                                                     \
    X(MXFP8, "mxfp8", "mxfp8_e4m3", 8, 0x1p-3)                                                     \
    X(NVFP4, "nvfp4", "fp4_e2m1", 4, 0x1p-1)

enum cm_dtype {
#define CM_DTYPE_ENUM(name, text, alias, space, step) CM_##name,
    CM_DTYPE_LIST(CM_DTYPE_ENUM) CM_BLOCK_DTYPE_LIST(CM_DTYPE_ENUM)
#undef CM_DTYPE_ENUM
        CM_DTYPE_COUNT,
    CM_ELEMENT_COUNT = CM_I8 + 1 /* those before the types of blocks */
};

/* NULL-terminated, in the order of the enum: the choices of an option whose value is a cm_dtype. */
extern const char *const cm_dtype_names[];

const char *cm_dtype_name(enum cm_dtype dtype);
/* Bytes and bits of an element. Of types of blocks there are bits alone, without the scales: what a
 * matrix of them takes says blocks.h. */
size_t cm_dtype_size(enum cm_dtype dtype);
unsigned cm_dtype_bits(enum cm_dtype dtype);
double cm_dtype_step(enum cm_dtype dtype);

/* Accepts the name and the alias. False when there is no such type. */
bool cm_dtype_parse(const char *text, enum cm_dtype *dtype);

/* One element from memory as a double, and back with rounding to nearest even (saturating for the
 * f8 types, as the matrix units do). For checks on the host, not for speed. */
double cm_dtype_load(enum cm_dtype dtype, const void *element);
void cm_dtype_store(enum cm_dtype dtype, double value, void *element);

/* `count` elements at once, as fast as the host does it: what checks of whole buffers use. */
void cm_dtype_load_all(enum cm_dtype dtype, const void *elements, size_t count, double *values);

#endif
