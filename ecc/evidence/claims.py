"""Claims of the papers, decided by the tables of a run.

`resources/claims.yaml` says what is claimed, where, what would count as holding, and by which rule
of this file it is decided. A rule looks at a number of the run, mostly with an interval, and at
bounds: the claim holds where the whole interval is inside, fails where all of it is outside, and
is not testable at this scale where the interval leaves it open or the run has no data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ecc.errors import UserError
from ecc.evidence import names
from ecc.evidence.statistics import CONFIDENCE, Interval, contrast, interval
from ecc.evidence.tables import NO_LIMITS, tidy
from ecc.metrics import from_table

HOLDS, FAILS, OPEN = "holds", "does not hold", "not testable at this scale"
CLAIMS = [
    *("claim_id", "source", "claim", "paper", "ours", "low", "high", "verdict", "reason"),
    "tables",
]
Tables = Mapping[str, pd.DataFrame]
STAGES = {
    "before": "score before fine-tuning",
    "after": "score",
    "gain": "gain by fine-tuning",
    "loss": "loss from dense",
}


@dataclass(frozen=True)
class Found:
    """What a rule found: a verdict, the number it was decided by, and why.

    `elsewhere`: another configuration would have had what the rule looks at.
    """

    verdict: str
    number: Interval
    reason: str
    elsewhere: bool = False


class NoDataError(Exception):
    """The run has nothing that a rule could look at."""


class NotRunError(NoDataError):
    """A part that a rule looks at was not run."""


class _Asked(dict[str, pd.DataFrame]):
    """Tables that remember which ones a claim's rules have read."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.names: list[str] = []

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self.names:
            self.names.append(name)
        return super().__getitem__(name)


UNKNOWN = Interval(*[float("nan")] * 3)


def read(path: str | Path) -> list[dict[str, Any]]:
    """The claims of a YAML file. Raises UserError where a key is missing or unknown, or a rule."""
    try:
        claims: list[dict[str, Any]] = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not YAML ({reason[:150]}): correct it") from error
    if not isinstance(claims, list) or not all(isinstance(claim, dict) for claim in claims):
        raise UserError(f"{path} is no list of claims, each a mapping: correct it")
    needed, optional = {"id", "source", "claim", "holds", "rule"}, {"published", "needs"}
    for claim in claims:
        name = claim.get("id", claim.get("claim", "a claim"))
        if wrong := (needed - set(claim)) | (set(claim) - needed - optional):
            raise UserError(f"{path}: {name}: {min(map(str, wrong))} is missing or unknown")
        for rule in _rules(claim):
            kind = rule.get("kind") if isinstance(rule, dict) else rule
            if not isinstance(kind, str) or kind not in RULES:
                raise UserError(f"{path}: {name}: rule '{kind}' is unknown")
            own = {key: value for key, value in rule.items() if key != "kind"}
            try:
                signature(RULES[kind]).bind({}, **own)
            except TypeError as error:
                raise UserError(f"{path}: {name}: rule {kind}: {error}") from error
    return claims


def decide(
    claims: Sequence[Mapping[str, Any]], tables: Tables, published: pd.DataFrame
) -> pd.DataFrame:
    """One row a claim, in their order: the paper's value, ours with its interval, the verdict, and
    the tables that it was decided by.

    `tables` are those of a run by name; a claim about one that is not there is not testable.
    """
    rows = []
    for claim in claims:
        asked = _Asked(tables)
        try:
            found = [_apply(rule, asked) for rule in _rules(claim)]
            paper = stated(claim.get("published"), published)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(
                f"claims.yaml: {claim['id']}: its rule asks for what the tables do not have "
                f"({reason[:100]})"
            ) from error
        verdicts = [one.verdict for one in found]
        verdict = next((v for v in (FAILS, OPEN) if v in verdicts), HOLDS)
        reasons = dict.fromkeys(one.reason for one in found if one.verdict == verdict)
        shown = next(one.number for one in found if one.verdict == verdict)
        needs = claim.get("needs")
        if needs and any(one.elsewhere for one in found):
            reasons[f"{needs} has it"] = None
        rows.append(
            {
                "claim_id": claim["id"],
                "source": claim["source"],
                "claim": claim["claim"],
                "paper": paper,
                "ours": shown.mean,
                "low": shown.low,
                "high": shown.high,
                "verdict": verdict,
                "reason": "; ".join(reasons),
                "tables": " ".join(asked.names),
            }
        )
    return tidy(pd.DataFrame(rows, columns=CLAIMS), CLAIMS, [])


