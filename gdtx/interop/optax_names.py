"""Names of Optax that gdtx does not have, and what to use in their place."""

from __future__ import annotations

import sys
from typing import NoReturn

# What does it here. The names in quotation marks are looked up by a test.
_instead = {
    "ApplyEvery": "gdtx.states.AccumulateState",
    "EmptyState": "the empty tuple, ()",
    "GradientTransformationExtraArgs": "gdtx.GradientTransformation: all take extra arguments",
    "LookaheadParams": "the parameters: gdtx.lookahead keeps the slow weights in its state, and "
    "gdtx.eval_params gives them",
    "MaskedNode": "None: a leaf that is masked out is None",
    "MultiSteps": "gdtx.accumulate_gradients(tx, every)",
    "ReduceLROnPlateauState": "gdtx.states.PlateauState",
    "WrappedSchedule": "gdtx.Schedule, made by @gdtx.schedule",
    "ZoomLinesearchInfo": "gdtx.states.ZoomLinesearchState, which has its numbers",
    "adamaxw": "gdtx.chain(gdtx.scale_by_adamax(...), gdtx.add_decayed_weights(weight_decay, mask),"
    " gdtx.scale_by_learning_rate(...))",
    "apply_every": "gdtx.accumulate_gradients(tx, every), which takes the mean and not the sum",
    "apply_if_finite": "gdtx.skip_nonfinite(tx, max_consecutive)",
    "conditionally_mask": "gdtx.when(name, tx, otherwise='zero')",
    "conditionally_transform": "gdtx.when(name, tx), or gdtx.every(k, tx)",
    "dpsgd": "gdtx.chain(gdtx.differentially_private_aggregate(l2_norm_clip, noise_multiplier, "
    "seed), gdtx.sgd(...))",
    "hutchinson_estimator_diag_hessian": "gdtx.hutchinson(loss, params, key)",
    "incremental_update": "gdtx.average(tx, decay) and gdtx.eval_params; optax.incremental_update "
    "takes parameters from gdtx as they are",
    "init_empty_state": "the empty tuple, ()",
    "inject_hyperparams": "the method itself, whose every scalar takes a schedule or an array, or "
    "gdtx.tunable(tx), which keeps them in the state",
    "inject_stateful_hyperparams": "the method itself, whose every scalar takes a schedule or an "
    "array, or gdtx.tunable(tx), which keeps them in the state",
    "keep_params_nonnegative": "gdtx.keep_nonnegative()",
    "measure_with_ema": "gdtx.remember(tx) and gdtx.describe(tx, state)",
    "monitor": "gdtx.remember(tx) and gdtx.describe(tx, state)",
    "multi_transform": "gdtx.partition(transforms, labels)",
    "named_chain": "gdtx.chain(*links): gdtx.find(state, 'mu') reads the state by names",
    "noisy_sgd": "gdtx.chain(gdtx.add_noise(eta, gamma, seed), gdtx.sgd(...))",
    "normalize": "gdtx.normalize_by_global_norm()",
    "normalize_by_update_norm": "gdtx.normalize_by_global_norm()",
    "optimistic_adam_v2": "gdtx.displaced(gdtx.adam(...), gdtx.identity())",
    "optimistic_gradient_descent": "gdtx.displaced(gdtx.sgd(...), gdtx.identity())",
    "polyak_sgd": "gdtx.polyak_step(gdtx.sgd(...))",
    "sam": "gdtx.sharpness_aware(tx, rho, perturbation)",
    "scale_by_galore": "gdtx.projected(tx, rank, every, side='longer')",
    "scale_by_polyak": "gdtx.polyak_step(tx)",
    "scale_by_backtracking_linesearch": "gdtx.backtracking_linesearch(max_backtracking_steps)",
    "scale_by_zoom_linesearch": "gdtx.zoom_linesearch(max_linesearch_steps)",
    "schedule_free_eval_params": "gdtx.eval_params(tx, state, params)",
    "selective_transform": "gdtx.freeze(tx, mask)",
    "sign_sgd": "gdtx.chain(gdtx.sign(), gdtx.scale_by_learning_rate(...))",
    "skip_large_updates": "gdtx.skip_large(tx, max_norm)",
    "skip_not_finite": "gdtx.skip_nonfinite(tx)",
    "snapshot": "gdtx.remember(tx) and gdtx.describe(tx, state)",
    "stateless": "gdtx.elementwise(f), gdtx.with_params(f) or gdtx.treewise(f)",
    "stateless_with_tree_map": "gdtx.elementwise(f) or gdtx.with_params(f)",
    "tree_map_params": "gdtx.find(state, 'mu'), which gives buffers as trees like the parameters; "
    "optax.tree_map_params takes gdtx's states too",
    "update_infinity_moment": "gdtx.running_max(decay)",
    "update_moment": "gdtx.ema(decay)",
    "update_moment_per_elem_norm": "gdtx.chain(gdtx.square(), gdtx.ema(decay))",
    "with_extra_args_support": "the transformation itself: all take extra arguments",
}  # fmt: skip

