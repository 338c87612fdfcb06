/*
 * The graphs of attention as the real cuDNN takes them. The library can plan for a device that is
 * described to it, so this needs none: for three architectures it must know attention in the graph,
 * propose a kernel, and compile it. Where that is loaded is the end without a driver.
 *
 * Where the product names its device by a handle, a description is put in its place.
 */
#include "test.h"

#include <cudnn_graph.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/train_kernels.h"
#include "host/device/cuda.h"

/* ---- what the product asks of CUDA on the way ---- */

cudaError_t cudaMalloc(void **memory, size_t size)
{
    static char block[1];
    *memory = block;
    return size > 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaFree(void *memory)
{
    (void)memory;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

enum cm_status cm_cuda_status(struct cm_cuda_device *device, int code, const char *call,
                              const char *file, int line)
{
    (void)device;
    return code == 0 ? CM_OK : cm_error(CM_DEVICE, "%s: %d (%s:%d)", call, code, file, line);
}

enum cm_status cm_cuda_enter(struct cm_cuda_device *device)
{
    (void)device;
    return CM_OK;
}

void cm_cuda_start_held(struct cm_cuda_device *device)
{
    (void)device;
}

bool cm_cuda_ready(struct cm_stream *stream, unsigned launches, const char *what,
                   enum cm_status *status)
{
    (void)stream;
    (void)launches;
    (void)what;
    *status = CM_OK;
    return false;
}

void cm_cuda_who(const struct cm_cuda_device *device, char text[CM_CUDA_WHO_MAX])
{
    snprintf(text, CM_CUDA_WHO_MAX, "sm_%d", device->capability);
}

/* ---- between the product and the library ---- */

static void *library;
static int capability;
static cudnnBackendDescriptor_t description, heuristics, plan;
static unsigned compiled; /* plans */

void *__real_dlsym(void *handle, const char *name);
void *__wrap_dlsym(void *handle, const char *name);

/* The library's own. */
static void find(const char *name, void *function)
{
    void *symbol = __real_dlsym(library, name);
    assert_non_null(symbol);
    memcpy(function, &symbol, sizeof symbol);
}

static const char *describe(void)
{
    static char text[900];
    static const struct {
        int capability, units, shared, threads, blocks;
    } chips[] = {
        {80, 108, 166912, 2048, 32}, {90, 132, 232448, 2048, 32}, {100, 148, 232448, 2048, 32}};
    size_t i = 0;
    while (chips[i].capability != capability)
        i++;
    snprintf(text, sizeof text,
             "{\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":%d,"
             "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
             "\"regsPerBlock\":65536,\"multiProcessorCount\":%d,\"warpSize\":32,"
             "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%d,"
             "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
             "\"maxCtasPerSM\":%d,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,"
             "\"pciDeviceId\":1,\"isTccDriver\":0,\"supportCoopLaunch\":1,"
             "\"smClockRateKHz\":1500000,\"memClockRateKHz\":2000000,\"l2CacheSize\":41943040,"
             "\"deviceName\":\"described\",\"totalGlobalMem\":80000000000}",
             capability * 10, CUDART_VERSION, chips[i].units, chips[i].shared, chips[i].blocks,
             chips[i].threads);
    return text;
}

static cudnnStatus_t create(cudnnHandle_t *handle)
{
    static char place[1];
    const char *text = describe();
    __typeof__(cudnnBackendCreateDescriptor) *make;
    __typeof__(cudnnBackendSetAttribute) *set;
    __typeof__(cudnnBackendFinalize) *finalize;
    find("cudnnBackendCreateDescriptor", &make);
    find("cudnnBackendSetAttribute", &set);
    find("cudnnBackendFinalize", &finalize);
    *handle = (cudnnHandle_t)(void *)place;
    assert_int_equal(make(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &description), 0);
    assert_int_equal(set(description, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                         (int64_t)strlen(text), text),
                     0);
    return finalize(description);
}

static cudnnStatus_t destroy(cudnnHandle_t handle)
{
    __typeof__(cudnnBackendDestroyDescriptor) *real;
    (void)handle;
    find("cudnnBackendDestroyDescriptor", &real);
    return real(description);
}

static cudnnStatus_t create_descriptor(cudnnBackendDescriptorType_t type,
                                       cudnnBackendDescriptor_t *descriptor)
{
    __typeof__(cudnnBackendCreateDescriptor) *real;
    find("cudnnBackendCreateDescriptor", &real);
    cudnnStatus_t status = real(type, descriptor);
    if (type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
        heuristics = *descriptor;
    if (type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        plan = *descriptor;
    return status;
}

static cudnnStatus_t set_attribute(cudnnBackendDescriptor_t descriptor,
                                   cudnnBackendAttributeName_t name,
                                   cudnnBackendAttributeType_t type, int64_t count,
                                   const void *values)
{
    __typeof__(cudnnBackendSetAttribute) *real;
    find("cudnnBackendSetAttribute", &real);
    if (type == CUDNN_TYPE_HANDLE)
        return CUDNN_STATUS_SUCCESS;
    return real(descriptor, name, type, count, values);
}

/* Whether a plan came as far as it can without a driver. */
static bool ends_at_loading(cudnnStatus_t status)
{
    char words[400] = "";
    __typeof__(cudnnGetLastErrorString) *real;
    find("cudnnGetLastErrorString", &real);
    real(words, sizeof words);
    if (strstr(words, "cuLibraryLoadData") != NULL)
        return true;
    printf("%d: %s\n", (int)status, words);
    return false;
}

static cudnnStatus_t finalize(cudnnBackendDescriptor_t descriptor)
{
    __typeof__(cudnnBackendSetAttribute) *set;
    __typeof__(cudnnBackendFinalize) *real;
    find("cudnnBackendSetAttribute", &set);
    find("cudnnBackendFinalize", &real);
    if (descriptor == heuristics)
        assert_int_equal(set(descriptor, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                             CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &description),
                         0);
    cudnnStatus_t status = real(descriptor);
    if (descriptor != plan || (status != CUDNN_STATUS_SUCCESS && !ends_at_loading(status)))
        return status;
    compiled++;
    return CUDNN_STATUS_SUCCESS;
}

/* A plan that is not loaded does not tell its workspace. */
static cudnnStatus_t get_attribute(cudnnBackendDescriptor_t descriptor,
                                   cudnnBackendAttributeName_t name,
                                   cudnnBackendAttributeType_t type, int64_t most, int64_t *count,
                                   void *values)
{
    __typeof__(cudnnBackendGetAttribute) *real;
    find("cudnnBackendGetAttribute", &real);
    cudnnStatus_t status = real(descriptor, name, type, most, count, values);
    return descriptor == plan ? CUDNN_STATUS_SUCCESS : status;
}

void *__wrap_dlsym(void *handle, const char *name)
{
    static const struct {
        const char *name;
        void (*function)(void);
    } ours[] = {
        {"cudnnCreate", (void (*)(void))create},
        {"cudnnDestroy", (void (*)(void))destroy},
        {"cudnnBackendCreateDescriptor", (void (*)(void))create_descriptor},
        {"cudnnBackendSetAttribute", (void (*)(void))set_attribute},
        {"cudnnBackendFinalize", (void (*)(void))finalize},
        {"cudnnBackendGetAttribute", (void (*)(void))get_attribute},
    };
    for (size_t i = 0; handle == library && i < sizeof ours / sizeof *ours; i++) {
        void *symbol;
        memcpy(&symbol, &ours[i].function, sizeof symbol);
        if (strcmp(ours[i].name, name) == 0)
            return symbol;
    }
    return __real_dlsym(handle, name);
}

/* ---- the test ---- */

/* As a step has them (q, k and v in one row), and with gaps everywhere. */
static struct cm_attention shape(uint32_t batch, uint32_t heads, uint32_t kv_heads, uint32_t size,
                                 uint32_t length, bool gaps)
{
    uint64_t width = (uint64_t)heads * size, kv_width = (uint64_t)kv_heads * size;
    uint64_t row = width + 2 * kv_width;
    return (struct cm_attention){.dtype = CM_BF16,
                                 .batch = batch,
                                 .heads = heads,
                                 .kv_heads = kv_heads,
                                 .head_size = size,
                                 .q_length = length,
                                 .k_length = length,
                                 .positions = {batch, length, {0, 0}},
                                 .q_stride = row,
                                 .kv_stride = gaps ? kv_width + 24 : row,
                                 .o_stride = gaps ? width + 8 : width,
                                 .dq_stride = gaps ? width + 16 : row,
                                 .dkv_stride = gaps ? kv_width + 40 : row};
}

static void plans_are_made(void **state)
{
    const struct cm_attention shapes[] = {
        shape(1, 32, 8, 128, 8192, false),
        shape(16, 12, 12, 64, 1024, false),
        shape(2, 4, 2, 64, 70, true),
        shape(3, 6, 3, 24, 65, true),
    };
    (void)state;
    compiled = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct cm_cuda_device device = {.capability = capability};
        char version[CM_LIBRARY_VERSION_MAX] = "";
        enum cm_status status = cm_attention_cudnn.prepare(&device.device, &shapes[i], version);
        const char *text = status == CM_OK ? version : cm_error_text();
        printf("sm_%d, %u heads of %u, %u keys: %s\n", capability, shapes[i].heads,
               shapes[i].head_size, shapes[i].k_length, text);
        assert_int_equal(status, CM_OK);
        assert_int_equal(compiled, 2 * (i + 1));
        cm_cudnn_close(device.cudnn);
    }
}

static int on(void **state)
{
    capability = *(const int *)*state;
    return 0;
}

int main(void)
{
    static int chips[] = {80, 90, 100};
    library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    /* The library asks for the driver's by name, and finds this one loaded. */
    if (library == NULL || (dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL) == NULL &&
                            dlopen(CM_CUDA_STUB, RTLD_NOW | RTLD_GLOBAL) == NULL)) {
        fprintf(stderr, "skipped: %s\n", dlerror());
        return 77;
    }
    const struct CMUnitTest tests[] = {
        {"plans_are_made.80", plans_are_made, on, NULL, &chips[0]},
        {"plans_are_made.90", plans_are_made, on, NULL, &chips[1]},
        {"plans_are_made.100", plans_are_made, on, NULL, &chips[2]},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
