"""Faults of the list that no trace of a step shows, why, and what notices them instead: data only."""

from .rows import Untraced

_FILES = "a checkpoint's files are no computation: the steps' traces are the same"
_TREES = "trees of saved states are held leaf by leaf against the layout tables (`test_checkpoints.py`)"
_RAISES = "the program cannot be traced, so there is no trace to differ"
_STOPS = "the step's own tests: a program that cannot be traced is an error that names its cause"
_TOOL = "a fault of the tooling: the programs are the same"
_META = "the meta tests: each check is shown to fail"

UNTRACED = (
    Untraced("M25", "a local rule for an axis name is not looked up", "rules are applied before tracing; where an"
             " activation's constraint changes, H01 shows it", "`test_shardings.py`"),
    Untraced("R01", "the dropout stream starts over at each resume", "each step's trace is the same, the state it is"
             " given is not", "a run that is stopped and resumed against one that is not (`training/test_loop.py`)"),
    Untraced("R06", "a new submodule reseeds the initial values of those after it", "draws are lifted to named inputs:"
             " proofs hold modulo key derivation, on purpose", "moments of initial values by leaf"),
    Untraced("R09", "parity claimed from equal seeds", "equal seeds cannot give equal values across the two interfaces;"
             " the harness carries weights over by name", "leaf sensitivity (`meta/test_sensitivity.py`)"),
    Untraced("S09", "a traced array is set as a static attribute", _RAISES, _STOPS),
    Untraced("L13", "an operation keeps a tracer of an earlier trace", _RAISES, "the prover calls a leaked value"
             " unmodelled, and the second trace of a case fails"),
    Untraced("L15", "the step is compiled a second time", "the same program is compiled again: a property of calls",
             "counts of compilations (`measure`)"),
    Untraced("K01", "a weight that is missing on disk keeps its initial value", _FILES, _TREES),
    Untraced("K03", "an array of another shape is restored at its own", _FILES, _TREES),
    Untraced("K04", "the optimizer's state is wrapped once more and starts at zero", _FILES, _TREES),
    Untraced("K06", "a variable of an own kind is not saved", _FILES, _TREES),
    Untraced("K07", "the step is saved as another integer", _FILES, _TREES),
    Untraced("K09", "a manager is built for the other tree", _FILES, _TREES),
    Untraced("K10", "the name of the stacked layers differs", _FILES, _TREES),
    Untraced("K12", "key leaves are cast to half precision", _FILES, _TREES),
    Untraced("K13", "transient variables are asked of the disk", _FILES, _TREES),
    Untraced("K15", "the restored state is thrown away for a fresh one", _FILES, _TREES),
    Untraced("K16", "arrays are freed before the rest is restored", _FILES, _TREES),
    Untraced("K18", "an axis of another size is repeated or padded", _FILES, _TREES),
    Untraced("K28", "names that are not in the file are left out of the tree", _FILES, _TREES),
    Untraced("K20", "the way there and back gives another layout", _FILES, "`checkpoints/test_round_trip.py`"),
    Untraced("K21", "a leaf that some layers lack is left out of the stack", _FILES, "`checkpoints/test_layouts.py`"),
    Untraced("K23", "a comparison leaves out names by substring", _TOOL, "`checkpoints/test_damage.py`"),
    Untraced("K24", "a step is saved twice, or when it was skipped", _FILES, "`training/test_loop.py`"),
    Untraced("K26", "a shell around the optimizer's state puts its moments one level off", _FILES, _TREES),
    Untraced("K27", "inner optimizer and outer momentum are lost at resume", _FILES, _TREES),
    Untraced("H09", "an unreduced carry does not compile", "the trace is the same: it fails when it is compiled",
             "compiled train steps on simulated devices (`test_shardings.py`)"),
    Untraced("H13", "a shape stands where a sharding is expected", _RAISES, _STOPS),
    Untraced("H15", "a missing golden is passed over", _TOOL, _META),
    Untraced("H16", "a golden was recorded of the other backend", _TOOL, "a golden holds the prints of both by name"),
    Untraced("I07", "a result lacks a key that its consumer reads", _RAISES, _STOPS),
    Untraced("I13", "one backend is served by the other's engine", "equal programs are proved: it is their origin"
             " that is wrong", "the certificate: no line of the other twin may be among a side's sources"),
    Untraced("Q03", "kernels of some modules are left in a frozen checkpoint", _FILES, _TREES),
    Untraced("Q04", "a quantised expert layer cannot be built", _RAISES, _STOPS),
    Untraced("Q07", "a quantised model is traced without its targets", _RAISES, _STOPS),
    Untraced("D07", "the wrapper's state is merged into the plain graph", _RAISES, _STOPS),
    Untraced("D09", "another iterator than the wrapped one is saved", _FILES, "the data's tests of resuming"),
    Untraced("D12", "a skip depends on a flag whose default flips", _TOOL, "house rules: nothing is skipped"),
    Untraced("D13", "an expected error is swallowed", _TOOL, _META),
    Untraced("D15", "leaves are paired by order", _TOOL, "leaves are matched by name; `meta/test_sensitivity.py`"),
    Untraced("D16", "one row of the batch is compared", _TOOL, "every output leaf is a whole array; `meta/`"),
)  # fmt: skip
