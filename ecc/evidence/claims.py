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
from scipy.stats import binomtest, norm

from ecc.counts import COUNTS
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


RUN = ("study", "arm", "seed")  # columns that tell the runs of a study apart
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

    `query` selects rows of paper_values.csv by their columns; NaN where none has a number. It is
    over the value of `per`'s rows, where that names columns in which they differ. Raises UserError
    where a query selects none.
    """
    if query is None:
        return float("nan")
    query = {"source": "ECC", **query}
    minus, per = query.pop("minus", None), query.pop("per", None)  # a method; a query
    if per is not None:
        return stated(query, published) / stated({**query, **per}, published)
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
    why = "no repetitions that differ, so no interval"
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


def _saving(tables: Tables, experiment: str, platform: str, saves: float, at_most: float) -> Found:
    """ECC's loss from dense where `saves` of the energy is saved, which is between two budgets.

    It holds where the widest budget that saves as much loses `at_most`, and fails where already
    the tightest that saves no more loses more. Half a percent more or less is the same.
    """
    select = {"experiment": experiment, "platform": platform}
    loss = {}
    for cell in _cells(tables, "ecc", None, "loss", select):
        told = f"loss from dense at {1 - cell.name:.1%} saved"
        loss[cell.name] = _judge(interval([cell]), told, at_most=at_most)
    as_much = [one for left, one in loss.items() if left <= 1 - saves + 5e-3][-1:]
    no_more = [one for left, one in loss.items() if left >= 1 - saves - 5e-3][:1]
    decided = [one for one in as_much if one.verdict == HOLDS]
    decided += [one for one in no_more if one.verdict == FAILS]
    if decided:
        return decided[0]
    if not as_much or not no_more:
        raise NoDataError(f"no budget saves {'as much' if no_more else 'as little'} as {saves:.0%}")
    between = dict.fromkeys(one.reason for one in (*as_much, *no_more))
    return Found(OPEN, as_much[0].number, "; ".join(between))


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
    """Values of the seeds, one series for every platform and budget that `select` leaves.

    A series is named by its budget, as a fraction of dense energy; of a platform, tightest first.
    """
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
        found += [scores.loc[budget].rename(budget) for budget in chosen]
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
    if "nearest" in select:
        fractions = fractions[[np.abs(fractions - select["nearest"]).argmin()]]
    ends = {"tightest": slice(0, 1), "widest": slice(-1, None)}
    return list(fractions[ends.get(select.get("budget", ""), slice(None))])


def _value(
    tables: Tables,
    table: str,
    where: Mapping[str, Any],
    column: str | list[str],
    of: str,
    per: str | None = None,
    at_least: float = -np.inf,
    at_most: float = np.inf,
    spread: float | None = None,
    ratio: bool = False,
    without: str = "no row has this value",
) -> Found:
    """A column's max, min, mean or sum over the rows that `where` leaves, as the mean over runs.

    Several columns are summed, and divided by `per`'s.
    Runs are told by the columns of `RUN`, and the interval is over them; `ratio`: of logarithms,
    the mean is geometric. `spread`, of what is computed without training: how far other seeds
    are from it at most, as a part of it. `without`: what it means where all rows lack a value.
    """
    rows = _where(_table(tables, table), where)
    if rows.empty:
        wanted = ", ".join(
            f"{key} {'/'.join(names.name(str(one)) for one in _listed(value))}"
            for key, value in where.items()
        )
        raise NotRunError(f"{table}.csv has no {wanted}")
    columns = _listed(column)
    value = rows[columns].sum(axis=1, skipna=False)
    told = " and ".join(columns)
    if per is not None:
        value, told = value / rows[per], f"{told} per {per}"
    found = rows.assign(value=value).dropna(subset="value")
    if found.empty:
        raise NoDataError(f"{without} ({len(rows)} of {len(rows)})")
    told = told.replace("_", " ")
    if spread is not None:
        value = float(found["value"].agg(of))
        others = f"other seeds within {spread:.0%}" if spread else "the same with every seed"
        reason = f"{told}, {of} of {len(found)}, computed, {others}"
        number = Interval(value, value * (1 - spread), value * (1 + spread))
        return _judge(number, reason, at_least, at_most)
    keys = [key for key in RUN if key in found]
    runs = found.groupby(keys)["value"].agg(of) if keys else pd.Series([found["value"].agg(of)])
    number = interval([np.log(runs)]) if ratio else interval([runs])
    if ratio:
        number = Interval(*np.exp([number.mean, number.low, number.high]))
    reason = (
        f"{told}, {of} of {len(found) // len(runs)}, " if len(found) > len(runs) else f"{told}, "
    )
    reason += f"{'geometric ' if ratio else ''}mean of {len(runs)} runs"
    return _judge(number, reason, at_least, at_most)


def _misordered(
    tables: Tables,
    table: str,
    where: Mapping[str, Any],
    cost: str,
    by: str,
    at_least: float,
    exact: bool = False,
) -> Found:
    """Share of the pairs of networks in which the one with less of `by` has the higher `cost`.

    Pairs that differ in `by` by a tenth at least; the mean over runs, unless the costs are `exact`.
    """
    rows = _where(_table(tables, table), where).dropna(subset=[cost, by])
    keys = [key for key in RUN if key in rows and not exact]
    runs = [run for _, run in rows.groupby(keys)] if keys else [rows]
    shares = [share for run in runs if not np.isnan(share := _share_misordered(run, cost, by))]
    if not shares:
        raise NoDataError(f"no two networks in {table}.csv differ by a tenth in {by}")
    told = f"share of pairs with less {by}, but more {cost}".replace("_", " ")
    if exact:
        reason = f"{told}, of {len(rows)} networks, computed"
        return _judge(_exactly(float(np.mean(shares))), reason, at_least)
    return _judge(interval([shares]), f"{told}, mean of {len(shares)} runs", at_least)


def _share_misordered(networks: pd.DataFrame, cost: str, by: str) -> float:
    size, spent = networks[by].to_numpy(float), networks[cost].to_numpy(float)
    smaller = size[:, None] <= 0.9 * size
    costlier = spent[:, None] > spent
    return float(costlier[smaller].mean()) if smaller.any() else float("nan")


def _model_error(
    tables: Tables, network: str | list[str], model: str, at_most: float = np.inf
) -> Found:
    """The largest relative test error of a model by Adam, over platforms and networks."""
    errors = _fitted(tables, network, model)
    worst = errors.sort_values("relative_test_error").iloc[-1]
    value, samples = worst["relative_test_error"], worst["test_samples"]
    reason = f"relative test error, max of {len(errors)}, {samples} test samples each"
    return _judge(_between(value, value / np.sqrt(samples)), reason, at_most=at_most)


def _perceptron(tables: Tables, network: str, platform: str, at_least: float) -> Found:
    """Error of perceptrons over the bilinear one's, as the mean over one to three hidden layers.

    Each is fitted once, and another start would end elsewhere: the interval is over the three.
    """
    errors = _fitted(tables, network, ["bilinear_chain", "mlp1", "mlp2", "mlp3"])
    by_model = errors[errors["platform"] == platform].set_index("model")["relative_test_error"]
    layers = by_model.drop("bilinear_chain", errors="ignore")
    if layers.empty or "bilinear_chain" not in by_model:
        raise NotRunError(f"no perceptrons were fitted to {names.name(network)} there")
    ratios = layers / by_model["bilinear_chain"]
    return _judge(interval([ratios]), f"ratio of errors, mean of {len(ratios)} depths", at_least)


def _convergence(tables: Tables, network: str, model: str, part: float, at_most: float) -> Found:
    """How far the error after a part of the iterations is above the last, the worst platform's."""
    history = _where(_table(tables, "energy_model_history"), {"network": network, "model": model})
    fitted = _fitted(tables, network, model).set_index("platform")
    apart = {}
    for platform, run in history.groupby("platform"):
        errors = run.sort_values("iteration").set_index("iteration")["relative_test_error"]
        early = errors[errors.index <= part * errors.index.max()].iloc[-1]
        both = np.hypot(early, errors.iloc[-1]) / np.sqrt(fitted.loc[platform, "test_samples"])
        apart[early - errors.iloc[-1]] = both
    if not apart:
        raise NotRunError(f"{model} was not fitted to {names.name(network)}")
    reason = f"error above the last, the larger of {len(apart)} platforms"
    return _judge(_between(max(apart), apart[max(apart)]), reason, at_most=at_most)


