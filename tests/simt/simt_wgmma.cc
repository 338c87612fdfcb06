/* Hopper's products of a warpgroup, wgmma.mma_async.m64nNk16 with the second operand in shared
 * memory and the first there or in registers, and setmaxnreg. */
#include "simt_tensor.h"

enum { N_MAX = 256, K = 16, WARP_M = 16, REGISTERS = 128, LANES = 32, PENDING_MAX = 64, SETS = 4 };

/* A matrix descriptor. */
struct matrix {
    bool mn; /* m or n lies contiguous, else k */
    uint32_t start, leading_bytes, stride_bytes, row_bytes;
};

struct product {
    unsigned n;
    uint64_t a, b;
    bool a_mn, b_mn, add;
    bool a_registers; /* the first operand is a_words */
    unsigned group;
    struct accumulators *to;
    uint32_t a_words[LANES][4];
};

/* Registers of a warp into which products go, from the first of them until the wait. */
struct accumulators {
    float *d[LANES]; /* NULL when this is not in use */
    size_t bytes;
    unsigned pending; /* products under way */
    float sums[LANES][REGISTERS];
};

/* Of a warp. Products are numbered; those between `done` and `issued` are under way. */
struct warp {
    bool fenced; /* since the last wait */
    unsigned issued, done, group;
    struct product ring[PENDING_MAX];
    struct accumulators sets[SETS];
    const unsigned char *shared; /* of its block, from address 0 of the dynamic part on */
    uint32_t shared_base;
    unsigned rank; /* in the warpgroup */
};

/* What the first warp of a warpgroup issued, for the others to be held against. */
struct warpgroup {
    unsigned issued;
    struct product ring[PENDING_MAX];
};

static struct warp *own_warp()
{
    static const char key = 0;
    struct warp *warp =
        static_cast<struct warp *>(simt_state(&key, simt_warp(), sizeof(struct warp)));
    warp->shared = simt_dynamic_shared();
    warp->shared_base = simt_shared_address(warp->shared);
    warp->rank = simt_warp() % 4;
    return warp;
}

/* ---- Operands ---- */

/* Bits of the descriptor, counted in 16 bytes. */
static uint32_t field(uint64_t descriptor, unsigned first)
{
    return (uint32_t)(descriptor >> first & 0x3fff) << 4;
}

static struct matrix decode(uint64_t descriptor, bool mn)
{
    static const uint32_t row_bytes[] = {0, 128, 64, 32};
    const uint64_t unused =
        UINT64_C(3) << 14 | UINT64_C(3) << 30 | UINT64_C(7) << 46 | UINT64_C(0x3ff) << 52;
    struct matrix matrix = {mn, field(descriptor, 0), field(descriptor, 16), field(descriptor, 32),
                            row_bytes[descriptor >> 62]};
    if (descriptor & unused)
        simt_fail("the descriptor %#llx has bits that mean nothing",
                  (unsigned long long)descriptor);
    if (matrix.row_bytes == 0)
        simt_fail("descriptors without a swizzle are not emulated");
    if (descriptor >> 49 & 7)
        simt_fail("descriptors with a base offset are not emulated");
    return matrix;
}

/* Element `k` of row (or column) `i`. The swizzle goes by the bits of the address. */
static uint32_t address_of(const struct matrix *matrix, unsigned i, unsigned k)
{
    unsigned row_elements = matrix->row_bytes / 2;
    uint32_t offset;
    if (matrix->mn)
        offset = i / row_elements * matrix->leading_bytes + i % row_elements * 2 +
                 k / 8 * matrix->stride_bytes + k % 8 * matrix->row_bytes;
    else
        offset = i / 8 * matrix->stride_bytes + i % 8 * matrix->row_bytes + k * 2;
    uint32_t address = matrix->start + offset;
    return address ^ (address >> 7 & (matrix->row_bytes / 16 - 1)) << 4;
}

static float element(const struct warp *warp, const struct matrix *matrix, unsigned i, unsigned k)
{
    uint16_t bits;
    memcpy(&bits, warp->shared + (address_of(matrix, i, k) - (warp->shared_base & 0x3ffff)), 2);
    return __uint_as_float((uint32_t)bits << 16);
}

