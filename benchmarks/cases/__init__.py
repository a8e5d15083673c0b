"""One case a module; each has ``measure(effort)``, which yields rows."""

CASES = (
    "user_circuit",
    "nano",
    "memory",
    "qisa",
    "layer",
    "encoder",
    "generation",
    "adapters",
    "compile",
    "noise",
    "executions",
    "sampling",
    "import_time",
)
