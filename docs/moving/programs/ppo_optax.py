"""Proximal policy optimization: a cart learns to stop at the origin."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

CARTS, HORIZON, ROUNDS, EPOCHS, PARTS = 32, 64, 6, 4, 4
UPDATES = ROUNDS * EPOCHS * PARTS


class Step(NamedTuple):
    """One step of every cart."""

    cart: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array


def start(key):
    """Position and velocity of every cart."""
    return jax.random.uniform(key, (CARTS, 2), minval=-1.0, maxval=1.0)


def push(cart, action):
    """Push to the left, not at all, or to the right."""
    velocity = 0.9 * cart[:, 1] + 0.2 * (action - 1)
    position = cart[:, 0] + 0.1 * velocity
    reward = -(position**2) - 0.1 * velocity**2
    return jnp.stack([position, velocity], 1), reward


def init_params(key):
    """A network with two heads."""
    hidden, actor = jax.random.split(key)
    return {
        "hidden": jax.random.normal(hidden, (2, 16)),
        "actor": 0.01 * jax.random.normal(actor, (16, 3)),
        "critic": jnp.zeros((16, 1)),
    }


def network(params, cart):
    """Log-probabilities of actions, and the value of being there."""
    hidden = jnp.tanh(cart @ params["hidden"])
    log_probs = jax.nn.log_softmax(hidden @ params["actor"])
    return log_probs, (hidden @ params["critic"])[:, 0]


def taken(log_probs, action):
    """The log-probability of what was done."""
    return jnp.take_along_axis(log_probs, action[:, None], 1)[:, 0]


def play(params, cart, key):
    """Steps of all carts, and where they are then."""

    def step(cart, key):
        log_probs, value = network(params, cart)
        action = jax.random.categorical(key, log_probs)
        log_prob = taken(log_probs, action)
        after, reward = push(cart, action)
        return after, Step(cart, action, log_prob, value, reward)

    return jax.lax.scan(step, cart, jax.random.split(key, HORIZON))


def advantages(steps, last_value, discount=0.95, trace=0.9):
    """Generalized advantage estimates."""

    def back(carry, step):
        advantage, next_value = carry
        surprise = step.reward + discount * next_value - step.value
        advantage = surprise + discount * trace * advantage
        return (advantage, step.value), advantage

    first = jnp.zeros_like(last_value), last_value
    return jax.lax.scan(back, first, steps, reverse=True)[1]


def loss(params, steps, advantage, target):
    """The clipped objective, the critic's error, minus some entropy."""
    log_probs, value = network(params, steps.cart)
    log_prob = taken(log_probs, steps.action)
    ratio = jnp.exp(log_prob - steps.log_prob)
    advantage = advantage - advantage.mean()
    advantage = advantage / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 0.8, 1.2) * advantage
    policy = -jnp.minimum(ratio * advantage, clipped).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(1).mean()
    critic = ((value - target) ** 2).mean()
    return policy + 0.5 * critic - 0.01 * entropy


optimizer = optax.chain(
    optax.clip_by_global_norm(0.5),
    optax.adam(optax.linear_schedule(0.01, 0.0, UPDATES), eps=1e-5),
)


@jax.jit
def one_round(params, state, key):
    """Play, then learn from it in parts, some times over."""
    start_key, play_key, shuffle_key = jax.random.split(key, 3)
    cart, steps = play(params, start(start_key), play_key)
    advantage = advantages(steps, network(params, cart)[1])
    data = steps, advantage, advantage + steps.value
    data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)

    def learn(carry, rows):
        params, state = carry
        part = jax.tree.map(lambda x: x[rows], data)
        grads = jax.grad(loss)(params, *part)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def shuffled(key):
        return jax.random.permutation(key, CARTS * HORIZON)

    rows = jax.vmap(shuffled)(jax.random.split(shuffle_key, EPOCHS))
    rows = rows.reshape(EPOCHS * PARTS, -1)
    (params, state), _ = jax.lax.scan(learn, (params, state), rows)
    return params, state, steps.reward.mean()


def train():
    """The mean reward of each round, and the parameters."""
    first, *keys = jax.random.split(jax.random.key(0), 1 + ROUNDS)
    params = init_params(first)
    state = optimizer.init(params)
    rewards = []
    for key in keys:
        params, state, reward = one_round(params, state, key)
        rewards.append(reward)
    return jnp.stack(rewards), params


if __name__ == "__main__":
    print(train()[0])
