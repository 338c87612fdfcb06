/* Ampere's tensor instructions: cp.async, ldmatrix, mma.sync. */
#include "simt_tensor.h"

#define POISON 0xff

static float of_bf16(uint32_t bits)
{
    return __uint_as_float(bits << 16);
}

static uint32_t to_bf16(float value)
{
    uint32_t bits = __float_as_uint(value);
    if (std::isnan(value))
        return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

uint32_t ptx_pack_bf16(float low, float high)
{
    return to_bf16(low) | to_bf16(high) << 16;
}

/* 16 bytes of shared memory. */
static void *chunk_at(uint32_t address, const char *what)
{
    if (address % 16 != 0)
        simt_fail("%s at %#x, which is no multiple of 16", what, address);
    return simt_shared_pointer(address);
}

void ptx_store_shared(uint32_t to, const uint32_t (&words)[4])
{
    memcpy(chunk_at(to, "st.shared.v4"), words, 16);
}

/* ---- cp.async ---- */

enum { COPIES_MAX = 1024 };

/* Of a thread. Copies are numbered, and so are groups; a ring holds those under way. */
struct copies {
    struct {
        void *to;
        const void *from; /* NULL for zeros */
        unsigned group;
    } ring[COPIES_MAX];
    unsigned first, end; /* copies under way */
    unsigned group;      /* that the next copy belongs to */
};

static struct copies *own_copies()
{
    static const char key = 0;
    return static_cast<struct copies *>(simt_state(&key, simt_thread(), sizeof(struct copies)));
}

void ptx_copy_async(uint32_t to, const void *from, bool valid)
{
    struct copies *copies = own_copies();
    if (copies->end - copies->first == COPIES_MAX)
        simt_fail("more than %d copies of a thread under way", COPIES_MAX);
    if (valid && reinterpret_cast<uintptr_t>(from) % 16 != 0)
        simt_fail("cp.async of 16 bytes from %p, which is not aligned", from);
    auto *copy = &copies->ring[copies->end++ % COPIES_MAX];
    copy->to = chunk_at(to, "cp.async");
    copy->from = valid ? from : nullptr;
    copy->group = copies->group;
    memset(copy->to, POISON, 16);
}

void ptx_copy_commit()
{
    own_copies()->group++;
}

void simt_copy_wait(unsigned pending)
{
    struct copies *copies = own_copies();
    while (copies->first != copies->end) {
        const auto *copy = &copies->ring[copies->first % COPIES_MAX];
        if (copy->group + pending >= copies->group)
            break;
        if (copy->from == nullptr)
            memset(copy->to, 0, 16);
        else
            memcpy(copy->to, copy->from, 16);
        copies->first++;
    }
}

/* ---- ldmatrix ---- */

static unsigned long bank_conflicts;

unsigned long simt_bank_conflicts(void)
{
    return bank_conflicts;
}

struct load_record {
    bool transposed;
    uint32_t from, *to;
};

static void act_load_matrix(void **records, unsigned size)
{
    for (unsigned matrix = 0; matrix < 4; matrix++) {
        uint16_t elements[8][8];
        unsigned banks = 0;
        for (unsigned row = 0; row < 8; row++) {
            uint32_t from = static_cast<struct load_record *>(records[8 * matrix + row])->from;
            memcpy(elements[row], chunk_at(from, "ldmatrix"), 16);
            bank_conflicts += banks >> from / 16 % 8 & 1;
            banks |= 1u << from / 16 % 8;
        }
        for (unsigned lane = 0; lane < size; lane++) {
            const struct load_record *record = static_cast<struct load_record *>(records[lane]);
            unsigned i = lane / 4, j = lane % 4 * 2;
            uint32_t low = record->transposed ? elements[j][i] : elements[i][j];
            uint32_t high = record->transposed ? elements[j + 1][i] : elements[i][j + 1];
            record->to[matrix] = low | high << 16;
        }
    }
}

void simt_load_matrix(bool transposed, uint32_t *to, uint32_t from, const char *file, int line)
{
    struct load_record record = {transposed, from, to};
    simt_warp_meet(0xffffffff, "ldmatrix", &record, act_load_matrix, file, line);
}

/* ---- mma.sync ---- */

struct mma_record {
    const uint32_t *a;
    uint32_t b[2];
    float *d;
};

/* Lane 4 g + q holds: of a, rows g (words 0, 2) and g + 8 (words 1, 3), columns 2 q and 2 q + 1 of
 * the first 8 (words 0, 1) and the second; of b, column g, rows 2 q and 2 q + 1 of the first 8
 * (word 0) and the second; of d, rows g and g + 8, columns 2 q and 2 q + 1. */
static void act_mma(void **records, unsigned size)
{
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < size; lane++) {
        const struct mma_record *record = static_cast<struct mma_record *>(records[lane]);
        unsigned g = lane / 4, q = lane % 4;
        for (unsigned i = 0; i < 8; i++) {
            unsigned word = i / 2, column = 2 * q + i % 2 + word / 2 * 8;
            a[g + word % 2 * 8][column] = of_bf16(record->a[word] >> i % 2 * 16 & 0xffff);
        }
        for (unsigned i = 0; i < 4; i++)
            b[2 * q + i % 2 + i / 2 * 8][g] = of_bf16(record->b[i / 2] >> i % 2 * 16 & 0xffff);
    }
    for (unsigned lane = 0; lane < size; lane++) {
        float *d = static_cast<struct mma_record *>(records[lane])->d;
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            for (unsigned k = 0; k < 16; k++)
                d[i] += a[row][k] * b[k][column];
        }
    }
}

void ptx_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const char *file,
             int line)
{
    struct mma_record record = {a, {b0, b1}, d};
    simt_warp_meet(0xffffffff, "mma.sync", &record, act_mma, file, line);
}
