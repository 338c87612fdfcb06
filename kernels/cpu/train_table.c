/* The reference launch table of the training step. */
#include "kernels/cpu/train.h"

const struct cm_train_kernels cm_train_kernels_cpu = {
    .embed = cm_cpu_embed,
    .embed_backward = cm_cpu_embed_backward,
    .norm = cm_cpu_norm,
    .norm_backward = cm_cpu_norm_backward,
    .rope = cm_cpu_rope,
    .attention = cm_cpu_attention,
    .attention_backward = cm_cpu_attention_backward,
    .activation = cm_cpu_activation,
    .activation_backward = cm_cpu_activation_backward,
    .add_to = cm_cpu_add_to,
    .convert = cm_cpu_convert,
    .softmax_parts = cm_cpu_softmax_parts,
    .cross_entropy = cm_cpu_cross_entropy,
    .sum = cm_cpu_sum,
    .clip_factor = cm_cpu_clip_factor,
    .adamw = cm_cpu_adamw,
    .route = cm_cpu_route,
    .route_backward = cm_cpu_route_backward,
    .permute = cm_cpu_permute,
    .unpermute = cm_cpu_unpermute,
    .unpermute_backward = cm_cpu_unpermute_backward,
    .quantise = cm_cpu_quantise,
    .reorder = cm_cpu_reorder,
};
