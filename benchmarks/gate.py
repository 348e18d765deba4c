"""How good is the timing verdict? Simulated engines and recorded sessions, against a bar and the rules of others.

    python benchmarks/gate.py                                    everything
    python benchmarks/gate.py --scale 0.05                       a smoke run
    python benchmarks/gate.py --only measured/main --seed 2      one row, other luck
    python benchmarks/gate.py --only recorded --recordings FOLDER

FOLDER holds ``NAME_a.npz`` and ``NAME_b.npz``: ``layer_us`` (session, iteration, layer), ``latency_us`` (session,
iteration), ``layer_names``. Without it the part of them that is kept for the tests is read. Prints Markdown; everything
goes through the gate's public functions, and one seed gives one result, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from scipy import stats

from benchmarks.gate_world import WORLDS, Conditions, Floats, Job, Noise, Samples, World, WorldName, noise, world
from pytest_trtgray.timing.gate import Baseline, Run, Session, Verdict, compare, judge

FALSE_ALARMS = 0.01
LAYER_TOLERANCE, ENGINE_TOLERANCE = 0.03, 0.02
ONE_LAYER, WHOLE_ENGINE = (0.03, 0.05, 0.10, 0.20), (0.03, 0.05)
SHORT_US = 10.0
EVERY_CHANGE = (
    *(("one", effect) for effect in ONE_LAYER),
    ("short", 0.10),
    *(("all", effect) for effect in WHOLE_ENGINE),
)
"""What becomes slower (a layer, a layer below :data:`SHORT_US`, everything), and by how much."""
PAIRS = 4
WARM_UP = 20
"""Iterations of a recorded session that are not used."""
LARGE = 0.01
"""Share of the engine's time above which a layer counts as large."""
GATE, AB, AB_DISTURBED = "the gate", "A/B, 4 pairs", "A/B, 4 pairs, disturbed"


# --- what is tried


@dataclass(frozen=True)
class Setting:
    """A row of a table.

    Attributes:
        name: after the world's; ``--only`` looks here.
        world: which.
        conditions: of the world.
        suites: how many engines at ``--scale 1``; each gets a baseline of its own.
        nulls: unchanged runs a suite.
        changes: what becomes slower, and by how much.
        repeats: runs a suite for each change.
        runs: sizes of the baseline; each is a row.
        sessions: of a run.
        noticed: whether telemetry saw a disturbance.
        layer_tolerance: given to the gate.
        elsewhere: also apply the rules in use elsewhere.
        pairs: also compare A and B without a baseline.
    """

    name: str
    world: WorldName
    conditions: Conditions = field(default_factory=Conditions)
    suites: int = 40
    nulls: int = 10
    changes: tuple[tuple[str, float], ...] = EVERY_CHANGE
    repeats: int = 2
    runs: tuple[int, ...] = (5,)
    sessions: int = 3
    noticed: bool = False
    layer_tolerance: float = LAYER_TOLERANCE
    elsewhere: bool = False
    pairs: bool = False

    @property
    def key(self) -> str:
        """Name for ``--only``."""
        return f"{self.world}/{self.name}"


def settings() -> list[Setting]:
    plan = []
    for name in WORLDS:
        base = Setting("main", name)
        plain = base.conditions
        plan += [
            replace(base, suites=200, nulls=12, repeats=3),
            replace(base, name="baseline of", runs=(3, 5, 8, 12)),
            replace(base, name="5 sessions a run", sessions=5, runs=(5, 12), suites=30),
            replace(base, name="8 sessions a run", sessions=8, runs=(5, 12), suites=30),
            replace(base, name="1 session of 200", sessions=1, conditions=replace(plain, iterations=200)),
            replace(base, name="34 iterations", conditions=replace(plain, iterations=34)),
            replace(base, name="10 layers", conditions=replace(plain, layers=10)),
            replace(base, name="50 layers", conditions=replace(plain, layers=50)),
            replace(base, name="500 layers", conditions=replace(plain, layers=500)),
            replace(base, name="no clock reading", conditions=replace(plain, clock_read=False)),
            replace(base, name="drift sd 5 %", conditions=replace(plain, drift_sd=(0.05, 0.05))),
            replace(
                base,
                name="drift sd 5 %, no clock reading",
                conditions=replace(plain, drift_sd=(0.05, 0.05), clock_read=False),
            ),
            replace(
                base, name="two-mode layers", conditions=replace(plain, two_mode=0.01 if name == "drifting" else 0.1)
            ),
            replace(base, name="heavy tails", conditions=replace(plain, heavy_tails=True)),
            replace(base, name="baseline from one job", conditions=replace(plain, one_job=True)),
            replace(base, name="disturbed, noticed", conditions=replace(plain, disturbed=True), noticed=True),
            replace(base, name="disturbed, not noticed", conditions=replace(plain, disturbed=True)),
            replace(base, name="A/B", suites=80, pairs=True),
            replace(base, name="elsewhere", suites=30, elsewhere=True),
        ]
    return plan


