"""Fine-tuning: groups by patterns, and a rate for each layer."""

import re

import jax
import optax


def name_of(path):
    """Keys and indices, joined by slashes."""
    parts = []
    for key in path:
        if hasattr(key, "key"):
            parts.append(str(key.key))
        elif hasattr(key, "idx"):
            parts.append(str(key.idx))
        else:
            parts.append(str(key.name))
    return "/".join(parts)


def names_of(params):
    """The name of every leaf, in a tree like the parameters."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: name_of(path), params
    )


def labels_of(params, rules):
    """The label of the first pattern that matches, leaf by leaf."""
    used = set()

    def label(name):
        for pattern, label in rules:
            if re.fullmatch(pattern, name):
                used.add(pattern)
                return label
        raise ValueError(f"no pattern matches {name}")

    labels = jax.tree.map(label, names_of(params))
    unused = {pattern for pattern, _ in rules} - used
    if unused:
        raise ValueError(
            f"patterns that match nothing: {sorted(unused)}"
        )
    return labels


def mask_of(params, pattern):
    """Whether the name of a leaf is matched."""
    matches = jax.tree.map(
        lambda name: bool(re.fullmatch(pattern, name)), names_of(params)
    )
    if not any(jax.tree.leaves(matches)):
        raise ValueError(f"{pattern} matches nothing")
    return matches


def make(
    params, rate, steps, layers, layer_decay=0.75, weight_decay=0.05
):
    """The optimizer, which has to know the parameters."""

    def scaled(scale):
        def schedule(step):
            return scale * base(step)

        return optax.scale_by_learning_rate(schedule)

    base = optax.warmup_cosine_decay_schedule(
        0.0, rate, steps // 10, steps
    )
    groups = {"head": scaled(1.0)}
    rules = [("head/.*", "head"), ("embed/.*", "frozen")]
    for i in range(layers):
        groups[f"layer{i}"] = scaled(layer_decay ** (layers - i))
        rules.append((f"layers/{i}/.*", f"layer{i}"))
    groups["frozen"] = optax.set_to_zero()
    frozen = mask_of(params, "embed/.*")
    trained = jax.tree.map(lambda is_frozen: not is_frozen, frozen)
    kernels = mask_of(params, ".*/kernel")
    # Else the frozen part would count in the norm and have moments.
    return optax.chain(
        optax.masked(optax.set_to_zero(), frozen),
        optax.masked(
            optax.chain(
                optax.clip_by_global_norm(1.0),
                optax.scale_by_adam(),
            ),
            trained,
        ),
        optax.add_decayed_weights(weight_decay, mask=kernels),
        optax.multi_transform(groups, labels_of(params, rules)),
    )
