"""How long a verdict takes against the bare traces that it needs, and against compiling and running. Nothing is cached.

Garbage is collected before a measurement and not during it: a full collection walks everything that jax keeps alive,
costs as much as a small trace, and would hit whatever happens to run then. Tracing and proving keep to one thread, so
they are clocked in processor time, which other processes disturb less; compiling does not, so it is told by two clocks.
"""

import contextlib
import dataclasses
import gc
import statistics
import time
import typing
from collections.abc import Callable, Iterator, Sequence

import jax

from harness import prove, settings
from harness.program import Program
from harness.prove.prover import uncollected

CACHE = "jax_enable_compilation_cache"
Make = Callable[[], tuple[Program, Program]]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Processor seconds of one verdict on fresh programs: `trace` in jax's own tracer, both sides; `verdict` all."""

    kind: str
    trace: float
    verdict: float

    @property
    def proof(self) -> float:
        """What the prover adds."""
        return self.verdict - self.trace

    @property
    def ratio(self) -> float:
        """Verdict time over bare trace time."""
        return self.verdict / self.trace


@dataclasses.dataclass(frozen=True)
class Cold:
    """Seconds of one pair from empty caches: the verdict; lowering, compiling and running both sides; by two clocks."""

    kind: str
    verdict: float
    lower: float
    compile: float
    run: float
    wall_verdict: float
    wall_executed: float

    @property
    def times_cheaper(self) -> float:
        """How many verdicts the processor time of compiling and running both sides is worth, what leads there too."""
        return (self.lower + self.compile + self.run) / self.verdict

    @property
    def times_faster(self) -> float:
        """The same by the clock on the wall."""
        return self.wall_executed / self.wall_verdict


def now() -> tuple[float, float]:
    """Processor and wall-clock seconds."""
    return time.process_time(), time.perf_counter()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Garbage collected before, and none collected inside."""
    gc.collect()
    with uncollected():
        yield


@contextlib.contextmanager
def tracer_clock() -> Iterator[list[float]]:
    """The processor seconds that each call of jax's tracer takes meanwhile; naming leaves is not in it."""
    seconds: list[float] = []
    plain = jax.make_jaxpr

    def timed(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        made = plain(*args, **kwargs)

        def call(*values: typing.Any) -> typing.Any:
            start = time.process_time()
            try:
                return made(*values)
            finally:
                seconds.append(time.process_time() - start)

        return call

    jax.make_jaxpr = timed
    try:
        yield seconds
    finally:
        jax.make_jaxpr = plain


def sample(make: Make) -> Sample:
    """One verdict on fresh programs."""
    a, b = make()
    with quiet(), tracer_clock() as traces:
        start = time.process_time()
        verdict = prove(a, b)
        seconds = time.process_time() - start
    return Sample(str(verdict.kind), sum(traces), seconds)


def samples(makes: dict[str, Make], repeats: int, warm: int = 1) -> dict[str, list[Sample]]:
    """Samples of several pairs in turn, so that a slow minute hits all of them; `warm` rounds first are not counted."""
    taken: dict[str, list[Sample]] = {name: [] for name in makes}
    for _ in range(warm + repeats):
        for name, make in makes.items():
            taken[name].append(sample(make))
    return {name: found[warm:] for name, found in taken.items()}


def middle(found: Sequence[Sample]) -> Sample:
    """The median trace, and the median of the ratios, each of which was taken within one run."""
    kinds = {one.kind for one in found}
    trace = statistics.median(one.trace for one in found)
    return Sample("/".join(sorted(kinds)), trace, trace * statistics.median(one.ratio for one in found))


def cold(make: Make) -> Cold:
    """One verdict and one compile and run of both sides, each from empty caches. Inputs are drawn before the clock."""
    key = jax.random.key(0)
    values = [program.draw(key) for program in make()]
    jax.clear_caches()
    programs = make()
    with quiet():
        start = now()
        verdict = prove(*programs)
        proved = _since(start)
    jax.clear_caches()
    parts = [_executed(program, args) for program, args in zip(make(), values, strict=True)]
    lower, compile_, run = (sum(part[k][0] for part in parts) for k in range(3))
    return Cold(
        str(verdict.kind), proved[0], lower, compile_, run, proved[1], sum(clock[1] for part in parts for clock in part)
    )


def _since(start: tuple[float, float]) -> tuple[float, float]:
    return now()[0] - start[0], now()[1] - start[1]


def _executed(program: Program, args: Sequence[typing.Any]) -> list[tuple[float, float]]:
    """Both clocks' seconds of lowering, compiling and running."""
    with quiet(), settings.tracing():
        start = now()
        lowered = jax.jit(program.fn).lower(*args)
        parts, start = [_since(start)], now()
        compiled = lowered.compile()
        parts, start = [*parts, _since(start)], now()
        jax.block_until_ready(compiled(*args))
        return [*parts, _since(start)]


def middle_cold(found: Sequence[Cold]) -> Cold:
    """The medians of each part."""
    names = [field.name for field in dataclasses.fields(Cold) if field.name != "kind"]
    parts = {name: statistics.median(getattr(one, name) for one in found) for name in names}
    return Cold("/".join(sorted({one.kind for one in found})), **parts)


@contextlib.contextmanager
def no_persistent_cache() -> Iterator[None]:
    """Compiles anew what an earlier run has compiled."""
    before = getattr(jax.config, CACHE)
    jax.config.update(CACHE, False)
    try:
        yield
    finally:
        jax.config.update(CACHE, before)
