"""One frozen value for everything that the command line and the ini file say. Standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_trtgray.errors import ModelError, TrtGrayError

if TYPE_CHECKING:
    import pytest

    from pytest_trtgray.engines.profiles import ShapeRequest
    from pytest_trtgray.logs.records import LogSeverity
    from pytest_trtgray.metrics.gateway import Gateway


class OptionError(TrtGrayError):
    """An option or ini value does not make sense."""


class EngineRequest(NamedTuple):
    """One ``--trt-engine``: a name for test ids, and a file."""

    name: str
    path: Path


class Settings(NamedTuple):  # made in every run of pytest: a dataclass of this size takes 4 ms to define
    """See the options' and ini values' help texts for each field."""

    engines: tuple[EngineRequest, ...]
    against: EngineRequest | None
    onnx: Path | None
    shapes: tuple[ShapeRequest, ...]
    runtime: str
    device: int
    device_given: bool
    update: bool
    rebaseline: bool
    prune: bool
    baseline_dir: Path
    timing: str
    require_gpu: bool
    json_path: Path | None
    report_path: Path | None
    summary_path: Path | None
    history: str
    history_log_level: LogSeverity
    metrics_path: Path | None
    push_gateway: Gateway | None
    shadow: str
    allow_unlisted: bool
    timing_processes: bool
    cuda_graph: bool
    on_missing: str
    inconclusive: str
    false_alarm_rate: float
    layer_tolerance: float
    engine_tolerance: float
    sessions: int
    iterations: int | None
    rtol: float | None
    atol: float | None
    localise_s: float
    cache_dir: Path
    tactic_sources: tuple[str, ...]
    advice: bool
    identity: tuple[str, ...]
    log_level: LogSeverity
    redaction: bool
    redact: tuple[str, ...]
    rules: tuple[Path, ...]

    @property
    def is_used(self) -> bool:
        """Whether any option asks for something; decides on the header line."""
        return bool(self.engines or self.update or self.prune or self.wants_details or self.require_gpu)

    @property
    def wants_details(self) -> bool:
        """Whether a report shows more than summaries."""
        written = (self.json_path, self.report_path, self.summary_path, self.metrics_path)
        return any((*written, self.push_gateway, self.history))


def read_settings(config: pytest.Config) -> Settings:
    """Read and check all options and ini values.

    Raises:
        OptionError: a value is malformed, two engines have one name, or options contradict each other.
        RuleError: a file of ``trt_rules`` cannot be used.
        GatewayError: ``--trt-push-gateway`` is no URL of a push gateway.
    """
    here = config.invocation_params.dir
    option = config.getoption
    base = config.inipath.parent if config.inipath else config.rootpath
    return Settings(
        engines=_engines(option("trt_engine"), here),
        against=_against(option("trt_against"), here),
        onnx=here / option("trt_onnx") if option("trt_onnx") else None,
        shapes=_shapes(option("trt_min_shapes"), option("trt_opt_shapes"), option("trt_max_shapes")),
        runtime=option("trt_runtime"),
        device=_device(config),
        device_given=option("trt_device") is not None,
        update=option("trt_update_baselines") or option("trt_rebaseline"),
        rebaseline=option("trt_rebaseline"),
        prune=option("trt_prune_baselines"),
        baseline_dir=Path(
            os.path.normpath(
                here / option("trt_baseline_dir")
                if option("trt_baseline_dir")
                else base / config.getini("trt_baseline_dir")
            )
        ),
        timing=option("trt_timing"),
        require_gpu=option("trt_require_gpu"),
        json_path=here / option("trt_json") if option("trt_json") else None,
        report_path=here / option("trt_report") if option("trt_report") else None,
        summary_path=here / option("trt_summary") if option("trt_summary") else None,
        history=_history(option("trt_history"), here),
        history_log_level=_choice(config, "trt_history_log_level", ("error", "warning", "info", "verbose")),  # type: ignore[arg-type]
        metrics_path=here / option("trt_metrics") if option("trt_metrics") else None,
        push_gateway=_gateway(option("trt_push_gateway")),
        shadow=option("trt_shadow"),
        allow_unlisted=option("trt_allow_unlisted"),
        timing_processes=option("trt_timing_processes"),
        cuda_graph=option("trt_cuda_graph"),
        on_missing=_choice(config, "trt_on_missing", ("fail", "skip", "record")),
        inconclusive=_choice(config, "trt_inconclusive", ("warn", "skip", "fail")),
        false_alarm_rate=_between("trt_false_alarm_rate", config.getini("trt_false_alarm_rate"), 0.0, 1.0),
        layer_tolerance=_between("trt_layer_tolerance", config.getini("trt_layer_tolerance"), 0.0, 10.0),
        engine_tolerance=_between("trt_engine_tolerance", config.getini("trt_engine_tolerance"), 0.0, 10.0),
        sessions=_at_least("trt_sessions", config.getini("trt_sessions"), 1),
        iterations=_at_least("trt_iterations", config.getini("trt_iterations"), 0) or None,
        rtol=_not_negative(config, "trt_rtol"),
        atol=_not_negative(config, "trt_atol"),
        localise_s=_not_negative(config, "trt_localise") or 0.0,
        cache_dir=base / config.getini("trt_cache_dir"),
        tactic_sources=tuple(config.getini("trt_tactic_sources")),
        advice=bool(config.getini("trt_advice")),
        identity=_identity(config.getini("trt_identity")),
        log_level=option("trt_log_level"),
        redaction=not option("trt_no_redaction"),
        redact=_patterns(config.getini("trt_redact")),
        rules=_rules(tuple(base / path for path in config.getini("trt_rules"))),
    )


class ActiveTest:
    """Where files named in a test are looked for, and which shapes the command line gives.

    Args:
        folders: in order; the current folder by default.
        shapes: of the command line.
    """

    def __init__(self, folders: tuple[Path, ...] = (), shapes: tuple[ShapeRequest, ...] = ()) -> None:
        self.folders = folders or (Path.cwd(),)
        self.shapes = shapes

    def find_file(self, path: str | Path) -> Path:
        """The file that a test means by ``path``.

        Raises:
            ModelError: none of the folders has it.
        """
        wanted = Path(path)
        tried = [wanted] if wanted.is_absolute() else [folder / wanted for folder in self.folders]
        for candidate in tried:
            if candidate.exists():
                return candidate
        folders = ", ".join(str(candidate.parent) for candidate in dict.fromkeys(tried))
        raise ModelError(wanted, f"no such file (looked in {folders})", "Check the path in the test.")


_active = [ActiveTest()]


def active() -> ActiveTest:
    """The test that is running; outside of tests, the current folder."""
    return _active[-1]


@contextmanager
def activated(test: ActiveTest) -> Iterator[None]:
    """Make ``test`` the running one."""
    _active.append(test)
    try:
        yield
    finally:
        _active.pop()


def _against(given: str | None, here: Path) -> EngineRequest | None:
    return _engine("--trt-against", given, here) if given else None


def _engine(option: str, text: str, here: Path) -> EngineRequest:
    name, equals, path = text.partition("=")
    # a file may be called a=b.onnx; a name has no folder and no suffix
    if not equals or "/" in name or "." in name or (here / text).exists():
        name, path = Path(text).stem, text
    if not name or not path:
        raise OptionError(f"{option}={text}", "cannot be read", "Write PATH or NAME=PATH.")
    return EngineRequest(name, Path(os.path.normpath(here / path)))


def _engines(given: list[str], here: Path) -> tuple[EngineRequest, ...]:
    requests = [_engine("--trt-engine", text, here) for text in given]
    names = [request.name for request in requests]
    for request in requests:
        if names.count(request.name) > 1:
            same = [str(other.path) for other in requests if other.name == request.name]
            raise OptionError(
                "--trt-engine",
                f"two engines are called {request.name!r}: {', '.join(same)}",
                f"Name them: --trt-engine=old={same[0]} --trt-engine=new={same[-1]}",
            )
    return tuple(requests)


def _history(url: str | None, here: Path) -> str:
    """The URL of the database; a file of SQLite lies where pytest was started. No message may have its password."""
    if not url:
        return ""
    if not re.match(r"[A-Za-z][\w+.-]*://", url):
        raise OptionError(
            "--trt-history",
            "is no database URL",
            "Write sqlite:///history.db, or postgresql://USER:PASSWORD@HOST/NAME.",
        )
    scheme, slashes, path = url.partition(":///")
    if slashes and scheme.startswith("sqlite") and path and not path.startswith(("file:", ":memory:", "?")):
        return f"{scheme}:///{here / path}"
    return url


def _shapes(low: list[str], best: list[str], high: list[str]) -> tuple[ShapeRequest, ...]:
    if not (low or best or high):
        return ()
    from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes

    if not len(low) == len(best) == len(high):
        raise OptionError(
            "--trt-min-shapes, --trt-opt-shapes, --trt-max-shapes",
            f"are given {len(low)}, {len(best)} and {len(high)} times",
            "Give all three, once for every optimization profile.",
        )
    return tuple(ShapeRequest(*(parse_shapes(text) for text in texts)) for texts in zip(low, best, high, strict=True))


def _device(config: pytest.Config) -> int:
    """The device asked for; without one, the workers of pytest-xdist share out those that are visible."""
    given = config.getoption("trt_device")
    if given is not None:
        return _at_least("--trt-device", given, 0)
    from pytest_trtgray.parallel import device_of_worker

    return device_of_worker(config)


def _choice(config: pytest.Config, name: str, allowed: tuple[str, ...]) -> str:
    value = str(config.getini(name))
    if value not in allowed:
        raise OptionError(f"{name} = {value}", f"must be one of {', '.join(allowed)}")
    return value


def _between(name: str, value: Any, low: float, high: float) -> float:
    number = float(value)
    if not low < number < high:
        raise OptionError(f"{name} = {value}", f"must lie between {low:g} and {high:g}")
    return number


def _at_least(name: str, value: Any, low: int) -> int:
    number = int(value)
    if number < low:
        raise OptionError(f"{name} = {value}", f"must be at least {low}")
    return number


def _not_negative(config: pytest.Config, name: str) -> float | None:
    value = config.getini(name)
    if value is None:
        return None
    number = float(value)
    if not 0 <= number < float("inf"):
        raise OptionError(f"{name} = {value}", "must be a finite number, not below 0")
    return number


def _identity(given: list[str]) -> tuple[str, ...]:
    if not given:
        return ()
    from pytest_trtgray.baselines.identity import FIELDS

    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise OptionError(f"trt_identity = {' '.join(given)}", f"unknown {unknown}", f"Known: {', '.join(FIELDS)}.")
    return tuple(given)


def _patterns(given: list[str]) -> tuple[str, ...]:
    for pattern in given:
        try:
            matches_nothing = re.compile(pattern).fullmatch("") is not None
        except re.error as error:
            raise OptionError(
                f"trt_redact = {pattern}",
                f"is no regular expression: {error}",
                "Write one a line, in the syntax of Python's re; a backslash before what is meant literally.",
            ) from None
        if matches_nothing:
            raise OptionError(f"trt_redact = {pattern}", "matches the empty text, that is everywhere", "Ask for more.")
    return tuple(given)


def _gateway(given: str | None) -> Gateway | None:
    if not given:
        return None
    from pytest_trtgray.metrics.gateway import parse_gateway

    return parse_gateway(given)


def _rules(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files of rules, checked: a mistake in one shall not wait for the first log."""
    if paths:
        from pytest_trtgray.logs.ruleset import load_rules

        load_rules(paths)
    return paths
