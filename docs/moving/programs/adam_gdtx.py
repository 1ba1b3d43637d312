"""Adam with all that a training run adds to it, as one expression."""

import gdtx

schedule = gdtx.warmup_cosine_decay_schedule(0.0, 0.01, 10, 100)
tx = gdtx.average(
    gdtx.chain(
        gdtx.clip_by_global_norm(1.0),
        gdtx.adamw(
            schedule,
            b2=0.99,
            weight_decay=0.1,
            mask=lambda path, leaf: leaf.ndim > 1,
        ),
    ),
    decay=0.95,
)


def update(grads, state, params):
    """New parameters and the new state."""
    updates, state = tx.update(grads, state, params)
    return gdtx.apply_updates(params, updates), state


def for_evaluation(state, params):
    """The averaged parameters."""
    return gdtx.eval_params(tx, state, params)