/* ---- Products ---- */

/* As mma.sync has its first operand: lane 4 g + q holds rows g (words 0, 2) and g + 8, columns 2 q
 * and 2 q + 1 of the first 8 (words 0, 1) and the second. */
static float register_element(const struct product *product, unsigned m, unsigned k)
{
    unsigned lane = m % 8 * 4 + k % 8 / 2, word = m / 8 + k / 8 * 2;
    return __uint_as_float(product->a_words[lane][word] >> k % 2 * 16 << 16);
}

/* Lane 4 g + q has rows g and g + 8 of the warp's 16, columns 2 q and 2 q + 1 of each 8. */
static void multiply(struct warp *warp, const struct product *product)
{
    struct matrix a = {}, b = decode(product->b, product->b_mn);
    static float b_row[N_MAX];
    static float sums[WARP_M][N_MAX];
    unsigned n_count = product->n;
    if (!product->a_registers)
        a = decode(product->a, product->a_mn);
    memset(sums, 0, sizeof sums);
    for (unsigned k = 0; k < K; k++) {
        for (unsigned n = 0; n < n_count; n++)
            b_row[n] = element(warp, &b, n, k);
        for (unsigned m = 0; m < WARP_M; m++) {
            float factor = product->a_registers ? register_element(product, m, k)
                                                : element(warp, &a, warp->rank * WARP_M + m, k);
            for (unsigned n = 0; n < n_count; n++)
                sums[m][n] += factor * b_row[n];
        }
    }
    for (unsigned lane = 0; lane < LANES; lane++) {
        for (unsigned i = 0; i < n_count / 2; i++) {
            unsigned row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            float sum = sums[row][column];
            float *to = &product->to->sums[lane][i];
            *to = product->add ? *to + sum : sum;
        }
    }
    product->to->pending--;
}

static void run_next(void *arg)
{
    struct warp *warp = static_cast<struct warp *>(arg);
    if (warp->done < warp->issued)
        multiply(warp, &warp->ring[warp->done++ % PENDING_MAX]);
}

struct record {
    struct warp *warp;
    struct product product;
    float *d;
};

/* The warps of a group issue the same; each in its own time. */
static void compare_warps(const struct warp *warp, const struct product *product)
{
    static const char key = 0;
    struct warpgroup *group = static_cast<struct warpgroup *>(
        simt_state(&key, simt_warp() / 4, sizeof(struct warpgroup)));
    if (group->issued == warp->issued)
        group->ring[group->issued++ % PENDING_MAX] = *product;
    const struct product *other = &group->ring[warp->issued % PENDING_MAX];
    if (group->issued - warp->issued > PENDING_MAX)
        simt_fail("a warp is %u products behind the others of its group",
                  group->issued - warp->issued);
    if (other->a != product->a || other->b != product->b || other->add != product->add ||
        other->n != product->n)
        simt_fail("the warps of a group issue different products");
}

/* Those whose first lane has them at `d`, or, for NULL, free ones. */
static struct accumulators *find_set(struct warp *warp, const float *d)
{
    for (unsigned i = 0; i < SETS; i++) {
        if (warp->sets[i].d[0] == d)
            return &warp->sets[i];
    }
    return nullptr;
}

static struct accumulators *take_set(struct warp *warp, void **records, size_t d_bytes)
{
    float *first = static_cast<struct record *>(records[0])->d;
    struct accumulators *set = find_set(warp, first);
    bool idle = set == nullptr;
    if (idle)
        set = find_set(warp, nullptr);
    if (set == nullptr)
        simt_fail("products into more than %d sets of accumulators under way", SETS);
    for (unsigned lane = 0; lane < LANES; lane++) {
        float *d = static_cast<struct record *>(records[lane])->d;
        if (idle)
            memcpy(set->sums[lane], d, d_bytes);
        else if (set->d[lane] != d || set->bytes != d_bytes)
            simt_fail("the lanes of a warp multiply into different accumulators");
        set->d[lane] = d;
        memset(d, 0xff, d_bytes);
    }
    set->bytes = d_bytes;
    set->pending++;
    return set;
}

