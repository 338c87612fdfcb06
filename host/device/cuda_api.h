/* cuda_api.h: CUDA's runtime enters here, for those files of the backend that call it. */
#ifndef HOST_DEVICE_CUDA_API_H
#define HOST_DEVICE_CUDA_API_H

#include <cuda_runtime_api.h>

#include "host/device/cuda.h"

#endif
