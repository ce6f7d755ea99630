"""How the Linen twin reads parameters that are there: as they are, held to the configuration, nothing traced for it."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax.errors import ScopeParamShapeError

from models.config import preset
from models.linen.layers import Dense, LayerNorm, RmsNorm

CONFIG = preset("llama-tiny")
X = jnp.ones((2, 3, 8), CONFIG.dtype.value)
MODULES = {
    "dense": Dense(CONFIG, (8, 4), ("embed", "mlp"), use_bias=True),
    "rms norm": RmsNorm(CONFIG),
    "layer norm": LayerNorm(preset("gpt3-tiny")),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_parameter_that_is_there_is_read_without_tracing_its_initializer(name, monkeypatch):
    module = MODULES[name]
    boxed = module.init(jax.random.key(0), X)
    expected = module.apply(boxed, X)
    monkeypatch.setattr(jax, "eval_shape", lambda *args, **kwargs: pytest.fail("an initializer was traced"))
    for params in (boxed, nn.unbox(boxed)):
        assert jnp.array_equal(module.apply(params, X), expected)


@pytest.mark.parametrize("name", MODULES)
def test_a_parameter_of_another_shape_is_refused(name):
    params = nn.unbox(MODULES[name].init(jax.random.key(0), X))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        wrong = jax.tree_util.tree_map_with_path(lambda p, x, path=path: x[1:] if p == path else x, params)
        assert leaf.shape[0] > 1
        with pytest.raises(ScopeParamShapeError, match=path[-1].key):
            MODULES[name].apply(wrong, X)
