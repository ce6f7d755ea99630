"""What a training run is described with: optimizer, schedule, loss weights, seed."""

import dataclasses

from .errors import ConfigError


@dataclasses.dataclass(frozen=True)
class AdamW:
    """AdamW with linear warm-up and cosine decay. Rates per step; `clip_norm` bounds the global gradient norm."""

    peak_learning_rate: float = 3e-4
    warmup_steps: int = 10
    decay_steps: int = 1000
    final_fraction: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A train step's settings. `z_loss` weighs `log(Z)**2`; `seed` starts every random stream of the run.

    `load_balance_weight` weighs the mean over the layers of the experts' load-balance loss. `choice_bias_rate` is what
    a step adds to, or takes from, the choice bias of an expert that had fewer, or more, tokens than the mean.
    """

    optimizer: AdamW = AdamW()
    z_loss: float = 0.0
    load_balance_weight: float = 0.0
    choice_bias_rate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        opt = self.optimizer
        if not 0 <= opt.warmup_steps < opt.decay_steps:
            raise ConfigError(
                "optimizer.warmup_steps",
                opt.warmup_steps,
                f"must lie in [0, decay_steps={opt.decay_steps})",
                "shorten the warm-up or lengthen decay_steps",
            )
        for name in ("peak_learning_rate", "epsilon"):
            if getattr(opt, name) <= 0:
                raise ConfigError(f"optimizer.{name}", getattr(opt, name), "must be positive", "set a positive number")
        for name in ("b1", "b2"):
            if not 0 <= getattr(opt, name) < 1:
                raise ConfigError(
                    f"optimizer.{name}", getattr(opt, name), "must lie in [0, 1)", "0.9 and 0.95 are usual"
                )
        if opt.clip_norm is not None and opt.clip_norm <= 0:
            raise ConfigError("optimizer.clip_norm", opt.clip_norm, "must be positive", "use None to turn clipping off")
        for name in ("z_loss", "load_balance_weight", "choice_bias_rate"):
            if getattr(self, name) < 0:
                raise ConfigError(name, getattr(self, name), "must not be negative", "use 0.0 to turn it off")