class Trial(NamedTuple):
    """One judged run."""

    setting: str
    rule: str
    kind: str
    """``null``, ``one``, ``short`` or ``all``."""
    effect: float
    share: float
    """The slower layer's share of the engine's time."""
    outcome: str
    layer: str
    """Of the slower layer, or of any one."""
    engine: str
    slower_layers: int
    inconclusive_layers: int
    sessions: int
    iterations: int


# --- one engine


class Changed:
    """Sessions of one run, made when they are asked for and summarised once, for baselines of any size."""

    def __init__(self, setting: Setting, engine: World, job: Job, slowdown: Floats | None) -> None:
        self.setting, self.engine, self.job, self.slowdown = setting, engine, job, slowdown
        self.samples: list[Samples] = []
        self.kept: list[Session] = []

    def take(self, start: int, count: int) -> list[Session]:
        """``count`` sessions from the ``start``-th on."""
        while len(self.kept) < start + count:
            samples = self.engine.session(self.job, self.slowdown)
            if self.setting.elsewhere:
                self.samples.append(samples)
            why = "foreign processes on the GPU" if self.job.disturbed and self.setting.noticed else ""
            self.kept.append(summarised(samples, why))
        return self.kept[start : start + count]

    def judged(self, baseline: Baseline) -> Verdict:
        """By the gate."""
        count, spent = self.setting.sessions, [self.setting.sessions]

        def more() -> list[Session]:
            spent[0] += count
            return self.take(spent[0] - count, count)

        return judge(
            baseline,
            Run(self.take(0, count), context(0, 1000)),
            false_alarm_rate=FALSE_ALARMS,
            layer_tolerance=self.setting.layer_tolerance,
            engine_tolerance=ENGINE_TOLERANCE,
            more=more,
        )


def context(job: int, hour: int) -> dict[str, str]:
    """Of a run; those of one job follow each other within minutes."""
    return {"job": str(job), "time_utc": f"2025-11-{1 + hour // 24 % 28:02d}T{hour % 24:02d}:{job % 60:02d}:00Z"}


@cache
def layer_names(count: int) -> tuple[str, ...]:
    return tuple(f"layer{index}" for index in range(count))


def summarised(samples: Samples, disturbed: str = "") -> Session:
    return Session.from_samples(
        samples.layer_us,
        samples.latency_us,
        layers=layer_names(samples.layer_us.shape[1]),
        clock_mhz=samples.clock_mhz,
        disturbed=disturbed or False,
    )


def changes(setting: Setting, engine: World) -> Iterator[tuple[str, float, int, Floats | None]]:
    """Kind, effect, slower layer and slowdown of each run of a suite."""
    count = len(engine.base_us)
    short = np.flatnonzero(engine.base_us < SHORT_US)
    for kind, effect in [("null", 0.0)] * setting.nulls + [*setting.changes] * setting.repeats:
        if kind == "short" and not len(short):
            continue
        layer = int(engine.rng.choice(short if kind == "short" else np.arange(count)))
        if kind == "null":
            yield kind, effect, layer, None
        elif kind == "all":
            yield kind, effect, layer, np.full(count, effect)
        else:
            yield kind, effect, layer, np.where(np.arange(count) == layer, effect, 0.0)


