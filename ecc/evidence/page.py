"""One page that answers first: what was run, on what, and whether the papers' claims hold.

It is a single file that opens without a network: figures are inside.
"""

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ecc.evidence import captions, names, plan, provenance
from ecc.evidence.claims import FAILS, HOLDS, OPEN

CLASSES = {HOLDS: "holds", FAILS: "fails", OPEN: "open"}
SHOWN_DPI = 96 / 300  # pixels of a page for one of a figure: its printed size
ROWS = 200  # of a table on the page
# How printed names of platforms tell of energies that no device was measured for.
UNMEASURED = ("emulated", "simulated", "estimated", "published")


def render(
    claims: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    figures: Sequence[str | Path],
    experiments: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str],
    made_by: Mapping[str, str],
    files: pd.DataFrame,
    told: Mapping[str, captions.Caption],
) -> str:
    """HTML of the page.

    `claims` are decided ones with their `holds`; `tables` go below by name, `figures` are PNG
    files; `experiments` are those of the configuration, `titles` printed names of platforms,
    `made_by` the rule of every table and figure; `files` is what made every file
    (`ecc.evidence.provenance`); `told` are captions by the name of a table or figure.
    """
    unmeasured = [title for title in titles.values() if any(word in title for word in UNMEASURED)]
    counts = {verdict: int((claims["verdict"] == verdict).sum()) for verdict in CLASSES}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["number"] = _number
    environment.filters["html"] = lambda text: Markup(captions.html(text))
    return environment.get_template("page.html").render(
        claims=claims.to_dict("records"),
        counts=counts,
        classes=CLASSES,
        unmeasured=unmeasured,
        measured=len(unmeasured) < len(titles),
        experiments=[_told(experiment, titles) for experiment in experiments],
        figures=[_figure(Path(figure)) for figure in figures],
        tables=[_table(name, table) for name, table in tables.items()],
        shown=set(tables),
        made_by=_sources(made_by, files),
        captions=told,
        provenance=_table("provenance", provenance.by_rule(files)),
        commits=sorted(files["commit"].unique()),
        hardware=sorted(files["hardware"].unique()),
    )


def _sources(made_by: Mapping[str, str], files: pd.DataFrame) -> dict[str, str]:
    """The rule of every table and figure, and the commit of the code where it is known."""
    shown = files[files["file"].str.startswith(("tables/", "figures/"))]
    commits = {Path(row.file).stem: row.commit for row in shown.itertuples()}
    return {
        name: f"rule {rule}" + (f", commit {commits[name]}" if name in commits else "")
        for name, rule in made_by.items()
    }


def _table(name: str, table: pd.DataFrame) -> dict[str, Any]:
    """The first ROWS rows, and how many there are."""
    rows = table.head(ROWS).astype(object).to_numpy().tolist()
    return {"name": name, "columns": list(table), "rows": rows, "count": len(table)}


def _told(experiment: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, Any]:
    stages = [experiment["dense"], experiment["compression"], *experiment["finetuning"]]
    return {
        "name": names.name(experiment["name"]),
        "network": experiment["network"],
        "dataset": experiment["dataset"],
        "platforms": [titles[platform] for platform in experiment["platforms"]],
        "methods": [names.name(method) for method in experiment["methods"]],
        "budgets": len(experiment["budgets"]),
        "seeds": len(experiment["seeds"]),
        "iterations": [stage["iterations"] for stage in stages],
    }


def _figure(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (width,) = struct.unpack(">I", data[16:20])  # PNG: of the header, which comes first
    title = plan.title(path.stem) if path.stem in plan.FIGURES else path.stem.replace("_", " ")
    return {
        "name": path.stem,
        "title": title[:1].upper() + title[1:],
        "width": round(width * SHOWN_DPI),
        "data": base64.b64encode(data).decode(),
    }


def _number(value: Any) -> str:
    """Four significant digits of a float; what is missing is empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)
