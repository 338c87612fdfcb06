/* Element types: the table and exact conversions. */
#include "clustermark/dtype.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name, *alias;
    size_t size;
    unsigned bits;
    double step;
} dtypes[] = {
#define CM_DTYPE_ROW(name, text, alias, bytes, step) {text, alias, bytes, 8 * (bytes), step},
    CM_DTYPE_LIST(CM_DTYPE_ROW)
#undef CM_DTYPE_ROW
#define CM_DTYPE_ROW(name, text, alias, bits, step) {text, alias, 0, bits, step},
        CM_BLOCK_DTYPE_LIST(CM_DTYPE_ROW)
#undef CM_DTYPE_ROW
};

const char *const cm_dtype_names[] = {
#define CM_DTYPE_NAME(name, text, alias, bytes, step) text,
    CM_DTYPE_LIST(CM_DTYPE_NAME) CM_BLOCK_DTYPE_LIST(CM_DTYPE_NAME)
#undef CM_DTYPE_NAME
        NULL,
};

/* A small float with `exponent` exponent bits and `mantissa` mantissa bits. `top` is its largest
 * finite value; `saturate` clips to it, else overflow is infinite. */
struct format {
    int exponent, mantissa;
    double top;
    bool saturate, infinite;
};
static const struct format bf16_format = {8, 7, 0x1.fep127, false, true};
static const struct format f16_format = {5, 10, 65504, false, true};
static const struct format e4m3_format = {4, 3, 448, true, false};
static const struct format e5m2_format = {5, 2, 57344, true, true};

static double decode(const struct format *format, unsigned bits)
{
    unsigned mantissa = bits & ((1u << format->mantissa) - 1);
    unsigned exponent = (bits >> format->mantissa) & ((1u << format->exponent) - 1);
    unsigned highest = (1u << format->exponent) - 1;
    double sign = (bits >> (format->mantissa + format->exponent)) & 1 ? -1 : 1;
    int bias = (1 << (format->exponent - 1)) - 1;
    if (format->infinite && exponent == highest)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (!format->infinite && exponent == highest && mantissa == (1u << format->mantissa) - 1)
        return (double)NAN;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - format->mantissa);
    return sign *
           ldexp(mantissa + (1u << format->mantissa), (int)exponent - bias - format->mantissa);
}

static unsigned encode(const struct format *format, double value)
{
    unsigned sign = signbit(value) ? 1u << (format->mantissa + format->exponent) : 0;
    unsigned highest = (1u << format->exponent) - 1;
    int bias = (1 << (format->exponent - 1)) - 1;
    if (isnan(value))
        return sign | highest << format->mantissa | ((1u << format->mantissa) - 1);
    double magnitude = fabs(value);
    int exponent;
    frexp(magnitude, &exponent);
    exponent -= 1; /* magnitude = 1.x * 2^exponent */
    if (magnitude == 0 || exponent < 1 - bias)
        exponent = 1 - bias;
    /* rint rounds to nearest even in the default mode. */
    double steps = rint(ldexp(magnitude, format->mantissa - exponent));
    double rounded = ldexp(steps, exponent - format->mantissa);
    if (rounded > format->top) {
        if (format->infinite && (!format->saturate || isinf(magnitude)))
            return sign | highest << format->mantissa;
        return encode(format, format->top) | sign;
    }
    if (steps < (double)(1u << format->mantissa)) /* subnormal or zero */
        return sign | (unsigned)steps;
    if (steps >= (double)(2u << format->mantissa)) {
        steps /= 2;
        exponent += 1;
    }
    unsigned mantissa = (unsigned)steps & ((1u << format->mantissa) - 1);
    return sign | (unsigned)(exponent + bias) << format->mantissa | mantissa;
}