def suite(task: tuple[Setting, tuple[int, ...]]) -> list[Trial]:
    """One engine: its baseline, then changed and unchanged runs."""
    setting, seed = task
    engine = world(setting.world, setting.conditions, seed)
    jobs = [engine.job() for _ in range(1 if setting.conditions.one_job else max(setting.runs))] * max(setting.runs)
    past = [Changed(setting, engine, job, None) for job in jobs[: max(setting.runs)]]
    trials = []
    if not setting.pairs:
        runs = [
            Run(
                run.take(0, setting.sessions), context(*((0, 0) if setting.conditions.one_job else (index, 10 * index)))
            )
            for index, run in enumerate(past)
        ]
        baselines = {count: Baseline(runs[:count]) for count in setting.runs}
    for kind, effect, layer, slowdown in changes(setting, engine):
        share = float(engine.base_us[layer] / engine.base_us.sum())
        what = (setting, kind, effect, share, layer)
        if setting.pairs:
            for rule, disturbed in ((AB, False), (AB_DISTURBED, True)):
                verdict = paired(setting, engine, engine.job(disturbed=disturbed), slowdown)
                trials.append(tried(rule, verdict, *what))
            continue
        new = Changed(setting, engine, engine.job(disturbed=setting.conditions.disturbed), slowdown)
        for count, baseline in baselines.items():
            trials.append(tried(f"{GATE}, {count} runs", new.judged(baseline), *what))
        if setting.elsewhere:
            flags = elsewhere([run.samples for run in past], new.samples[: setting.sessions])
            for rule, (layers, whole) in flags.items():
                trials.append(
                    Trial(
                        setting.key,
                        rule,
                        kind,
                        effect,
                        share,
                        named(bool(layers.any()) or whole),
                        named(bool(layers[layer])),
                        named(whole),
                        int(layers.sum()),
                        0,
                        setting.sessions,
                        setting.sessions * setting.conditions.iterations,
                    )
                )
    return trials


def tried(rule: str, verdict: Verdict, setting: Setting, kind: str, effect: float, share: float, layer: int) -> Trial:
    outcomes = [one.outcome for one in verdict.layers]
    return Trial(
        setting.key,
        rule,
        kind,
        effect,
        share,
        verdict.outcome,
        outcomes[layer],
        verdict.engine.outcome,
        outcomes.count("slower"),
        outcomes.count("inconclusive"),
        verdict.sessions,
        verdict.sessions * setting.conditions.iterations,
    )


def paired(setting: Setting, engine: World, job: Job, slowdown: Floats | None) -> Verdict:
    """Fresh sessions of the old and the new engine in turns, all in one job."""

    def measured() -> tuple[list[Run], list[Run]]:
        both = [(engine.session(job), engine.session(job, slowdown)) for _ in range(PAIRS)]
        return [Run([summarised(a)]) for a, _ in both], [Run([summarised(b)]) for _, b in both]

    return compare(
        *measured(),
        more=measured,
        false_alarm_rate=FALSE_ALARMS,
        layer_tolerance=setting.layer_tolerance,
        engine_tolerance=ENGINE_TOLERANCE,
    )


def named(slower: bool) -> str:
    return "slower" if slower else "pass"


# --- the rules in use elsewhere


