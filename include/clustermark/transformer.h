/*
 * transformer.h: a decoder-only transformer given by numbers, and what one token of it costs.
 *
 * Linear layers have no bias. The numbers come from configs/models/<name>.ini, section [model].
 */
#ifndef CLUSTERMARK_TRANSFORMER_H
#define CLUSTERMARK_TRANSFORMER_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/option.h"
#include "clustermark/status.h"

enum cm_norm_kind { CM_NORM_RMS, CM_NORM_LAYER };
enum cm_activation_kind { CM_ACTIVATION_SWIGLU, CM_ACTIVATION_GELU };
enum cm_position_kind { CM_POSITION_ROPE, CM_POSITION_LEARNED };

struct cm_transformer {
    char name[48];
    uint64_t layers; /* those that are run */
    uint64_t hidden, heads, kv_heads, head_size;
    uint64_t ffn;        /* width of the feed-forward layer, of one expert's */
    uint64_t vocabulary; /* tokens that exist; tables are padded, see cm_padded_vocabulary */
    uint64_t sequence;
    bool tied;                       /* the head's matrix is the embedding's */
    int norm, activation, positions; /* the enums above */
    double rope_base, norm_epsilon;
    uint64_t experts, top_k; /* 0: a dense feed-forward layer in every block */
    double capacity_factor;  /* places of an expert: this times tokens * top_k / experts; 0: as many
                                as there are tokens, so that none is dropped */
    uint64_t real_layers;    /* of the real model; more than `layers` makes this a slice of it */
};

/* Of struct cm_transformer: drives the INI files and help. */
extern const struct cm_option cm_transformer_options[];

/* From configs/models/<name>.ini (./configs, the source tree's, the installed ones), or the file of
 * that path. `layers` 0 runs all of them, else a slice. CM_USAGE with file and line: no such file,
 * an unknown key, numbers that cannot be right together (heads no multiple of kv_heads, head_size
 * no multiple of 8 or over 256, top_k over experts ...). */
enum cm_status cm_transformer_load(const char *name, uint64_t layers,
                                   struct cm_transformer *transformer);
/* The same rules for numbers from elsewhere; `where` begins the message. */
enum cm_status cm_transformer_validate(const struct cm_transformer *transformer, const char *where);

/* Rows of the embedding and head tables: the next multiple of 128 * parts. */
uint64_t cm_padded_vocabulary(const struct cm_transformer *transformer, unsigned parts);

struct cm_parameter_counts {
    double total;     /* all that are trained, padding left out */
    double embedding; /* token table, and learned positions */
    double layer;     /* one block, all experts */
    double head;      /* final norm, and the head's matrix (0 when tied) */
    double active;    /* of one token's way: total with only top_k experts */
    double matmul; /* of `active`, those in matrix products: the embedding's table counts when it is
                      the head's too, norms and positions do not */
};
void cm_transformer_count(const struct cm_transformer *transformer,
                          struct cm_parameter_counts *counts);

/* Model FLOPs of one token, forward and backward, nothing recomputed. `full` counts attention as
 * 12 L h s (PaLM, arXiv 2204.02311, appendix B; h = heads * head_size), `causal` half of that, as
 * Megatron-LM does. matmul is 6 per parameter of cm_parameter_counts.matmul in both. */
struct cm_token_flops {
    double full, causal;
    double matmul, attention_full;
};
void cm_transformer_flops(const struct cm_transformer *transformer, struct cm_token_flops *flops);

/* "llama3-8b", "llama3-8b, 4 of 32 layers": as figures are labelled. */
void cm_transformer_label(const struct cm_transformer *transformer, char *label, size_t size);

#endif
