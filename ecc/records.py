"""What the jobs of a run tell each other in JSON, checked before it is used.

`read` gives a record with the names that code has (`ecc.metrics`). A file that was edited, damaged
or written by something else is refused in one line, before anything is computed from it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from ecc import runs
from ecc.errors import UserError
from ecc.metrics import METRICS, from_file

Schema = dict[str, Any]


def _finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


# JSON schema takes 3.0 for a whole number.
TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=TYPES)


def _object(properties: Mapping[str, Schema]) -> Schema:
    """All of these; others may be there as well."""
    return {"type": "object", "required": list(properties), "properties": dict(properties)}


def _each(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


NUMBER: Schema = {"type": "number"}
MAYBE = {"type": ["number", "null"]}
POSITIVE = {"type": "number", "exclusiveMinimum": 0}
SCORE = {"type": "number", "minimum": 0, "maximum": 1}
COUNT = {"type": "integer", "minimum": 0}
WIDTH = {"type": "integer", "minimum": 1}
TEXT: Schema = {"type": "string"}
OBJECT: Schema = {"type": "object"}
METRIC: Schema = {"enum": list(METRICS)}
EFFORT: dict[str, Schema] = dict.fromkeys(("images_seen", "evaluations", "images_evaluated"), COUNT)
LIMITED = _object({"limit": NUMBER, "modelled": NUMBER})
CLOSED: dict[str, Schema] = {
    "budgets": _each(
        _object(
            {
                "metric": METRIC,
                "budget": POSITIVE,
                "rounds": COUNT,
                "measured": _list(POSITIVE),
                "closed": {"type": ["boolean", "null"]},
            }
        )
    ),
    "closed": {"type": ["boolean", "null"]},
    "holdout_accuracy_before": SCORE,
    "holdout_accuracy_after": SCORE,
    "widths_before": _list(WIDTH),
    "widths": _list(WIDTH),
}
SPLIT = {"images": COUNT, "sha256": TEXT}

SCHEMAS: dict[str, Schema] = {
    # samples/{platform}/{network}/dense.json
    "dense energy": _object({"metric": METRIC, "dense_energy_j": POSITIVE}),
    # budgets/{experiment}/{platform}.json
    "budgets": _object(
        {
            "metric": METRIC,
            "dense_energy_j": POSITIVE,
            "budget_j": _each(POSITIVE),
            "limits": _each(_each(POSITIVE)),
            "lower_bounds": _list(WIDTH),
        }
    ),
    # dense/{experiment}/metrics.json
    "dense training": _object({"dense_accuracy": SCORE}),
    # compressed/.../metrics.json
    "compression": _object(
        {
            "budget_j": POSITIVE,
            "limited": _each(LIMITED),
            "widths": _list(WIDTH),
            "iterations": COUNT,
            "unspent_iterations": COUNT,
            "effort": _object(EFFORT),
            "method": OBJECT,
            "seed": COUNT,
            "seconds": NUMBER,
            "peak_memory_mb": NUMBER,
            "peak_gpu_memory_mb": MAYBE,
        }
    ),
    # compressed/.../closing.json
    "closing": _object({**CLOSED, "kept": _list(_list(COUNT))}),
    # finetuned/.../metrics.json
    "fine-tuning": _object(
        {
            **dict.fromkeys(("experiment", "platform", "method", "network", "dataset"), TEXT),
            "budget": TEXT,
            "metric": METRIC,
            "budget_j": POSITIVE,
            "dense_energy_j": POSITIVE,
            "budget_fraction": POSITIVE,
            "score": TEXT,
            "dense_accuracy": SCORE,
            "accuracy_before_finetuning": SCORE,
            "accuracy": SCORE,
            "limited": _each(NUMBER),
            "closing": {**_object(CLOSED), "type": ["object", "null"]},
            "iterations": COUNT,
            "effort": _object({**EFFORT, "finetuning_images": COUNT}),
            "groups": _list(_object({"name": TEXT, "width": WIDTH, "full_width": WIDTH})),
            "method_settings": OBJECT,
            "phases": _list(OBJECT),
            "timings": _object(
                {
                    **dict.fromkeys(
                        ("compression_seconds", "finetuning_seconds", "peak_memory_mb"), NUMBER
                    ),
                    "peak_gpu_memory_mb": MAYBE,
                }
            ),
            "seed": COUNT,
            "versions": OBJECT,
            "hardware": OBJECT,
        }
    ),
    # finetuned/.../energy.json
    "verification": _object(
        {
            "modelled_energy_j": NUMBER,
            "measured_energy_j": MAYBE,
            "within_budget": {"type": ["boolean", "null"]},
            "limited": _each(OBJECT),
        }
    ),
    # data/{dataset}/manifest.json
    "manifest": _object(
        {
            "name": TEXT,
            "settings": OBJECT,
            "source": TEXT,
            "classes": _list(TEXT),
            "splits": _each(_object(SPLIT)),
            "skipped": _list(TEXT),
        }
    ),
}


def read(path: str | Path, what: str) -> dict[str, Any]:
    """The record in a file; `what` is one of SCHEMAS.

    Raises UserError, one line that names the file and what is wrong in it.
    """
    return checked(runs.read_json(path), path, what)


def checked(values: Any, path: str | Path, what: str) -> dict[str, Any]:
    """`values` of the file `path`, with the names that code has; raises UserError as `read`."""
    found: dict[str, Any] = from_file(values) if isinstance(values, dict) else values
    if not _finite(found):
        raise UserError(f"{path} holds a number that is none: delete it and run that job again")
    for error in Validator(SCHEMAS[what]).iter_errors(found):
        where = ".".join(map(str, error.absolute_path)) or "it"
        raise UserError(
            f"{path} is no record of {what} ({where}: {error.message[:100]}): delete it and run "
            "the workflow again"
        )
    return found
