"""The model framework's own commands, found by the entry point `paraflax.commands`.

`train`, `presets`, `import-hf` and `export-hf`.

A wrong setting raises `ValueError` with one sentence; the `paraflax` command prints it and exits with 2.
"""

import json
import pathlib
import typing

import rich.box
import rich.console
import rich.table
import typer

from .config import (
    AdamW,
    Attention,
    ConfigError,
    LatentAttention,
    LearnedPositions,
    ModelConfig,
    TrainConfig,
    from_json,
    gemma2,
    gpt3,
    llama,
    presets,
)

FAMILIES: dict[str, ModelConfig] = {
    "llama": llama(vocab_size=264, embed_dim=128, num_layers=4, heads=(4, 2), head_dim=32, hidden_dim=352),
    "gpt3": gpt3(
        vocab_size=264, embed_dim=128, num_layers=4, num_heads=4, head_dim=32, hidden_dim=512, position_length=1024
    ),
    "gemma2": gemma2(
        vocab_size=264, embed_dim=128, num_layers=4, heads=(4, 2), head_dim=32, hidden_dim=352, window=128
    ),
}
"""The byte-level model that `train` makes of each family when it is given no other."""


def train(  # noqa: PLR0913  (a command's options are its arguments)
    *,
    family: typing.Annotated[
        str | None, typer.Option(help="Train a small byte-level model of llama (the default), gpt3 or gemma2.")
    ] = None,
    config: typing.Annotated[
        pathlib.Path | None, typer.Option(help="A JSON file with a whole ModelConfig, instead of --family.")
    ] = None,
    backend: typing.Annotated[str, typer.Option(help="Which twin trains: linen or nnx.")] = "nnx",
    steps: typing.Annotated[int, typer.Option(min=1, help="Optimizer steps in all; the rate decays over them.")] = 300,
    batch: typing.Annotated[int, typer.Option(min=1, help="Rows a step.")] = 8,
    length: typing.Annotated[int, typer.Option(min=2, help="Tokens a row.")] = 256,
    learning_rate: typing.Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    text: typing.Annotated[
        list[pathlib.Path] | None,
        typer.Option(help="Text files, or directories of .py, .txt, .md, .rst. Default: the environment's sources."),
    ] = None,
    start: typing.Annotated[
        pathlib.Path | None, typer.Option("--from", help="A checkpoint to begin with, written by either twin.")
    ] = None,
    out: typing.Annotated[
        pathlib.Path | None, typer.Option(help="Directory of the run; one that holds a run is gone on with.")
    ] = None,
    save_every: typing.Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")] = None,
    seed: typing.Annotated[int, typer.Option(help="Starts parameters, dropout and the order of the text.")] = 0,
    time_limit: typing.Annotated[float | None, typer.Option(help="Stop and save after so many seconds.")] = None,
    tensorboard: typing.Annotated[bool, typer.Option(help="Write TensorBoard events as well.")] = False,
) -> None:
    """Train a byte-level model on real text and print its held-out loss.

    One document in twenty is held out. The run's directory holds a checkpoint of the first state and of the last one,
    and metrics.jsonl with one line a step. Ctrl-C saves and stops; the same command with the same --out goes on.

    `paraflax train --family llama --backend nnx --out runs/a` trains one twin;
    `paraflax train --family llama --backend linen --from runs/a/0 --out runs/b` then has the same loss at every step.
    """
    from . import backend as backend_named
    from .training.data import read_corpus
    from .training.loop import Plan, Run, Text, run
    from .training.report import Report

    console = rich.console.Console()
    model = _model(family, config, length)
    twin = backend_named(backend)
    settings = TrainConfig(
        optimizer=AdamW(peak_learning_rate=learning_rate, warmup_steps=min(20, steps - 1), decay_steps=steps), seed=seed
    )
    directory = out or _free_directory(pathlib.Path("runs"), f"{model.family}-{backend}")
    corpus = read_corpus(tuple(text or ()))
    console.print(
        f"{model.family}, {_num_parameters(model):,} parameters, {backend}; {len(corpus.train):,} documents to train "
        f"on, {len(corpus.held_out):,} held out, {corpus.num_bytes:,} bytes; writing {directory}", highlight=False,
    )
    this = Run(twin, model, settings, Text(corpus, batch, length), directory, start)
    plan = Plan(steps, save_every=save_every, time_limit=time_limit)
    result = run(this, plan, Report(console, directory, tensorboard=tensorboard))
    console.print(
        f"held-out loss {result.held_out:.4f} nats a byte after step {result.step} in {result.seconds:.0f} s; "
        f"checkpoint {directory / str(result.step)}", highlight=False, soft_wrap=True,
    )


