"""Fine-tuning: groups by patterns, and a rate for each layer."""

import gdtx


def make(rate, steps, layers, layer_decay=0.75, weight_decay=0.05):
    """The optimizer, for any parameters with these names."""
    schedule = gdtx.warmup_cosine_decay_schedule(
        0.0, rate, steps // 10, steps
    )
    groups = {"head": gdtx.scale_by_learning_rate(schedule)}
    rules = [("head/**", "head")]
    for i in range(layers):
        rate_here = layer_decay ** (layers - i) * schedule
        groups[f"layer{i}"] = gdtx.scale_by_learning_rate(rate_here)
        rules.append((f"layers/{i}/**", f"layer{i}"))
    trained = gdtx.chain(
        gdtx.clip_by_global_norm(1.0),
        gdtx.scale_by_adam(),
        gdtx.add_decayed_weights(weight_decay, mask=["**/kernel"]),
        gdtx.partition(groups, rules),
    )
    return gdtx.freeze(trained, ["embed/**"])
