/* tensor_map.cu: the driver's function that makes tensor maps. */
#include "kernels/tensor_map.cuh"

#include "kernels/launch.cuh"

typedef decltype(&cuTensorMapEncodeTiled) encode_function;

/* The driver's function; linking with the driver itself would bind the module to a GPU machine. */
static int find_encode(encode_function *encode)
{
    static void *known;
    void *found = __atomic_load_n(&known, __ATOMIC_ACQUIRE);
    if (found == NULL) {
        enum cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
        int error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                     cudaEnableDefault, &result);
#else
        int error =
            cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
        if (error != cudaSuccess)
            return error;
        if (result != cudaDriverEntryPointSuccess || found == NULL)
            return cudaErrorInsufficientDriver;
        __atomic_store_n(&known, found, __ATOMIC_RELEASE);
    }
    *encode = (encode_function)found;
    return cudaSuccess;
}

int cm_tensor_map(const void *matrix, const uint64_t sizes[3], const uint64_t strides_bytes[2],
                  const uint32_t box[3], bool swizzled, CUtensorMap *map)
{
    encode_function encode;
    int error = find_encode(&encode);
    if (error != cudaSuccess)
        return error;
    cuuint64_t extents[3] = {sizes[0], sizes[1], sizes[2]};
    cuuint64_t strides[2] = {strides_bytes[0], strides_bytes[1]};
    cuuint32_t box_extents[3] = {box[0], box[1], box[2]};
    cuuint32_t every[3] = {1, 1, 1};
    CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)matrix, extents,
                             strides, box_extents, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                             swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}