def _fitted(tables: Tables, network: str | list[str], model: str | list[str]) -> pd.DataFrame:
    query = {"network": network, "model": model, "fit": "adam"}
    errors = _where(_table(tables, "energy_model_errors"), query)
    if errors.empty:
        raise NotRunError(f"{_listed(model)[0]} was not fitted to {_listed(network)[0]}")
    return errors


def _between(value: float, error: float) -> Interval:
    """The interval of a standard error. That of a relative test error is value / sqrt(samples): the
    samples' errors spread no further than their mean (normal ones 0.76 times as far; of the chain
    form on MobileNet 0.86 and 0.96 times, on the two emulated devices).
    """
    half = float(norm.ppf((1 + CONFIDENCE) / 2) * error)
    return Interval(float(value), float(value) - half, float(value) + half)


def _dense(tables: Tables, experiment: str, dataset: str, at_least: float) -> Found:
    """Accuracy of the dense network, of which a run has one."""
    query = {"experiment": experiment, "dataset": dataset}
    runs = _where(_table(tables, "accuracy_at_budget"), query)
    if runs.empty:
        raise NotRunError(f"{names.name(experiment)} did not run on {dataset}")
    accuracy = float(runs["dense_accuracy"].iloc[0])
    return _judge(_exactly(accuracy), f"dense network on {dataset}", at_least)


def _within_budget(tables: Tables, method: str, platforms: int) -> Found:
    runs = _where(_table(tables, "accuracy_at_budget"), {"method": method})
    measured = runs.dropna(subset="within_budget")
    on = measured["platform"].nunique()
    if on < platforms:
        raise NoDataError(f"fewer than {platforms} platforms were measured")
    inside = measured["within_budget"].astype(float)
    reason = f"{inside.sum():.0f} of {len(inside)} networks on {on} platforms"
    return _judge(_exactly(inside.mean()), reason, at_least=1.0)


