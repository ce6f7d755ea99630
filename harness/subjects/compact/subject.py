"""The compact subject: its cases, how one is checked and what a golden of it holds."""

import dataclasses
import typing
from collections.abc import Iterable, Iterator

from models.config import AdamW, ConfigError, DType, ModelConfig, TrainConfig, from_json, preset

from ...check import check
from ...program import Program
from ..case import Case, read_token
from ..subject import NamedVerdict
from . import programs
from .setup import Setup, dumps, read

TINY = (
    "llama-tiny", "gpt3-tiny", "gemma2-tiny", "gemma-tiny", "gemma3-tiny", "mistral-tiny", "qwen2-tiny", "qwen3-tiny",
    "olmo3-tiny", "mixtral-tiny", "qwen3-moe-tiny", "gpt-oss-tiny", "deepseek2-tiny", "deepseek3-tiny",
    "llama4-tiny", "qwen3-next-tiny", "gemma4-tiny",
)  # fmt: skip
# Between them these have what compiles differently. Every tiny setup is proved under every step; compiling and
# recording each of them as well would say little more and cost the gate its budget.
DEEP = (
    "llama-scanned", "llama-unscanned", "gpt3-scanned", "gpt3-unscanned", "gemma2-scanned", "gemma2-unscanned",
    "gemma3-scanned", "deepseek3-scanned",
)  # fmt: skip
FULLY_RECORDED = ("llama", "gpt3", "gemma2")
RECORDED = ("forward", "loss_and_grads", "train_step", "prefill", "generate")
WITNESSED = (
    "deepseek_v2", "deepseek_v3", "gemma", "gemma2", "gemma3", "gemma4", "gpt2", "gpt_oss", "llama", "llama3.1",
    "llama4", "mistral", "mixtral", "olmo3", "qwen2", "qwen3", "qwen3_moe", "qwen3_next",
)  # fmt: skip
PUBLISHED = (
    "llama3.1-8b", "llama3.1-405b", "gpt3-175b", "gemma2-2b", "gemma-7b", "gemma3-27b", "mistral-7b", "qwen2.5-14b",
    "qwen3-32b", "olmo3-32b", "mixtral-8x22b", "qwen3-480b-a35b", "gpt-oss-120b", "deepseek2-236b", "deepseek3-671b",
    "kimi-k2-1t", "llama4-17b-128e", "qwen3-next-80b-a3b", "gemma4-26b",
)  # fmt: skip
TRAIN = TrainConfig(optimizer=AdamW(warmup_steps=2, decay_steps=20), z_loss=1e-3)
OBSERVABLES = {
    "forward": "logits",
    "intermediates": "logits",
    "loss_and_grads": "grads",
    "train_step": "state",
    "train_steps_3": "state",
    "eval_step": "eval",
    "prefill": "decode",
    "generate": "decode",
}