def stated(query: Mapping[str, Any] | None, published: pd.DataFrame) -> float:
    """The value that a paper states, or the mean of a method's less that of `minus`'s.

    `query` selects rows of paper_values.csv by their columns; NaN where none has a number. Raises
    UserError where it selects none.
    """
    if query is None:
        return float("nan")
    query = {"source": "ECC", **query}
    minus = query.pop("minus", None)  # a method
    found = _where(published, query)
    if found.empty:
        raise UserError(f"paper_values.csv has no row of {query}")
    if minus is not None:
        keys = ["experiment", "network", "platform", "quantity"]
        other = _where(published, {**query, "method": minus})
        found = found.merge(other, on=keys, suffixes=("", "_minus"))
        found["value"] -= found["value_minus"]
    return float(found["value"].mean())


def _rules(claim: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _listed(claim["rule"])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _apply(rule: Mapping[str, Any], tables: Tables) -> Found:
    settings = {key: value for key, value in rule.items() if key != "kind" and value is not None}
    try:
        return RULES[rule["kind"]](tables, **settings)
    except NoDataError as missing:
        return Found(OPEN, UNKNOWN, str(missing), isinstance(missing, NotRunError))


def _judge(
    number: Interval, reason: str, at_least: float = -np.inf, at_most: float = np.inf
) -> Found:
    if at_least <= number.low and number.high <= at_most:
        return Found(HOLDS, number, reason)
    if number.high < at_least or number.low > at_most:
        return Found(FAILS, number, reason)
    why = "no interval without a spread over seeds"
    if not np.isnan(number.low):
        why = "the interval leaves it open"
    return Found(OPEN, number, f"{reason}; {why}")


def _exactly(value: float) -> Interval:
    return Interval(value, value, value)


def _table(tables: Tables, name: str) -> pd.DataFrame:
    if name not in tables or tables[name].empty:
        raise NotRunError(f"this run has no {name}.csv")
    return tables[name]


def _where(frame: pd.DataFrame, query: Mapping[str, Any]) -> pd.DataFrame:
    for column, value in query.items():
        frame = frame[frame[column].isin(_listed(value))]
    return frame


def _runs(
    tables: Tables,
    plus: Mapping[str, Any],
    method: str | list[str] = "ecc",
    over: str | list[str] | None = None,
    stage: str = "after",
    minus: Mapping[str, Any] | None = None,
    everywhere: bool = False,
    at_least: float | None = None,
    at_most: float = np.inf,
) -> Found:
    """Score of a method, less that of `over`, as the mean over the cells of `plus`, less `minus`.

    `stage`: before or after fine-tuning, the gain of it, or the loss from dense. Without bounds it
    has to be above 0; `everywhere`: in each cell. Those below are not by chance where the smallest
    p of all cells, times their number (Holm's first step), is below that of a 95 % interval's end.
    """
    ours = _cells(tables, method, over, stage, plus)
    others = _cells(tables, method, over, stage, minus) if minus else []
    weights = [1 / len(ours)] * len(ours) + [-1 / len(others) for _ in others]
    number = interval([*ours, *others], weights)
    if at_least is None:
        at_least = 0.0 if at_most == np.inf else -np.inf
    above = sum(cell.mean() > at_least for cell in ours)
    seeds = min(map(len, ours))
    at = f"over {len(ours)} budgets" if len(ours) > 1 else "at one budget"
    if everywhere:
        at = f"above at {above} of {len(ours)} budgets"
    reason = f"{_told(STAGES[stage], over)} {at}, {seeds} seeds"
    found = _judge(number, reason, at_least, at_most)
    if everywhere and found.verdict == HOLDS and above < len(ours):
        least = np.nanmin([1.0, *(contrast([cell]).below(at_least) for cell in ours)])
        contrary = least * len(ours) < (1 - CONFIDENCE) / 2
        how = "not by chance" if contrary else "by chance, as far as the seeds tell"
        return Found(FAILS if contrary else OPEN, number, f"{reason}, below at others {how}")
    return found


def _told(what: str, over: str | list[str] | None) -> str:
    if over is None:
        return what
    other = names.name(over if isinstance(over, str) else over[0])
    return f"{what}, less that of {other},"


def _cells(
    tables: Tables,
    method: str | list[str],
    over: str | list[str] | None,
    stage: str,
    select: Mapping[str, Any],
) -> list["pd.Series[float]"]:
    """Values of the seeds, one series for every platform and budget that `select` leaves."""
    runs = from_table(_table(tables, "accuracy_at_budget"))
    after = runs["accuracy"]
    values = {
        "before": runs["accuracy_before_finetuning"],
        "after": after,
        "gain": after - runs["accuracy_before_finetuning"],
        "loss": runs["dense_accuracy"] - after,
    }
    runs = runs.assign(value=values[stage])[runs["limits"] == NO_LIMITS]
    runs = _where(runs, {key: select[key] for key in ("experiment", "platform") if key in select})
    if runs.empty:
        raise NotRunError(f"this run has no {' on '.join(map(str, select.values()))}")
    found = []
    for _, part in runs.groupby("platform"):
        pairs = part.pivot(index=["budget_fraction", "seed"], columns="method", values="value")
        scores = pairs[_entry(pairs, method)]
        if over is not None:
            scores = scores - pairs[_entry(pairs, over)]
        chosen = _budgets(pairs.index.unique("budget_fraction").to_numpy(float), select)
        found += [scores.loc[budget] for budget in chosen]
    return found


def _entry(pairs: pd.DataFrame, method: str | list[str]) -> str:
    """The first of the entries under `methods` that ran."""
    wanted = [method] if isinstance(method, str) else method
    for name in wanted:
        if name in pairs:
            return name
    raise NotRunError(f"this run has no {names.name(wanted[0])} there")


def _budgets(fractions: np.ndarray, select: Mapping[str, Any]) -> list[float]:
    fractions = np.sort(fractions)
    if "saving" in select:
        fractions = fractions[fractions <= 1 - select["saving"] + 5e-3][-1:]
        if not len(fractions):
            raise NoDataError(f"no budget saves {select['saving']:.0%}")
    if "nearest" in select:
        fractions = fractions[[np.abs(fractions - select["nearest"]).argmin()]]
    ends = {"tightest": slice(0, 1), "widest": slice(-1, None)}
    return list(fractions[ends.get(select.get("budget", ""), slice(None))])


def _value(
    tables: Tables,
    table: str,
    where: Mapping[str, Any],
    column: str,
    of: str,
    at_least: float = -np.inf,
    at_most: float = np.inf,
    without: str = "no row has this value",
) -> Found:
    """A column's max, min, mean or median over the rows that `where` leaves.

    `without`: what it means where these rows are there and all without a value.
    """
    rows = _where(_table(tables, table), where)
    if rows.empty:
        wanted = ", ".join(
            f"{key} {'/'.join(names.name(str(one)) for one in _listed(value))}"
            for key, value in where.items()
        )
        raise NotRunError(f"{table}.csv has no {wanted}")
    found = rows[column].dropna()
    if found.empty:
        raise NoDataError(f"{without} ({len(rows)} of {len(rows)})")
    many = f"{column.replace('_', ' ')}, {of} of {len(found)}"
    return _judge(_exactly(float(found.agg(of))), many, at_least, at_most)


def _perceptron(tables: Tables, network: str, platform: str, of: str, at_least: float) -> Found:
    """Error of perceptrons of one to three layers (their min or mean) over the bilinear one's."""
    errors = _table(tables, "energy_model_errors")
    errors = _where(errors, {"network": network, "platform": platform, "fit": "adam"})
    by_model = errors.set_index("model")["relative_test_error"]
    layers = [model for model in ("mlp1", "mlp2", "mlp3") if model in by_model]
    if not layers or "bilinear_chain" not in by_model:
        raise NotRunError(f"no perceptrons were fitted to {names.name(network)} there")
    ratio = float(by_model[layers].agg(of) / by_model["bilinear_chain"])
    return _judge(_exactly(ratio), f"ratio of errors, {of} of {len(layers)}", at_least)


def _convergence(tables: Tables, network: str, model: str, part: float, at_most: float) -> Found:
    """How far the error after a part of the iterations is above the last, the worst platform's."""
    history = _where(_table(tables, "energy_model_history"), {"network": network, "model": model})
    apart = []
    for _, run in history.groupby("platform"):
        errors = run.sort_values("iteration").set_index("iteration")["relative_test_error"]
        early = errors[errors.index <= part * errors.index.max()]
        apart.append(early.iloc[-1] - errors.iloc[-1])
    if not apart:
        raise NotRunError(f"{model} was not fitted to {names.name(network)}")
    return _judge(
        _exactly(float(max(apart))),
        f"error above the last, the larger of {len(apart)} platforms",
        at_most=at_most,
    )


def _within_budget(tables: Tables, method: str, platforms: int) -> Found:
    runs = _where(_table(tables, "accuracy_at_budget"), {"method": method})
    measured = runs["within_budget"].dropna()
    if measured.empty or runs["platform"].nunique() < platforms:
        raise NoDataError(f"fewer than {platforms} platforms were measured")
    reason = (
        f"{measured.sum()} of {len(measured)} networks on {runs['platform'].nunique()} platforms"
    )
    return _judge(_exactly(float(measured.mean())), reason, at_least=1.0)


def _within_limits(tables: Tables, method: str) -> Found:
    runs = _where(_table(tables, "limits"), {"method": method})
    if runs.empty:
        raise NotRunError("no budget has limits")
    inside = runs["within_limit"].dropna()
    if inside.empty:
        raise NoDataError("no limit was measured")
    return _judge(_exactly(float(inside.mean())), f"{inside.sum()} of {len(inside)} limits", 1.0)


def _kept(tables: Tables, experiment: str, method: str) -> list[pd.DataFrame]:
    """Groups of each run in forward order, with the fraction `kept` of their widths."""
    widths = _where(_table(tables, "widths"), {"experiment": experiment, "method": method})
    widths = widths[widths["limits"] == NO_LIMITS]
    if widths.empty:
        raise NotRunError(f"this run has no {names.name(method)} on {experiment}")
    widths = widths.assign(kept=widths["width"] / widths["full_width"])
    return [run for _, run in widths.groupby(["platform", "budget_fraction", "seed"])]


def _most_pruned(tables: Tables, experiment: str, method: str, group: str, above: float) -> Found:
    """In which share of the runs `group` keeps the smallest fraction of its channels."""
    runs = _kept(tables, experiment, method)
    first = [run.loc[run["kept"] == run["kept"].min(), "group"].eq(group).any() for run in runs]
    return _judge(
        _exactly(float(np.mean(first))), f"share of runs, {sum(first)} of {len(runs)}", above
    )


def _spikes(tables: Tables, experiment: str, method: str, height: float, at_least: float) -> Found:
    """Share of the inner layers that are above, or below, both neighbours by `height`."""
    shares = []
    for run in _kept(tables, experiment, method):
        steps = np.diff(run["kept"].to_numpy())
        turns = (np.minimum(np.abs(steps[:-1]), np.abs(steps[1:])) >= height) & (
            steps[:-1] * steps[1:] < 0
        )
        shares.append(float(turns.mean()))
    return _judge(
        _exactly(float(np.mean(shares))), f"share of layers, mean of {len(shares)} runs", at_least
    )


def _pruned(
    tables: Tables, arm: str, column: str, over: str | None = None, at_most: float = np.inf
) -> Found:
    """What the last accepted round of an arm has left, and whether it is less than `over`'s."""
    rounds = _table(tables, "eap_pruning")
    left = {}
    for name in [arm] if over is None else [arm, over]:
        accepted = rounds[(rounds["arm"] == name) & rounds["accepted"].astype(bool)]
        if accepted.empty:
            raise NoDataError(f"no round of {names.name(name)} was accepted")
        left[name] = float(accepted.sort_values("round")[column].iloc[-1])
    reason = f"{column.replace('_', ' ')}, one seed"
    if over is not None:
        at_most = left[over]
        reason += f", {names.name(over)} {at_most:.3f}"
    return _judge(_exactly(left[arm]), reason, at_most=at_most)


def _untestable(tables: Tables, reason: str) -> Found:
    return Found(OPEN, UNKNOWN, reason)


RULES: dict[str, Callable[..., Found]] = {
    "runs": _runs,
    "value": _value,
    "perceptron": _perceptron,
    "convergence": _convergence,
    "within_budget": _within_budget,
    "within_limits": _within_limits,
    "most_pruned": _most_pruned,
    "spikes": _spikes,
    "pruned": _pruned,
    "untestable": _untestable,
}