# What holds for many names.
_of_many = {
    "losses stay where they are: optax.losses.{name}": """
        binary_dice_loss convex_kl_divergence cosine_distance cosine_similarity ctc_loss
        ctc_loss_with_forward_probs dice_loss generalized_kl_divergence hinge_loss huber_loss
        kl_divergence kl_divergence_with_log_targets l2_loss log_cosh make_fenchel_young_loss
        multiclass_generalized_dice_loss multiclass_hinge_loss multiclass_perceptron_loss
        multiclass_sparsemax_loss ntxent perceptron_loss poly_loss_cross_entropy
        ranking_softmax_loss safe_softmax_cross_entropy sigmoid_binary_cross_entropy
        sigmoid_focal_loss smooth_labels softmax_cross_entropy
        softmax_cross_entropy_with_integer_labels sparsemax_loss squared_error triplet_margin_loss
    """,
    "types are your own: trees of arrays are Any, a schedule is a function of the step": """
        GaLoreDimensionNumbers MaskOrFn MuonDimensionNumbers OptState Params ScalarOrSchedule
        ShouldSkipUpdateFunction TransformInitFn TransformUpdateExtraArgsFn TransformUpdateFn
        Updates
    """,
    "utilities stay where they are: optax.{name}": """
        assignment contrib experimental losses matrix_inverse_pth_root microbatch microbatching
        multi_normal nnls periodic_update perturbations power_iteration projections safe_increment
        safe_int32_increment safe_norm safe_root_mean_squares scale_gradient second_order
        transforms tree_utils
    """,
    "use optax.{name}, which gdtx.chain takes and gdtx.interop.from_optax makes gdtx's own": """
        flatten fromage optimistic_adam
        per_example_global_norm_clip
        per_example_layer_norm_clip scale_by_distance_over_gradients
        scale_by_novograd scale_by_optimistic_gradient scale_by_param_block_norm
    """,
    "use optax.contrib.{name}, which gdtx.chain takes and gdtx.interop.from_optax makes "
    "gdtx's own": """
        acprop cocob dowg madgrad momo momo_adam scale_by_acprop scale_by_adopt scale_by_cocob
        scale_by_madgrad scale_by_simplified_ademamix simplified_ademamix
        split_real_and_imaginary
    """,
}


def advice(name: str) -> str | None:
    """What to do about a name of Optax's, if this is one."""
    if name in _instead:
        return f"use {_instead[name]}"
    for sentence, names in _of_many.items():
        if name in names.split():
            return sentence.format(name=name)
    if name.endswith("State"):
        return "use gdtx.find(state, name), which reads any state, for the classes are others here"
    return None


def __getattr__(name: str) -> NoReturn:
    """What `gdtx.name` raises, where there is no such name."""
    message = f"module 'gdtx' has no attribute {name!r}"
    for module in (sys.modules["gdtx.states"], sys.modules["gdtx.kinds"]):
        if hasattr(module, name):
            raise AttributeError(f"{message}: use {module.__name__}.{name}")
    if found := advice(name):
        raise AttributeError(f"{message}: {found}")
    # With both, Python itself suggests a name that is spelled like it.
    raise AttributeError(message, name=name, obj=sys.modules["gdtx"])