const char *cm_dtype_name(enum cm_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t cm_dtype_size(enum cm_dtype dtype)
{
    return dtypes[dtype].size;
}

unsigned cm_dtype_bits(enum cm_dtype dtype)
{
    return dtypes[dtype].bits;
}

double cm_dtype_step(enum cm_dtype dtype)
{
    return dtypes[dtype].step;
}

bool cm_dtype_parse(const char *text, enum cm_dtype *dtype)
{
    for (int i = 0; i < CM_DTYPE_COUNT; i++) {
        if (strcasecmp(text, dtypes[i].name) == 0 || strcasecmp(text, dtypes[i].alias) == 0) {
            *dtype = (enum cm_dtype)i;
            return true;
        }
    }
    return false;
}

double cm_dtype_load(enum cm_dtype dtype, const void *element)
{
    double f64;
    float f32;
    uint16_t half;
    int32_t i32;
    switch (dtype) {
    case CM_F64:
        memcpy(&f64, element, sizeof f64);
        return f64;
    case CM_F32:
    case CM_TF32:
        memcpy(&f32, element, sizeof f32);
        return (double)f32;
    case CM_BF16:
    case CM_F16:
        memcpy(&half, element, sizeof half);
        return decode(dtype == CM_BF16 ? &bf16_format : &f16_format, half);
    case CM_F8E4M3:
        return decode(&e4m3_format, *(const uint8_t *)element);
    case CM_F8E5M2:
        return decode(&e5m2_format, *(const uint8_t *)element);
    case CM_I32:
        memcpy(&i32, element, sizeof i32);
        return i32;
    case CM_I8:
        return *(const int8_t *)element;
    case CM_MXFP8:
    case CM_NVFP4:
    case CM_DTYPE_COUNT:
        break;
    }
    return (double)NAN;
}

static double clamp(double value, double low, double high)
{
    return !(value > low) ? low : value > high ? high : value;
}

void cm_dtype_store(enum cm_dtype dtype, double value, void *element)
{
    float f32 = (float)value;
    uint16_t half;
    int32_t i32;
    switch (dtype) {
    case CM_F64:
        memcpy(element, &value, sizeof value);
        break;
    case CM_F32:
    case CM_TF32:
        memcpy(element, &f32, sizeof f32);
        break;
    case CM_BF16:
    case CM_F16:
        half = (uint16_t)encode(dtype == CM_BF16 ? &bf16_format : &f16_format, value);
        memcpy(element, &half, sizeof half);
        break;
    case CM_F8E4M3:
        *(uint8_t *)element = (uint8_t)encode(&e4m3_format, value);
        break;
    case CM_F8E5M2:
        *(uint8_t *)element = (uint8_t)encode(&e5m2_format, value);
        break;
    case CM_I32:
        i32 = (int32_t)clamp(rint(value), INT32_MIN, INT32_MAX);
        memcpy(element, &i32, sizeof i32);
        break;
    case CM_I8:
        *(int8_t *)element = (int8_t)clamp(rint(value), INT8_MIN, INT8_MAX);
        break;
    case CM_MXFP8:
    case CM_NVFP4:
    case CM_DTYPE_COUNT:
        break;
    }
}

/* The 16-bit floats as f32, by moving their bits; the scale mends the exponent, subnormals too. */
static float widen_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float widen_f16(uint16_t half)
{
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    if (bits >= 0x7c00u << 13) /* infinite or not a number */
        bits |= 0x7f800000u;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    return half & 0x8000 ? -value : value;
}

#define LOAD_ALL(type, convert)                                                                    \
    do {                                                                                           \
        const type *from = elements;                                                               \
        for (size_t i = 0; i < count; i++)                                                         \
            values[i] = (double)convert(from[i]);                                                  \
    } while (0)

void cm_dtype_load_all(enum cm_dtype dtype, const void *elements, size_t count, double *values)
{
    switch (dtype) {
    case CM_F64:
        memcpy(values, elements, count * sizeof *values);
        break;
    case CM_F32:
    case CM_TF32:
        LOAD_ALL(float, );
        break;
    case CM_BF16:
        LOAD_ALL(uint16_t, widen_bf16);
        break;
    case CM_F16:
        LOAD_ALL(uint16_t, widen_f16);
        break;
    case CM_I32:
        LOAD_ALL(int32_t, );
        break;
    case CM_I8:
        LOAD_ALL(int8_t, );
        break;
    case CM_F8E4M3:
    case CM_F8E5M2:
        for (size_t i = 0; i < count; i++)
            values[i] = cm_dtype_load(dtype, (const uint8_t *)elements + i);
        break;
    case CM_MXFP8:
    case CM_NVFP4:
    case CM_DTYPE_COUNT:
        for (size_t i = 0; i < count; i++)
            values[i] = (double)NAN;
        break;
    }
}
