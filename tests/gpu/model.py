"""The models of configs/models, as numbers for what this folder compares with."""
import configparser
import types

# What those files may leave out; include/clustermark/transformer.h says what each is.
DEFAULTS = {"kv_heads": "0", "head_size": "0", "tied": "no", "norm": "rms", "activation": "swiglu",
            "positions": "rope", "rope_base": "10000", "norm_epsilon": "1e-5", "experts": "0"}
TABLE_STEP = 128  # tables have a multiple of so many rows


def read(path, layers=0, sequence=0):
    """`layers` and `sequence` 0: the model's own."""
    file = configparser.ConfigParser(inline_comment_prefixes=("#", ";"))
    with open(path, encoding="utf-8") as lines:
        file.read_file(lines)
    values = {**DEFAULTS, **file["model"]}
    model = types.SimpleNamespace()
    for key in ("layers", "hidden", "heads", "kv_heads", "head_size", "ffn", "vocabulary",
                "sequence", "experts"):
        setattr(model, key, int(values[key]))
    model.kv_heads = model.kv_heads or model.heads
    model.head_size = model.head_size or model.hidden // model.heads
    model.layers, model.sequence = layers or model.layers, sequence or model.sequence
    model.rows = -(-model.vocabulary // TABLE_STEP) * TABLE_STEP
    model.tied = values["tied"] in ("yes", "true", "on", "1")
    model.gated = values["activation"] == "swiglu"
    model.layer_norm = values["norm"] == "layer"
    model.learned = values["positions"] == "learned"
    model.rope_base, model.epsilon = float(values["rope_base"]), float(values["norm_epsilon"])
    return model


def parameters(model):
    """Of one block, and of all that is none; norms left out."""
    heads = (model.heads + 2 * model.kv_heads) * model.head_size
    block = model.hidden * (heads + model.heads * model.head_size
                            + model.ffn * (3 if model.gated else 2))
    tables = model.rows * (1 if model.tied else 2) + (model.sequence if model.learned else 0)
    return block, tables * model.hidden


def most_layers(model, tokens, memory_bytes):
    """Blocks of which a step of so many tokens leaves a seventh of the memory free, in PyTorch: 20
    bytes of a parameter (bf16 weight and gradient, f32 master, its gradient, m, v), a row's
    activations in bf16, the logits three times."""
    block, rest = parameters(model)
    kept = 2 * tokens * (8 * model.hidden + model.ffn * (4 if model.gated else 2)
                         + 2 * (model.heads + model.kv_heads) * model.head_size)
    left = memory_bytes * 6 / 7 - 20 * rest - 6 * tokens * model.rows
    return int(left // (20 * block + kept))