@dataclasses.dataclass(frozen=True)
class CompactSubject:
    """The compact framework's Linen and NNX twins."""

    name: str = "compact"
    backends: tuple[str, ...] = ("linen", "nnx")
    steps: tuple[str, ...] = tuple(programs.STEPS)
    golden_files: tuple[str, ...] = tuple(
        f"witness/{model}.{ending}" for model in WITNESSED for ending in ("npz", "tsv")
    )
    forbidden_sources: typing.Any = dataclasses.field(
        default_factory=lambda: {"linen": ("models/nnx/",), "nnx": ("models/linen/",)}
    )

    def case(self, config: Setup, step: str, *, mesh: str | None = None, label: str | None = None) -> Case:
        """The case of a setup under a step.

        Raises:
            ConfigError: when there is no such step.
        """
        if step not in self.steps:
            raise ConfigError("step", step, f"must be one of {', '.join(self.steps)}", "name a known step")
        return Case(self.name, config, dumps(config), step, mesh, label)

    def case_from_json(self, data: dict[str, typing.Any]) -> Case:
        """The case of a plain description `{config, step, mesh}`."""
        return self.case(from_json(Setup, data["config"]), data["step"], mesh=data.get("mesh"))

    def case_from_token(self, token: str) -> Case:
        """The case behind a token that a report printed."""
        return self.case_from_json(read_token(token))

    def read_config(self, text: str) -> Setup:
        """A setup from a preset's name or a JSON file."""
        return read(text)

    def program(self, backend: str, case: Case) -> Program:
        """One twin's program of a case."""
        return programs.program(backend, case)

    def programs(self, case: Case) -> tuple[Program, ...]:
        """Both twins' programs of a case."""
        return tuple(self.program(backend, case) for backend in self.backends)

    def check(self, case: Case, *, allow: str = "exact") -> Iterator[NamedVerdict]:
        """Proves the case, or measures what is not proved. `allow` is the weakest rewrites that count."""
        yield NamedVerdict(OBSERVABLES[case.step], check(*self.programs(case), allow=allow), case)

    def tiny_setups(self) -> dict[str, Setup]:
        """Each tiny preset, scanned and unscanned, by label."""
        return {
            f"{name.removesuffix('-tiny')}-{'scanned' if scan else 'unscanned'}": Setup(
                preset(name).replace(scan_layers=scan), TRAIN
            )
            for name in TINY
            for scan in (True, False)
        }

    def deep_setups(self) -> dict[str, Setup]:
        """The tiny setups that are also compiled, run, saved and placed on devices."""
        return {label: setup for label, setup in self.tiny_setups().items() if label in DEEP}

    def light_setups(self) -> dict[str, Setup]:
        """The other ones, scanned: compiled and run under a train step and a decode."""
        known = self.tiny_setups().items()
        return {label: setup for label, setup in known if label not in DEEP and setup.model.scan_layers}

    def variants(self) -> dict[str, Setup]:
        """What the tiny presets leave out: dropout, bfloat16, and eleven layers."""
        made = {}
        for label, setup in (self.deep_setups() | self.light_setups()).items():
            made[f"{label}-dropout"] = _with(setup, dropout_rate=0.1)
            made[f"{label}-bfloat16"] = _with(setup, dtype=DType.BFLOAT16)
        made["llama-unscanned-11-layers"] = _with(self.tiny_setups()["llama-unscanned"], num_layers=11)
        return made

    def preset_cases(self) -> list[Case]:
        """Every step of every tiny preset, and the train step of every variant."""
        cases = [
            self.case(setup, step, label=label) for label, setup in self.tiny_setups().items() for step in self.steps
        ]
        return cases + [self.case(setup, "train_step", label=label) for label, setup in self.variants().items()]

    def published_cases(self, names: Iterable[str] = PUBLISHED) -> list[Case]:
        """Forward and train step of published sizes on 256 chips: of one or two a family, unless they are named."""
        return [
            self.case(Setup(preset(name), TRAIN), step, mesh="fsdp-tensor-256", label=name)
            for name in names
            for step in ("forward", "train_step")
        ]

    def golden_cases(self) -> list[Case]:
        """The cases with a golden: all of the first families', the others' main steps, the published sizes'."""
        return [case for case in self.preset_cases() if _recorded(case)] + self.published_cases()

    def golden(self, case: Case) -> typing.Any:
        """The case's golden as the code computes it now."""
        from .golden import golden

        return golden(self, case)


def _recorded(case: Case) -> bool:
    model, scanned = case.config.model, case.config.model.scan_layers
    if model.family in FULLY_RECORDED:
        return True
    plain = case.label is not None and case.label.endswith(("-scanned", "-unscanned"))
    return plain and case.step in (RECORDED if scanned else ("train_step",))


def _with(setup: Setup, **changes: typing.Any) -> Setup:
    model: ModelConfig = setup.model.replace(**changes)
    return dataclasses.replace(setup, model=model)


SUBJECT = CompactSubject()