def _within_limits(tables: Tables, method: str, limited: str) -> Found:
    """Are all of a method's networks inside their limits on `limited`, a platform or a count.

    Platforms tell it by measurement; a count is what it is, and never measured.
    """
    runs = _where(_table(tables, "limits"), {"method": method, "limited": limited})
    told = names.name(limited) if limited in COUNTS else limited
    if runs.empty:
        raise NotRunError(f"no budget of {names.name(method)} has a limit on {told}")
    inside = runs["within_limit"].dropna().astype(bool)
    if limited in COUNTS:
        inside = runs["modelled"] <= runs["limit"]
    if inside.empty:
        raise NoDataError(f"no limit on {told} was measured")
    reason = f"{inside.sum()} of {len(inside)} limits on {told}"
    return _judge(_exactly(float(inside.mean())), reason, 1.0)


def _kept(tables: Tables, experiment: str, method: str) -> list[list[pd.DataFrame]]:
    """By platform and budget, each seed's groups in forward order, `kept` of their full widths."""
    widths = _where(_table(tables, "widths"), {"experiment": experiment, "method": method})
    widths = widths[widths["limits"] == NO_LIMITS]
    if widths.empty:
        raise NotRunError(f"this run has no {names.name(method)} on {experiment}")
    widths = widths.assign(kept=widths["width"] / widths["full_width"])
    return [
        [run for _, run in cell.groupby("seed")]
        for _, cell in widths.groupby(["platform", "budget_fraction"])
    ]


def _most_pruned(tables: Tables, experiment: str, method: str, group: str, above: float) -> Found:
    """In which share of the runs `group` keeps a smaller fraction of its channels than all others.

    By a channel of theirs: lower bounds are whole channels, so that among groups that are at them
    the widest would be first. The interval is the binomial one of Clopper and Pearson: equal
    verdicts of few runs are no certainty.
    """
    runs = [run for cell in _kept(tables, experiment, method) for run in cell]
    first = [_is_first(run, group) for run in runs]
    share, reason = float(np.mean(first)), f"share of runs, {sum(first)} of {len(runs)}"
    ends = binomtest(int(sum(first)), len(runs)).proportion_ci(CONFIDENCE)
    return _judge(Interval(share, ends.low, ends.high), reason, np.nextafter(above, 1.0))


def _is_first(run: pd.DataFrame, group: str) -> bool:
    own, others = run[run["group"] == group], run[run["group"] != group]
    return bool((own["kept"].min() <= (others["width"] - 1) / others["full_width"]).all())


def _spikes(tables: Tables, experiment: str, method: str, height: float, at_least: float) -> Found:
    """Share of the inner layers that are above, or below, both neighbours by `height`."""
    shares = [[_turning(run, height) for run in cell] for cell in _kept(tables, experiment, method)]
    reason = f"share of layers, mean of {sum(map(len, shares))} runs"
    return _judge(interval(shares), reason, at_least)


def _turning(run: pd.DataFrame, height: float) -> float:
    steps = np.diff(run["kept"].to_numpy())
    high = np.minimum(np.abs(steps[:-1]), np.abs(steps[1:])) >= height
    return float((high & (steps[:-1] * steps[1:] < 0)).mean())


def _pruned(tables: Tables, arm: str, over: str, column: str) -> Found:
    """What the last accepted round of an arm has left, less that of `over`."""
    rounds = _table(tables, "eap_pruning")
    accepted = rounds[rounds["accepted"].astype(bool)].sort_values("round")
    left = accepted.groupby(["seed", "arm"])[column].last().unstack("arm")
    for name in (arm, over):
        if name not in left:
            raise NotRunError(f"no round of {names.name(name)} was accepted")
    apart = (left[arm] - left[over]).dropna()
    if apart.empty:
        raise NoDataError(f"no seed has accepted rounds of {arm} and of {over}")
    told = f"{column.replace('_', ' ')}, less that of {names.name(over)}, {len(apart)} seeds"
    return _judge(interval([apart]), told, at_most=0.0)


def _untestable(
    tables: Tables,
    reason: str,
    table: str = "",
    where: Mapping[str, Any] | None = None,
    column: str = "",
) -> Found:
    """Open for a reason; the number beside it is what `column` has in the one row of `where`."""
    if table in tables and len(rows := _where(tables[table], where or {})) == 1:
        return Found(OPEN, _exactly(float(rows[column].iloc[0])), reason)
    return Found(OPEN, UNKNOWN, reason)


RULES: dict[str, Callable[..., Found]] = {
    "runs": _runs,
    "saving": _saving,
    "value": _value,
    "misordered": _misordered,
    "model_error": _model_error,
    "perceptron": _perceptron,
    "convergence": _convergence,
    "dense": _dense,
    "within_budget": _within_budget,
    "within_limits": _within_limits,
    "most_pruned": _most_pruned,
    "spikes": _spikes,
    "pruned": _pruned,
    "untestable": _untestable,
}