static void act_issue(void **records, unsigned size)
{
    const struct record *first = static_cast<struct record *>(records[0]);
    struct warp *warp = first->warp;
    struct product product = first->product;
    if (!warp->fenced)
        simt_fail("wgmma.mma_async without wgmma.fence since the accumulators were last used");
    if (warp->issued - warp->done == PENDING_MAX)
        simt_fail("more than %d products under way", PENDING_MAX);
    for (unsigned lane = 0; lane < size; lane++) {
        const struct record *record = static_cast<struct record *>(records[lane]);
        if (record->product.a != first->product.a || record->product.b != first->product.b ||
            record->product.add != first->product.add)
            simt_fail("the lanes of a warp issue different products");
        memcpy(product.a_words[lane], record->product.a_words[lane], sizeof product.a_words[lane]);
    }
    if (!product.a_registers)
        decode(product.a, product.a_mn);
    decode(product.b, product.b_mn);
    compare_warps(warp, &product);
    product.to = take_set(warp, records, product.n / 2 * sizeof(float));
    warp->ring[warp->issued++ % PENDING_MAX] = product;
    simt_defer(warp, run_next, warp);
}

void simt_wgmma(unsigned n, bool a_mn, bool b_mn, float *d, uint64_t a, const uint32_t *a_words,
                uint64_t b, bool add, const char *file, int line)
{
    struct warp *warp = own_warp();
    struct record record = {
        warp, {n, a, b, a_mn, b_mn, add, a_words != nullptr, warp->group, nullptr, {}}, d};
    if (a_words != nullptr)
        memcpy(record.product.a_words[simt_lane()], a_words, 16);
    simt_warp_meet(0xffffffff, "wgmma.mma_async", &record, act_issue, file, line);
}

static void act_fence(void **records, unsigned size)
{
    (void)size;
    static_cast<struct warp *>(records[0])->fenced = true;
}

void ptx_wgmma_fence(const char *file, int line)
{
    simt_warp_meet(0xffffffff, "wgmma.fence", own_warp(), act_fence, file, line);
}

static void act_commit(void **records, unsigned size)
{
    (void)size;
    static_cast<struct warp *>(records[0])->group++;
}

void ptx_wgmma_commit(const char *file, int line)
{
    simt_warp_meet(0xffffffff, "wgmma.commit_group", own_warp(), act_commit, file, line);
}

struct wait_record {
    struct warp *warp;
    unsigned pending;
    const float *d;
};

static void give_back(struct accumulators *set)
{
    if (set->pending > 0)
        simt_fail("accumulators are read while products into them are under way");
    for (unsigned lane = 0; lane < LANES; lane++) {
        memcpy(set->d[lane], set->sums[lane], set->bytes);
        set->d[lane] = nullptr;
    }
}

static void act_wait(void **records, unsigned size)
{
    (void)size;
    const struct wait_record *first = static_cast<struct wait_record *>(records[0]);
    struct warp *warp = first->warp;
    warp->fenced = false;
    while (warp->done < warp->issued &&
           warp->ring[warp->done % PENDING_MAX].group + first->pending < warp->group)
        run_next(warp);
    if (first->d != nullptr) {
        struct accumulators *set = find_set(warp, first->d);
        if (set == nullptr)
            simt_fail("wgmma.wait_group is for other accumulators");
        give_back(set);
    }
    /* All registers when nothing is under way, neither really nor as far as the waiting tells. */
    for (unsigned i = 0; i < SETS && first->pending == 0; i++) {
        if (warp->sets[i].d[0] != nullptr)
            give_back(&warp->sets[i]);
    }
}

void simt_wgmma_wait(unsigned pending, const float *d, const char *file, int line)
{
    struct wait_record record = {own_warp(), pending, d};
    simt_warp_meet(0xffffffff, "wgmma.wait_group", &record, act_wait, file, line);
}

/* ---- Registers ---- */

static void act_registers(void **records, unsigned size)
{
    (void)records;
    (void)size;
}

void simt_set_registers(int count, const char *file, int line)
{
    if (count % 8 != 0 || count < 24 || count > 256)
        simt_fail("setmaxnreg %d: it must be a multiple of 8 from 24 to 256", count);
    simt_group_meet(128, "setmaxnreg", nullptr, act_registers, file, line);
}