def list_presets() -> None:
    """List the model presets with their sizes and the number of their parameters."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column in ("preset", "family", "layers", "width", "heads", "vocab", "parameters"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("preset", "family") else "right")
    for name, config in presets().items():
        table.add_row(
            name, config.family, str(config.num_layers), f"{config.embed_dim:,}", _heads(config.attention),
            f"{config.vocab_size:,}", f"{_num_parameters(config):,}",
        )
    console = rich.console.Console()
    # A pipe counts as 80 columns, and a count that is cut short is none.
    whole = console.measure(table, options=console.options.update(width=200)).maximum
    rich.console.Console(width=max(console.width, whole)).print(table)


def _heads(attention: Attention | LatentAttention) -> str:
    """Query heads over key heads, and their width; heads that read one latent vector have keys of their own."""
    if isinstance(attention, LatentAttention):
        return f"{attention.num_heads}/{attention.num_heads} x {attention.nope_dim + attention.rope_dim}"
    return f"{attention.num_heads}/{attention.num_kv_heads} x {attention.head_dim}"


def import_hf(
    source: typing.Annotated[pathlib.Path, typer.Argument(metavar="DIR", help="config.json and safetensors.")],
    out: typing.Annotated[pathlib.Path, typer.Argument(metavar="OUT", help="Directory of the new run.")],
    *,
    scan: typing.Annotated[bool, typer.Option("--scan/--no-scan", help="Stack the layers, or keep each.")] = True,
) -> None:
    """Read a Hugging Face model and write it as a checkpoint that either twin trains on.

    DIR holds config.json and model.safetensors, or its shards and their index. OUT/0 is a train state at step 0, whole
    or not there at all: the weights as they are, to the bit, and a fresh optimizer.

    `paraflax import-hf Qwen3-0.6B runs/qwen`; `paraflax export-hf runs/qwen back` has every tensor of the first again.
    """
    from . import backend as backend_named
    from .checkpoints import CheckpointError, load_hf, save

    if out.exists() and (not out.is_dir() or any(entry.name.isdecimal() for entry in out.iterdir())):
        raise CheckpointError(out, "exists already", "name another directory; a checkpoint is never overwritten")
    config, params = load_hf(source, scan_layers=scan)
    twin, settings = backend_named("nnx"), TrainConfig()
    step = save(out, twin.create_state(config, settings, params), backend=twin, config=config, train=settings)
    _say(f"{config.family}, {_num_parameters(config):,} parameters in {config.weight_dtype.value}; wrote {step}")


def export_hf(
    checkpoint: typing.Annotated[pathlib.Path, typer.Argument(metavar="CKPT", help="A run, or one step of it.")],
    out: typing.Annotated[pathlib.Path, typer.Argument(metavar="DIR", help="The new directory.")],
    *,
    config: typing.Annotated[
        pathlib.Path | None, typer.Option(help="A JSON file with the ModelConfig, for a checkpoint without one.")
    ] = None,
    shard_bytes: typing.Annotated[int, typer.Option(min=1, help="Largest weights file.")] = 5 * 10**9,
) -> None:
    """Write a checkpoint's weights as a Hugging Face model.

    CKPT is a checkpoint of either twin in any layout. DIR gets config.json and safetensors, whole or not at all; the
    optimizer stays behind, and a tokenizer is not ours to write.

    `paraflax export-hf runs/qwen/300 qwen-tuned`
    """
    from .checkpoints import CheckpointError, load, save_hf

    if out.exists():
        raise CheckpointError(out, "exists already", "name another directory; a model is never overwritten")
    model, params = load(checkpoint, config=None if config is None else _read_config(config))
    save_hf(model, params, out, shard_bytes=shard_bytes)
    _say(f"{model.family}, {_num_parameters(model):,} parameters in {model.weight_dtype.value}; wrote {out}")


def _say(line: str) -> None:
    rich.console.Console().print(line, highlight=False, soft_wrap=True)


def _model(family: str | None, file: pathlib.Path | None, length: int) -> ModelConfig:
    """The model to train, able to read bytes and rows of this length."""
    from .training.data import NUM_TOKENS

    if family is not None and file is not None:
        raise ConfigError("--family", family, "is given together with --config, which says it all", "give one of them")
    if file is None and (family or "llama") not in FAMILIES:
        raise ConfigError("--family", family, f"must be one of {', '.join(FAMILIES)}", "name one, or pass --config")
    model = FAMILIES[family or "llama"] if file is None else _read_config(file)
    if model.vocab_size < NUM_TOKENS:
        rule = f"must be at least {NUM_TOKENS} for bytes and three special tokens"
        raise ConfigError("vocab_size", model.vocab_size, rule, "use 264")
    if isinstance(model.positions, LearnedPositions) and model.positions.length < length:
        rule = f"is below --length = {length}"
        raise ConfigError("positions.length", model.positions.length, rule, "shorten the rows, or add positions")
    return model


def _read_config(file: pathlib.Path) -> ModelConfig:
    try:
        data = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError("--config", str(file), f"cannot be read ({error.strerror})", "name a JSON file") from error
    except ValueError as error:
        raise ConfigError("--config", str(file), f"is not JSON ({error})", "write one object") from error
    return from_json(ModelConfig, data)


def _num_parameters(config: ModelConfig) -> int:
    """How many numbers the model learns, from an abstract init."""
    import math

    from . import backend as backend_named

    return sum(math.prod(spec.shape) for spec in backend_named("nnx").param_specs(config).values())


def _free_directory(parent: pathlib.Path, stem: str) -> pathlib.Path:
    """`parent/stem-1`, or the first number that is not taken."""
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"