def elsewhere(past: Sequence[Sequence[Samples]], now: Sequence[Samples]) -> dict[str, tuple[np.ndarray, bool]]:
    """Which layers, and whether the engine, each rule would call slower.

    ``criterion-like`` takes a normal interval where criterion.rs takes a bootstrap's.
    """
    before = [pooled(run) for run in past]
    last, new = before[-1], pooled(now)
    run_means = np.array([run.mean(axis=0) for run in before])
    mean, last_mean = new.mean(axis=0), last.mean(axis=0)
    p = stats.mannwhitneyu(new, last, axis=0, alternative="greater").pvalue
    order = np.argsort(p)
    holm = np.empty_like(p)
    holm[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    error = np.sqrt(new.var(axis=0) / len(new) / mean**2 + last.var(axis=0) / len(last) / last_mean**2)
    third_quartile = np.quantile(last, 0.75, axis=0)
    clocks = [np.mean([s.clock_mhz or 1.0 for s in run]) for run in (past[-1], now)]
    beyond = new.min(axis=0) > 1.005 * third_quartile
    beyond &= new.min(axis=0) * clocks[1] / clocks[0] > 1.005 * third_quartile
    rules = {
        "mean + 5 % of all runs": mean > 1.05 * run_means.mean(axis=0),
        "3 sigma of run means": mean > run_means.mean(axis=0) + 3 * run_means.std(axis=0, ddof=1),
        "3 sigma of iterations": mean > run_means.mean(axis=0) + 3 * np.concatenate(before).std(axis=0),
        "pytest-benchmark mean:5%": mean > 1.05 * last_mean,
        "pytest-benchmark median:5%": np.median(new, axis=0) > 1.05 * np.median(last, axis=0),
        "criterion-like, beyond 1 %": np.log(mean / last_mean) - 1.96 * error > 0.01,
        "Mann-Whitney p < 5 %": p < 0.05,
        "Mann-Whitney, Holm 1 %": holm < 0.01,
        "nvbench-compare-robust": beyond,
    }
    return {rule: (flags[:-1], bool(flags[-1])) for rule, flags in rules.items()}


def pooled(run: Sequence[Samples]) -> Floats:
    """All iterations of a run, a last column for the engine."""
    parts = [
        np.column_stack([s.layer_us, s.layer_us.sum(axis=1) if s.latency_us is None else s.latency_us]) for s in run
    ]
    return np.concatenate(parts)


# --- tables


def percent(hits: Sequence[bool]) -> float:
    return 100 * float(np.mean(hits)) if len(hits) else float("nan")


def upper(hits: Sequence[bool]) -> float:
    """One-sided 95 % limit (Clopper and Pearson), as if all runs were independent."""
    count, found = len(hits), sum(hits)
    return 100.0 if found == count else 100 * float(stats.beta.ppf(0.95, found + 1, count - found))


def figure(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}" if value < 2 else f"{value:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def against(value: float, limit: float | None, at_most: bool) -> list[str]:
    """Cells: the bar, what was reached, whether it holds."""
    if limit is None:
        return ["", figure(value), ""]
    good = value <= limit if at_most else value >= limit
    return [f"{'at most' if at_most else 'at least'} {limit:g}", figure(value), "OK" if good else "NOT OK"]


class Figures:
    """What the bar asks of the trials of one rule in one setting."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.by_kind: dict[tuple[str, float], list[Trial]] = {}
        for trial in trials:
            self.by_kind.setdefault((trial.kind, trial.effect), []).append(trial)
        self.null = self.by_kind.get(("null", 0.0), [])

    def false_alarms(self) -> list[bool]:
        """Of each unchanged run: did it fail?"""
        return [trial.outcome == "slower" for trial in self.null]

    def inconclusive(self) -> float:
        """Overall."""
        return percent([trial.outcome == "inconclusive" for trial in self.null])

    def any_inconclusive(self) -> float:
        """Overall, the engine or any layer, advisories included."""
        return percent(
            [
                trial.outcome == "inconclusive" or trial.engine == "inconclusive" or trial.inconclusive_layers > 0
                for trial in self.null
            ]
        )

    def found(self, kind: str, effect: float, least_share: float = 0.0) -> float:
        """The slower layer is named, or the engine if everything is slower."""
        trials = [trial for trial in self.by_kind.get((kind, effect), []) if trial.share >= least_share]
        return percent([(trial.engine if kind == "all" else trial.layer) == "slower" for trial in trials])

    def passed(self) -> float:
        """A layer that is 10 % slower is called ``pass``."""
        return percent([trial.layer == "pass" for trial in self.by_kind.get(("one", 0.10), [])])

    def quiet(self) -> float:
        """A layer is 10 % slower, and the run neither fails nor is inconclusive."""
        return percent([trial.outcome in ("pass", "faster") for trial in self.by_kind.get(("one", 0.10), [])])

    def kind_right(self) -> float:
        """Half of it from one layer + 10 %, half from the whole engine + 5 %."""
        one = [
            trial.layer == "slower" and trial.slower_layers == 1 and trial.engine != "slower"
            for trial in self.by_kind.get(("one", 0.10), [])
        ]
        whole = [trial.engine == "slower" and trial.slower_layers == 0 for trial in self.by_kind.get(("all", 0.05), [])]
        return (percent(one) + percent(whole)) / 2

    def iterations(self) -> float:
        """Spent on an unchanged run, second look included."""
        return float(np.mean([trial.iterations for trial in self.null]))

    def sessions(self) -> float:
        """Spent on an unchanged run, second look included."""
        return float(np.mean([trial.sessions for trial in self.null]))


HEAD = (
    "null runs",
    "false alarms % (95 % limit)",
    "inconclusive %",
    "... or any layer %",
    *(f"one {effect:+.0%}" for effect in ONE_LAYER),
    "large +10%",
    "< 10 us +10%",
    "PASS at +10%",
    "quiet at +10%",
    *(f"all {effect:+.0%}" for effect in WHOLE_ENGINE),
    "kind right %",
    "sessions",
    "iterations",
)


def cells(figures: Figures) -> list[str]:
    alarms = figures.false_alarms()
    values = [
        figures.inconclusive(),
        figures.any_inconclusive(),
        *(figures.found("one", effect) for effect in ONE_LAYER),
        figures.found("one", 0.10, LARGE),
        figures.found("short", 0.10),
        figures.passed(),
        figures.quiet(),
        *(figures.found("all", effect) for effect in WHOLE_ENGINE),
        figures.kind_right(),
        figures.sessions(),
    ]
    return [
        str(len(alarms)),
        f"{percent(alarms):.2f} ({upper(alarms):.2f})",
        *(figure(value) for value in values),
        f"{figures.iterations():.0f}",
    ]


class Line(NamedTuple):
    """A line of the bar."""

    measure: str
    limit: float
    at_most: bool
    setting: str
    rule: str
    reached: Callable[[Figures], float]


def bar(name: WorldName) -> list[Line]:
    main, five = f"{name}/main", f"{GATE}, 5 runs"
    drifting = name == "drifting"

    def alarms(figures: Figures) -> float:
        return percent(figures.false_alarms())

    def found(kind: str, effect: float) -> Callable[[Figures], float]:
        return lambda figures: figures.found(kind, effect)

    lines = [
        Line("false alarms", 1.0, True, main, five, alarms),
        Line("one layer +10 %", 97 if drifting else 85, False, main, five, found("one", 0.10)),
        Line("one layer +20 %", 99 if drifting else 95, False, main, five, found("one", 0.20)),
        Line("whole engine +3 %", 97, False, main, five, found("all", 0.03)),
        Line("PASS on a +10 % layer", 1, True, main, five, Figures.passed),
        Line("clean runs inconclusive", 2 if drifting else 10, True, main, five, Figures.inconclusive),
        Line("iterations a tested engine", 240, True, main, five, Figures.iterations),
    ]
    if drifting:
        lines += [
            Line("one layer +5 %", 75, False, main, five, found("one", 0.05)),
            Line("layer below 10 us, +10 %", 94, False, main, five, found("short", 0.10)),
            Line("whole engine +5 %", 99, False, main, five, found("all", 0.05)),
            Line("kind named correctly", 97, False, main, five, Figures.kind_right),
            Line("A/B: one layer +5 %", 75, False, f"{name}/A/B", AB, found("one", 0.05)),
            Line("A/B: one layer +10 %", 96, False, f"{name}/A/B", AB, found("one", 0.10)),
        ]
    lines += [
        Line(f"{noticed}: fails", 0, True, f"{name}/{noticed}", five, alarms)
        for noticed in ("disturbed, noticed", "disturbed, not noticed")
    ]
    lines += [
        Line(f"{noticed}: inconclusive", 95, False, f"{name}/{noticed}", five, Figures.inconclusive)
        for noticed in ("disturbed, noticed", "disturbed, not noticed")
    ]
    lines += [
        Line("baseline from one job: false alarms", 1.0, True, f"{name}/baseline from one job", five, alarms),
        Line("A/B: false alarms", 0.5, True, f"{name}/A/B", AB, alarms),
        Line("A/B, disturbed: false alarms", 0.5, True, f"{name}/A/B", AB_DISTURBED, alarms),
    ]
    return lines


def report(trials: Sequence[Trial]) -> None:
    """Tables of the simulated worlds."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.setting, trial.rule), []).append(trial)
    figures = {key: Figures(group) for key, group in groups.items()}
    for name in WORLDS:
        mine = {key: value for key, value in figures.items() if key[0].startswith(f"{name}/")}
        if not mine:
            continue
        print(f"\n## Simulated: the {name} world\n")
        ours = {key: value for key, value in mine.items() if key[0] != f"{name}/elsewhere"}
        if ours:
            rows = [[key[0].partition("/")[2], key[1], *cells(value)] for key, value in ours.items()]
            table(["setting", "rule", *HEAD], rows)
        theirs = {key: value for key, value in mine.items() if key[0] == f"{name}/elsewhere"}
        if theirs:
            print("The rules in use elsewhere, on the same data:\n")
            table(["rule", *HEAD], [[key[1], *cells(value)] for key, value in theirs.items()])
        rows = []
        for line in bar(name):
            if (line.setting, line.rule) in mine:
                value = line.reached(mine[line.setting, line.rule])
                rows.append([line.measure, *against(value, line.limit, line.at_most)])
        if rows:
            print("The bar:\n")
            table(["measure (%)", "bar", "reached", ""], rows)


# --- recorded sessions


class Recording(NamedTuple):
    """Sessions of one engine on two days."""

    name: str
    layers: tuple[str, ...]
    days: dict[str, list[Samples]]


def recordings(folder: Path | None) -> list[Recording]:
    if folder is None:
        from tests.recordings import H200

        kept = H200()
        whole = {
            day: [
                Samples(layers, np.asarray(latency, dtype=np.float64), None)
                for layers, latency in zip(kept.layer_us[day], kept.latency_us[day], strict=True)
            ]
            for day in "ab"
        }
        return [Recording("BERT-base, the part kept for the tests", tuple(kept.layer_names), whole)]
    found = []
    for path in sorted(folder.glob("*_a.npz")):
        days: dict[str, list[Samples]] = {}
        names: tuple[str, ...] = ()
        for day in "ab":
            with np.load(path.with_name(path.name[: -len("a.npz")] + f"{day}.npz"), allow_pickle=False) as data:
                names = tuple(str(name) for name in data["layer_names"])
                days[day] = [
                    Samples(layers[WARM_UP:].astype(np.float64), latency[WARM_UP:].astype(np.float64), None)
                    for layers, latency in zip(data["layer_us"], data["latency_us"], strict=True)
                ]
        found.append(Recording(path.name[: -len("_a.npz")], names, days))
    return found


class Draw(NamedTuple):
    """One verdict on recorded sessions."""

    kind: str
    effect: float
    layer: int
    large: bool
    outcome: str
    named: str
    """Of the slower layer: its outcome; ``advisory`` where it is inconclusive and the run is not."""
    engine: str
    slower_layers: int
    sessions: int
    doubted: tuple[int, ...]
    """Inconclusive layers."""


class Recorded:
    """Draws from recorded sessions: a baseline from one day, a new run from another."""

    def __init__(self, recording: Recording, runs: int = 4, sessions: int = 3) -> None:
        self.recording, self.runs, self.sessions = recording, runs, sessions
        self.plain = {day: [self._summary(s) for s in kept] for day, kept in recording.days.items()}
        place = np.mean([s.layer_us.mean(axis=0) for s in recording.days["a"]], axis=0)
        self.place_us: Floats = np.asarray(place)
        self.large = np.flatnonzero(place > LARGE * place.sum())
        gaps = np.diff(np.unique(recording.days["a"][0].layer_us.round(6)))
        self.tick_us = float(np.median(gaps[gaps > 1e-4]))

    def _summary(self, samples: Samples) -> Session:
        return Session.from_samples(samples.layer_us, samples.latency_us, layers=self.recording.layers)

    def slowed(self, samples: Samples, layer: int | None, effect: float, rng: np.random.Generator) -> Samples:
        """One layer, or all, longer by a share, in whole ticks again; the latency by as many microseconds."""
        columns = slice(None) if layer is None else slice(layer, layer + 1)
        times = samples.layer_us.copy()
        extra = times[:, columns] * effect
        longer = (times[:, columns] + extra) / self.tick_us
        times[:, columns] = np.floor(longer + rng.random(longer.shape)) * self.tick_us
        latency = samples.latency_us
        if latency is not None:
            latency = latency * (1 + effect) if layer is None else latency + extra.sum(axis=1)
        return Samples(times, latency, samples.clock_mhz)

    def drawn(self, seed: tuple[int, ...]) -> tuple[list[Draw], dict[str, bool]]:
        """All verdicts of a draw, and what the rules in use elsewhere say of the unchanged run."""
        rng = np.random.Generator(np.random.PCG64(list(seed)))
        past = rng.permutation(len(self.plain["a"]))[: self.runs * self.sessions].reshape(self.runs, self.sessions)
        new = [int(one) for one in rng.permutation(len(self.plain["b"]))[: 2 * self.sessions]]
        baseline = Baseline(
            [Run([self.plain["a"][one] for one in row], context(index, 10 * index)) for index, row in enumerate(past)]
        )
        draws = [self._judged(baseline, new, "null", 0.0, None, rng)]
        for kind, layer in (("one", rng.integers(len(self.place_us))), ("large", rng.choice(self.large))):
            for effect in (0.05, 0.10, 0.20):
                draws.append(self._judged(baseline, new, kind, effect, int(layer), rng))
        for effect in WHOLE_ENGINE:
            draws.append(self._judged(baseline, new, "all", effect, None, rng))
        days = self.recording.days
        flags = elsewhere([[days["a"][one] for one in row] for row in past], [days["b"][one] for one in new[:3]])
        return draws, {rule: bool(layers.any()) or whole for rule, (layers, whole) in flags.items()}

    def _judged(
        self,
        baseline: Baseline,
        new: Sequence[int],
        kind: str,
        effect: float,
        layer: int | None,
        rng: np.random.Generator,
    ) -> Draw:
        def take(which: Sequence[int]) -> list[Session]:
            if kind == "null":
                return [self.plain["b"][one] for one in which]
            return [self._summary(self.slowed(self.recording.days["b"][one], layer, effect, rng)) for one in which]

        left = list(new[self.sessions :])

        def more() -> list[Session]:
            further = take(left[: self.sessions])
            del left[: self.sessions]
            return further

        verdict = judge(
            baseline,
            Run(take(new[: self.sessions]), context(0, 1000)),
            false_alarm_rate=FALSE_ALARMS,
            layer_tolerance=LAYER_TOLERANCE,
            engine_tolerance=ENGINE_TOLERANCE,
            more=more,
        )
        outcomes = [one.outcome for one in verdict.layers]
        state: str = outcomes[layer or 0]
        if state == "inconclusive" and verdict.outcome != "inconclusive":
            state = "advisory"
        return Draw(
            kind,
            effect,
            -1 if layer is None else layer,
            layer in self.large,
            verdict.outcome,
            state,
            verdict.engine.outcome,
            outcomes.count("slower"),
            verdict.sessions,
            tuple(index for index, one in enumerate(outcomes) if one == "inconclusive"),
        )


_recorded: list[Recorded] = []


def draw(task: tuple[int, tuple[int, ...]]) -> tuple[list[Draw], dict[str, bool]]:
    """In a worker, which inherited or made the summaries at its start."""
    return _recorded[task[0]].drawn(task[1])


def prepare(folder: Path | None) -> None:
    _recorded[:] = [Recorded(one) for one in recordings(folder)]


def report_recorded(one: Recorded, results: Sequence[tuple[list[Draw], dict[str, bool]]]) -> None:
    draws = [draw for drawn, _ in results for draw in drawn]
    null = [draw for draw in draws if draw.kind == "null"]
    print(f"\n## Recorded: {one.recording.name}\n")
    print(
        f"{len(null)} draws: {one.runs} runs of {one.sessions} of {len(one.plain['a'])} sessions as the baseline, "
        f"{one.sessions} + {one.sessions} of {len(one.plain['b'])} of another day as the new run; "
        f"{len(one.place_us)} layers, {len(one.large)} of them take more than {LARGE:.0%} of the engine's time.\n"
    )
    alarms = [draw.outcome == "slower" for draw in null]
    doubted = [bool(draw.doubted) for draw in null]
    lines: list[tuple[str, float, float | None, bool]] = [
        ("false alarms", percent(alarms), 0, True),
        ("inconclusive", percent([draw.outcome == "inconclusive" for draw in null]), 10, True),
        ("any layer inconclusive, advisories too", percent(doubted), None, True),
    ]
    for effect, least in ((0.05, None), (0.10, 85), (0.20, 95)):
        hits = [d.named == "slower" for d in draws if d.kind == "one" and d.effect == effect]
        lines.append((f"one layer {effect:+.0%} found", percent(hits), least, False))
    for effect in WHOLE_ENGINE:
        hits = [d.engine == "slower" for d in draws if d.kind == "all" and d.effect == effect]
        lines.append((f"whole engine {effect:+.0%} found", percent(hits), None, False))
    lines.append(("sessions spent (mean)", float(np.mean([draw.sessions for draw in null])), None, True))
    table(
        ["measure (%)", "bar", "reached", ""],
        [[what, *against(value, limit, at_most)] for what, value, limit, at_most in lines],
    )

    rows: list[list[str]] = []
    for kind, label in (("one", "any layer"), ("one, small", "below 1 %"), ("large", "above 1 %")):
        for effect in (0.05, 0.10, 0.20):
            group = [d for d in draws if d.kind == kind.partition(",")[0] and d.effect == effect]
            group = [d for d in group if not d.large] if "small" in kind else group
            states = Counter("other" if d.named in ("faster", "new", "gone") else d.named for d in group)
            row = [label, f"{effect:+.0%}", str(len(group))]
            row += [
                figure(100 * states[s] / max(len(group), 1))
                for s in ("slower", "pass", "advisory", "inconclusive", "other")
            ]
            row += [figure(percent([d.outcome in ("pass", "faster") for d in group]))]
            row += [figure(percent([d.slower_layers > (d.named == "slower") for d in group]))]
            rows.append(row)
    print("What became of the slower layer (%):\n")
    head = ["layer", "effect", "draws", "found", "pass", "advisory", "inconclusive", "other"]
    table([*head, "run passed", "others blamed"], rows)

    print("Layers that most often stay inconclusive in an unchanged run, and that hide +10 %:\n")
    seen = Counter(layer for draw in null for layer in draw.doubted)
    tried = Counter(d.layer for d in draws if d.effect == 0.10 and d.layer >= 0)
    missed = Counter(d.layer for d in draws if d.effect == 0.10 and d.layer >= 0 and d.named != "slower")
    ranked = [layer for layer, _ in seen.most_common(8)]
    ranked += [layer for layer, _ in missed.most_common(8) if layer not in ranked]
    share = one.place_us / one.place_us.sum()
    rows = [
        [
            f"{layer} `{one.recording.layers[layer][:48]}`",
            f"{one.place_us[layer]:.1f}",
            f"{share[layer]:.2%}",
            figure(100 * seen[layer] / len(null)),
            f"{missed[layer]} of {tried[layer]}",
        ]
        for layer in ranked
    ]
    table(["layer", "us", "share of time", "inconclusive in % of null draws", "+10 % not found"], rows)
    print("The rules in use elsewhere, false alarms in the same draws:\n")
    rules = {rule: percent([flags[rule] for _, flags in results]) for rule in results[0][1]}
    table(["rule", "false alarms %"], [[rule, figure(value)] for rule, value in rules.items()])


# --- does the measured world look like the measurements?


def day(seed: tuple[int, ...]) -> Noise:
    """As many sessions, of as many iterations, as were recorded on a day."""
    engine = world("measured", Conditions(iterations=180), seed)
    job = engine.job()
    return noise([engine.session(job) for _ in range(12)])


def report_noise(simulated: Sequence[Noise], recorded: Sequence[Recorded]) -> None:
    print("\n## Does the measured world look like the measurements?\n")
    spread = np.quantile(np.array(simulated), [0.1, 0.5, 0.9], axis=0)
    days = [
        (f"{one.recording.name}, {day}", noise(kept)) for one in recorded for day, kept in one.recording.days.items()
    ]
    rows = [
        [
            what.replace("_", " "),
            *(f"{found[index]:.4f}" for _, found in days),
            f"{spread[1, index]:.4f} ({spread[0, index]:.4f} to {spread[2, index]:.4f})",
        ]
        for index, what in enumerate(Noise._fields)
    ]
    table(["figure", *(name for name, _ in days), f"simulated, {len(simulated)} days (10 to 90 %)"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the suites")
    parser.add_argument("--only", default="", help="rows whose name contains this: noise, drifting/, K, recorded")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recordings", type=Path, help="folder of NAME_a.npz and NAME_b.npz")
    options = parser.parse_args()

    def count(full: int) -> int:
        return max(2, round(full * float(options.scale)))

    def seed(name: str, index: int) -> tuple[int, ...]:
        return (options.seed, zlib.crc32(name.encode()), index)

    started = time.monotonic()

    def spent(what: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {what}", file=sys.stderr, flush=True)

    chosen = [setting for setting in settings() if options.only in setting.key]
    prepare(options.recordings)
    with ProcessPoolExecutor(options.jobs, initializer=prepare, initargs=(options.recordings,)) as pool:
        if options.only in "noise":
            days = [seed("noise", index) for index in range(count(40))]
            report_noise(list(pool.map(day, days)), _recorded)
            spent("noise")
        trials: list[Trial] = []
        tasks = [(setting, seed(setting.key, index)) for setting in chosen for index in range(count(setting.suites))]
        for (setting, number), done in zip(tasks, pool.map(suite, tasks), strict=True):
            trials += done
            if number[-1] == count(setting.suites) - 1:
                spent(setting.key)
        report(trials)
        if options.only in "recorded":
            for index, one in enumerate(_recorded):
                draws = [(index, seed("recorded", number)) for number in range(count(200))]
                report_recorded(one, list(pool.map(draw, draws, chunksize=2)))
                spent(f"recorded: {one.recording.name}")


if __name__ == "__main__":
    main()
