"""The adapter against every TensorRT that it supports: a member that not all of them have needs a guard.

TensorRT's objects have no types here, so the code is read instead. ``trt_core_api.json`` lists the members of all
releases. A member that some release lacks may be touched where its presence was asked for:

* ``hasattr(x, "m")`` or ``"M" in x.__members__`` in an ``if``, ``while``, ``assert``, conditional expression,
  ``and``/``or`` or comprehension filter, also through a local name (``known = hasattr(...)``), and after an early
  return;
* ``getattr(x, "m", default)``, ``try: ... except AttributeError`` or ``suppress(AttributeError)``;
* below a guard for a member that no release has without this one: ``create_runtime_config`` came together with
  ``set_execution_context_allocation_strategy``;
* last resort: ``# api: m`` on the line, or on the ``def`` or ``class`` that holds it, says that callers have asked.
  A remark that nothing needs is an error too.

What it cannot see: members named at run time (``getattr(trt.BuilderFlag, name)``), and a member that one class
always had and another got later (``flags``), unless the object's name gives its class away (:data:`CLASS_OF`).
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest

import pytest_trtgray
from pytest_trtgray.vendor import is_installed, quiet_import

PACKAGE = Path(pytest_trtgray.__file__).parent
API: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "trt_core_api.json").read_text("utf-8"))

RELEASES = (*API["tensorrt"], *(f"rtx {version}" for version in API["tensorrt_rtx"]))
ENUMS = frozenset(API["enums"])
FLAVOURS = ("tensorrt", "tensorrt_rtx")

# Which classes an object is of, by the last part of the name that holds it; in modules that handle TensorRT only.
CLASS_OF = {
    "builder": ("Builder",),
    "cache": ("IRuntimeCache", "ITimingCache"),
    "config": ("IBuilderConfig", "IRuntimeConfig"),
    "context": ("IExecutionContext",),
    "engine": ("ICudaEngine",),
    "inspector": ("EngineInspector",),
    "network": ("INetworkDefinition",),
    "parser": ("OnnxParser",),
    "refitter": ("Refitter",),
    "runtime": ("Runtime",),
}
# Names that many objects have; without the object's class they say nothing.
COMMON = frozenset(
    name for kind in (str, bytes, float, dict, list, set, Path, np.ndarray, io.BytesIO, type) for name in dir(kind)
)
# Arguments and attributes that take an enum, where a number would mean another thing in another release.
TAKES_ENUM = frozenset(
    [
        *("set_flag", "clear_flag", "get_flag", "set_preview_feature", "get_preview_feature", "create_network"),
        *("set_memory_pool_limit", "get_memory_pool_limit", "set_tactic_sources"),
        *("get_engine_information", "get_layer_information"),
    ]
)
IS_ENUM = frozenset(
    [
        *("profiling_verbosity", "nvtx_verbosity", "min_severity", "engine_capability", "default_device_type"),
        *("hardware_compatibility_level", "runtime_platform", "tiling_optimization_level", "tempfile_control_flags"),
        *("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"),
    ]
)

Fact = tuple[str, str]
"""An object's source text and a member that it has; ``*`` stands for any."""
ANYTHING: Fact = ("*", "*")
NOTHING: frozenset[Fact] = frozenset()


def releases_of(text: str) -> frozenset[str]:
    """The releases that a key of the list names, ``8.6..10.16, rtx 1.4``."""
    found: set[str] = set()
    for part in text.split(", "):
        prefix = "rtx " if part.startswith("rtx ") else ""
        first, _, last = part.removeprefix(prefix).partition("..")
        start, stop = RELEASES.index(prefix + first), RELEASES.index(prefix + (last or first))
        found |= set(RELEASES[start : stop + 1])
    return frozenset(found)


def read_members() -> dict[str, dict[str, frozenset[str]]]:
    """By class and member, the releases that have it."""
    members: dict[str, dict[str, frozenset[str]]] = {}
    everywhere = (frozenset(RELEASES), API["everywhere"])
    for releases, classes in (everywhere, *((releases_of(key), found) for key, found in API["elsewhere"].items())):
        for name, found in classes.items():
            of_class = members.setdefault(name, {})
            for member in found:
                of_class[member] = of_class.get(member, frozenset()) | releases
    return members


MEMBERS = read_members()
ALL = frozenset(RELEASES)


def owners(member: str) -> list[frozenset[str]]:
    return [found[member] for found in MEMBERS.values() if member in found]


def implies(asked: str, member: str) -> bool:
    """Whether no release has the member ``asked`` and lacks ``member``."""
    with_guard = frozenset[str]().union(*owners(asked))
    return bool(with_guard) and with_guard != ALL and with_guard <= ALL.intersection(*owners(member))


@dataclass
class Finding:
    """A member that is touched and not everywhere."""

    line: int
    code: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.code} ({self.reason})"


@dataclass
class Reader:
    """Reads one module; ``findings`` and ``used`` (lines of remarks that were needed) come out.

    Args:
        source: of the module.
        house: members of this package's own classes, which are not TensorRT's.
    """

    source: str
    house: frozenset[str] = frozenset()
    findings: list[Finding] = field(default_factory=list)
    used: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        tree = ast.parse(self.source)
        self.remarks = dict(remarks(self.source))
        self.handles_tensorrt = handles_tensorrt(tree)
        self._known: list[dict[str, ast.expr]] = [{}]
        self._own: list[frozenset[str]] = [frozenset()]
        self._scopes: list[int] = []
        self._block(tree.body, NOTHING)
        for node in ast.walk(tree):
            if reason := number_for_enum(node):
                self.findings.append(Finding(node.lineno, ast.unparse(node), reason))  # type: ignore[attr-defined]
        self.stale = {line: names for line, names in self.remarks.items() if line not in self.used}

    def _block(self, body: Iterable[ast.stmt], facts: frozenset[Fact]) -> None:
        for statement in body:
            self._read(statement, facts)
            # what follows an `if` that does not come back, or an assertion, knows the outcome
            if isinstance(statement, ast.If):
                if leaves(statement.body):
                    facts |= self._facts(statement.test, False)
                if statement.orelse and leaves(statement.orelse):
                    facts |= self._facts(statement.test, True)
            elif isinstance(statement, ast.Assert):
                facts |= self._facts(statement.test, True)

    def _read(self, node: ast.AST, facts: frozenset[Fact]) -> None:
        match node:
            case ast.If() | ast.While():
                self._read(node.test, facts)
                self._block(node.body, facts | self._facts(node.test, True))
                self._block(node.orelse, facts | self._facts(node.test, False))
            case ast.IfExp():
                self._read(node.test, facts)
                self._read(node.body, facts | self._facts(node.test, True))
                self._read(node.orelse, facts | self._facts(node.test, False))
            case ast.BoolOp():
                for value in node.values:
                    self._read(value, facts)
                    facts |= self._facts(value, isinstance(node.op, ast.And))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                for generator in node.generators:
                    self._read(generator.iter, facts)
                    for test in generator.ifs:
                        self._read(test, facts)
                        facts |= self._facts(test, True)
                for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
                    self._read(part, facts)
            case ast.Try():
                tolerant = any(catches(handler.type) for handler in node.handlers)
                self._block(node.body, facts | {ANYTHING} if tolerant else facts)
                for rest in (*(handler.body for handler in node.handlers), node.orelse, node.finalbody):
                    self._block(rest, facts)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self._read(item.context_expr, facts)
                tolerant = any(suppresses(item.context_expr) for item in node.items)
                self._block(node.body, facts | {ANYTHING} if tolerant else facts)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._scope(node, facts)
            case _:
                self._touch(node, facts)
                self._children(node, facts)

    def _children(self, node: ast.AST, facts: frozenset[Fact]) -> None:
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._block(value, facts)
            else:
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        self._read(child, facts)

    def _scope(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, facts: frozenset[Fact]) -> None:
        for part in (*node.decorator_list, *(node.bases if isinstance(node, ast.ClassDef) else [node.args])):
            self._read(part, facts)
        own = frozenset[str]()
        if isinstance(node, ast.ClassDef):
            own = frozenset(item.name for item in node.body if isinstance(item, ast.FunctionDef))
        heading = [line for line in range(node.lineno, node.body[0].lineno) if line in self.remarks]
        self._known.append(assigned_once(node))
        self._own.append(own or self._own[-1])
        self._scopes += heading
        self._block(node.body, facts)
        del self._scopes[len(self._scopes) - len(heading) :]
        self._own.pop()
        self._known.pop()

    def _touch(self, node: ast.AST, facts: frozenset[Fact]) -> None:
        if isinstance(node, ast.Attribute):
            place, member = node.value, node.attr
        elif is_call(node, "getattr", 2) or is_call(node, "setattr", 3):
            assert isinstance(node, ast.Call)
            name = node.args[1]
            if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
                return
            place, member = node.args[0], name.value
        else:
            return
        lacking = self._lacking(place, member)
        if not lacking or ANYTHING in facts or (ast.unparse(place), member) in facts:
            return
        if any(implies(asked, member) for _, asked in facts):
            return
        for line in (node.lineno, *self._scopes):
            for asked in self.remarks.get(line, ()):
                if asked == member or implies(asked, member):
                    self.used.add(line)
                    return
        self.findings.append(Finding(node.lineno, ast.unparse(node), lacking))

    def _lacking(self, place: ast.expr, member: str) -> str:
        """Why a member needs a guard; empty if it does not."""
        last = place.attr if isinstance(place, ast.Attribute) else place.id if isinstance(place, ast.Name) else ""
        if last in ENUMS and isinstance(place, ast.Attribute):
            if member in MEMBERS[last]:
                return missing(MEMBERS[last][member], f"{last} ")
            return "" if member.startswith("__") or member in ("name", "value") else f"{last} never had it"
        hinted = CLASS_OF.get(last.strip("_").lower(), ()) if self.handles_tensorrt else ()
        if last in MEMBERS and isinstance(place, ast.Attribute):
            hinted = (last,)
        if found := [MEMBERS[name][member] for name in hinted if member in MEMBERS[name]]:
            return "" if ALL in found else missing(found[0])
        is_own = isinstance(place, ast.Name) and place.id == "self" and member in self._own[-1]
        if is_own or member in COMMON or member in self.house:
            return ""
        everyone = owners(member)
        return "" if not everyone or ALL in everyone else missing(everyone[0])

    def _facts(self, test: ast.expr, outcome: bool) -> frozenset[Fact]:
        """What is certain where ``test`` was true, or false."""
        match test:
            case ast.UnaryOp(op=ast.Not()):
                return self._facts(test.operand, not outcome)
            case ast.BoolOp():
                parts = [self._facts(value, outcome) for value in test.values]
                certain = isinstance(test.op, ast.And) is outcome
                return frozenset().union(*parts) if certain else parts[0].intersection(*parts[1:])
            case ast.NamedExpr():
                return self._facts(test.value, outcome)
            case ast.Name() if test.id in self._known[-1]:
                known = self._known[-1][test.id]
                self._known.append({})  # one step only: names may be defined by each other
                try:
                    return self._facts(known, outcome)
                finally:
                    self._known.pop()
            case ast.Call() if outcome and is_call(test, "hasattr", 2):
                name = test.args[1]
                member = name.value if isinstance(name, ast.Constant) else ""
                return frozenset({(ast.unparse(test.args[0]), str(member))})
            case ast.Compare(left=ast.Constant(value=str(member)), ops=[op], comparators=[ast.Attribute() as names]):
                asked = isinstance(op, ast.In) if outcome else isinstance(op, ast.NotIn)
                if asked and names.attr == "__members__":
                    return frozenset({(ast.unparse(names.value), member)})
        return NOTHING


def missing(found: frozenset[str], owner: str = "") -> str:
    if found == ALL:
        return ""
    without = [release for release in RELEASES if release not in found]
    return f"{owner}not in {', '.join(without[:3])}{', ...' if len(without) > 3 else ''}"


def is_call(node: ast.AST, name: str, arguments: int) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == name
        and len(node.args) == arguments
    )


def leaves(body: list[ast.stmt]) -> bool:
    """Whether a block never reaches what comes after it."""
    return isinstance(body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)


def catches(kind: ast.expr | None) -> bool:
    return kind is not None and "AttributeError" in ast.unparse(kind)


def suppresses(manager: ast.expr) -> bool:
    return (
        isinstance(manager, ast.Call)
        and ast.unparse(manager.func).endswith("suppress")
        and any(catches(kind) for kind in manager.args)
    )


def assigned_once(scope: ast.AST) -> dict[str, ast.expr]:
    """Local names with one value, such as ``known = hasattr(...)``."""
    found: dict[str, ast.expr] = {}
    stores: list[str] = []
    for node in ast.walk(scope):
        if isinstance(node, ast.arg):  # the caller gives it a value too
            stores += [node.arg, node.arg]
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            stores.append(node.id)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    return {name: value for name, value in found.items() if stores.count(name) == 1}


def remarks(source: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Lines with ``# api: a, b`` and the members named there."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (found := re.search(r"#\s*api:\s*(\w+(?:,\s*\w+)*)", token.string)):
            yield token.start[0], tuple(re.split(r",\s*", found[1]))


def handles_tensorrt(tree: ast.Module) -> bool:
    """Whether a module imports a TensorRT or is given one; ``trt`` is what it is called everywhere."""
    for node in ast.walk(tree):
        match node:
            case ast.Import() if any(alias.name.split(".")[0] in FLAVOURS for alias in node.names):
                return True
            case ast.ImportFrom(module=str(module), level=0) if module.split(".")[0] in FLAVOURS:
                return True
            case ast.Name(id="trt") | ast.arg(arg="trt") | ast.Attribute(attr="trt" | "_trt"):
                return True
    return False


def number_for_enum(node: ast.AST) -> str:
    """Why a number stands where a name should; enums have other values in other releases."""

    def is_number(value: ast.AST) -> bool:
        return isinstance(value, ast.Constant) and type(value.value) is int

    def is_enum(value: ast.AST) -> bool:
        return any(isinstance(part, ast.Attribute) and part.attr in ENUMS for part in ast.walk(value))

    match node:
        case ast.Call(func=ast.Attribute(attr=name), args=[first, *_]) if name in ENUMS or name in TAKES_ENUM:
            parts = ast.walk(first)
            # 1 << int(flag) is how a mask is made of a name; zero is the empty mask
            if is_number(first) and not (name not in ENUMS and ast.unparse(first) == "0"):
                return "a number for an enum"
            if name in ENUMS and any(is_number(part) for part in parts):
                return "a number for an enum"
        case ast.Compare(left=left, comparators=others) if any(is_enum(part) for part in (left, *others)):
            if any(is_number(part) for part in (left, *others)):
                return "an enum compared with a number"
        case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if name in IS_ENUM and is_number(value):
            return "a number for an enum"
    return ""


def members_of_house(trees: Iterable[ast.Module]) -> frozenset[str]:
    """Attributes and methods of classes that are not derived from TensorRT's."""
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef) or any(ast.unparse(base).startswith("trt.") for base in node.bases):
                continue
            for item in node.body:
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(item.name)
                elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    found.add(item.target.id)
    return frozenset(found)


def modules() -> dict[str, str]:
    return {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


SOURCES = modules()
HOUSE = members_of_house(ast.parse(source) for source in SOURCES.values())


WITHOUT_ENGINES = ("history/", "metrics/")
"""Rooms that may not know ``engines`` (``test_house.py``), and call members of other libraries by the same names."""


@pytest.mark.parametrize("name", sorted(name for name in SOURCES if not name.startswith(WITHOUT_ENGINES)))
def test_what_not_every_tensorrt_has_is_guarded(name: str) -> None:
    """In every module, so that none is forgotten; most of them never see TensorRT and have nothing to guard."""
    reader = Reader(SOURCES[name], HOUSE)
    found = [f"{name}, {finding}" for finding in reader.findings]
    trusted = [f"{name}, line {line}: {', '.join(names)}" for line, names in sorted(reader.remarks.items())]

    assert not found, "\n".join(["without a guard:", *found, "taken on trust (# api):", *trusted])
    assert not reader.stale, f"remarks that nothing needs, by line: {reader.stale}"


def test_tensorrt_stays_in_its_room() -> None:
    """The names of :data:`CLASS_OF` mean TensorRT's objects only where these are handled."""
    rooms = {PurePath(name).parts[0] for name, source in SOURCES.items() if handles_tensorrt(ast.parse(source))}

    assert "engines" in rooms
    assert rooms <= {"engines", "logs"}


MUST_BE_FLAGGED = {
    "enum member": "trt.BuilderFlag.FP16",
    "enum member of nowhere": "trt.BuilderFlag.FP61",
    "same name in another enum": "trt.BuilderFlag.INT8",
    "class of one flavour": "trt.CudaGraphStrategy",
    "later class": "trt.IProgressMonitor",
    "removed attribute": "config.max_workspace_size = 1",
    "removed method": "self._engine.get_binding_name(0)",
    "later method": "context.set_all_tensors_debug_state(True)",
    "not in 8.5": "engine.streamable_weights_size",
    "class told by the object": "network.get_flag(x)",
    "any object": "thing.get_binding_shape(0)",
    "getattr": "getattr(engine, 'device_memory_size')",
    "setattr": "setattr(config, 'int8_calibrator', None)",
    "other member": "if hasattr(engine, 'device_memory_size'): engine.device_memory_size_v2",
    "other object": "if hasattr(parser, 'flags'): network.flags",
    "wrong branch": "if hasattr(config, 'int8_calibrator'): pass\nelse: config.int8_calibrator",
    "negated": "if not hasattr(config, 'int8_calibrator'): config.int8_calibrator",
    "before the guard": "config.int8_calibrator\nif hasattr(config, 'int8_calibrator'): pass",
    "after the guard": "if hasattr(config, 'int8_calibrator'): pass\nconfig.int8_calibrator",
    "or does not guard": "hasattr(config, 'int8_calibrator') or config.int8_calibrator",
    "one of two": "if a or hasattr(config, 'int8_calibrator'): config.int8_calibrator",
    "not both": "if not (a and hasattr(config, 'int8_calibrator')): pass\nelse:\n  pass\nconfig.int8_calibrator",
    "earlier operand": "config.int8_calibrator and hasattr(config, 'int8_calibrator')",
    "in the condition": "if config.int8_calibrator and a: pass",
    "no return": "def f(config):\n  if not hasattr(config, 'int8_calibrator'): a()\n  return config.int8_calibrator",
    "guard of another function": "def f(c):\n  assert hasattr(c, 'algorithm_selector')\ndef g(c): c.algorithm_selector",
    "name assigned twice": "def f(config):\n  k = hasattr(config, 'int8_calibrator')\n  k = True\n"
    "  if k: config.int8_calibrator",
    "argument": "def f(k, config):\n  if a: k = hasattr(config, 'int8_calibrator')\n  if k: config.int8_calibrator",
    "implied the wrong way": "if hasattr(engine, 'create_runtime_config'): config.create_runtime_cache()",
    "present everywhere": "if hasattr(engine, 'num_layers'): config.create_runtime_cache()",
    "other error": "try: config.int8_calibrator\nexcept RuntimeError: pass",
    "in the handler": "try: pass\nexcept AttributeError: config.int8_calibrator",
    "other suppression": "with suppress(OSError): config.int8_calibrator",
    "lambda": "f = lambda config: config.int8_calibrator",
    "default value": "def f(x=trt.BuilderFlag.FP16): pass",
    "decorator": "@trt.IAlgorithmSelector\ndef f(): pass",
    "base class": "class A(trt.IProgressMonitor): pass",
    "remark for another member": "config.int8_calibrator  # api: tiling_optimization_level",
    "remark elsewhere": "# api: int8_calibrator\nconfig.int8_calibrator",
    "in a match": "match a:\n  case 1: config.int8_calibrator",
    "number to an enum": "trt.BuilderFlag(3)",
    "number to a method": "config.set_flag(3)",
    "number as an attribute": "config.profiling_verbosity = 2",
    "comparison with a number": "int(trt.BuilderFlag.TF32) == 7",
    "value compared": "if trt.DataType.FLOAT.value == 0: pass",
}
MUST_PASS = {
    "core": "engine.num_io_tensors\ncontext.execute_async_v3(0)\ntrt.BuilderFlag.TF32\ntrt.ILogger.__init__(self)",
    "not TensorRT's": "thing.whatever\n{}.update()\n[].append(1)",
    "common name": "thing.read()\nthing.update({})",
    "branch": "if hasattr(config, 'int8_calibrator'): config.int8_calibrator = None",
    "elif": "if a: pass\nelif hasattr(config, 'int8_calibrator'): config.int8_calibrator",
    "else": "if not hasattr(config, 'int8_calibrator'): pass\nelse: config.int8_calibrator",
    "and": "hasattr(config, 'int8_calibrator') and config.int8_calibrator",
    "nested and": "if a and (b and hasattr(config, 'int8_calibrator')): config.int8_calibrator",
    "or of the negation": "not hasattr(config, 'int8_calibrator') or config.int8_calibrator",
    "conditional expression": "x = config.int8_calibrator if hasattr(config, 'int8_calibrator') else None",
    "early return": "def f(self):\n  if not hasattr(self.e, 'device_memory_size'): return 0\n"
    "  return self.e.device_memory_size",
    "early raise": "if not hasattr(trt.BuilderFlag, 'FP16'): raise E\ntrt.BuilderFlag.FP16",
    "continue": "for c in d:\n  if a or not hasattr(c, 'int8_calibrator'): continue\n  c.int8_calibrator",
    "return in the else": "def f(c):\n  if hasattr(c, 'int8_calibrator'): pass\n  else: return\n  c.int8_calibrator",
    "assert": "assert hasattr(config, 'int8_calibrator')\nconfig.int8_calibrator",
    "comprehension": "[c.int8_calibrator for c in d if hasattr(c, 'int8_calibrator')]",
    "local name": "def f(trt):\n  fp16 = hasattr(trt.BuilderFlag, 'FP16')\n  if fp16: return trt.BuilderFlag.FP16",
    "walrus": "if (k := hasattr(config, 'int8_calibrator')): config.int8_calibrator",
    "members": "if 'FP16' in trt.BuilderFlag.__members__: trt.BuilderFlag.FP16",
    "not in members": "if 'FP16' not in trt.BuilderFlag.__members__: raise E\ntrt.BuilderFlag.FP16",
    "default of getattr": "getattr(engine, 'device_memory_size', 0)",
    "attribute error": "try: config.int8_calibrator\nexcept (TypeError, AttributeError): pass",
    "suppressed": "with contextlib.suppress(AttributeError): config.int8_calibrator",
    "came together": "if hasattr(config, 'set_runtime_cache'): config.create_runtime_cache().deserialize(b'')",
    "inner function": "if hasattr(config, 'int8_calibrator'):\n  def f(): return config.int8_calibrator",
    "remark on the line": "config.int8_calibrator  # api: int8_calibrator",
    "remark on the function": "def f(config):  # api: int8_calibrator\n  return config.int8_calibrator",
    "remark on the class": "class A:  # api: set_runtime_cache\n  def f(self): self.config.create_runtime_cache()",
    "override": "class A(trt.IOutputAllocator):\n  def reallocate_output(self): pass\n"
    "  def g(self): self.reallocate_output()",
    "mask of names": "builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag[name]))",
    "no flags": "builder.create_network(0)",
    "member's name": "trt.DataType.FLOAT.name == 'FLOAT'",
    "class of an object": "config.flags\nconfig.get_flag(trt.BuilderFlag.TF32)",
}


@pytest.mark.parametrize("case", sorted(MUST_BE_FLAGGED))
def test_is_flagged(case: str) -> None:
    reader = Reader("trt = None\n" + MUST_BE_FLAGGED[case])

    assert reader.findings


@pytest.mark.parametrize("case", sorted(MUST_PASS))
def test_passes(case: str) -> None:
    reader = Reader("trt = None\n" + MUST_PASS[case])

    assert [str(finding) for finding in reader.findings] == []
    assert reader.stale == {}


def test_a_finding_says_where_and_why() -> None:
    (finding,) = Reader("import tensorrt as trt\n\nconfig.set_flag(trt.BuilderFlag.FP16)").findings

    assert str(finding) == "line 3: trt.BuilderFlag.FP16 (BuilderFlag not in 11.0, 11.1, rtx 1.5, ...)"


def test_a_remark_that_nothing_needs_is_told() -> None:
    assert Reader("engine.num_layers  # api: num_layers").stale == {1: ("num_layers",)}


def test_members_of_the_house_are_not_tensorrts() -> None:
    source = "class Layer:\n  precision: str\nclass P(trt.IProfiler):\n  def tactic(self): pass\n"
    house = members_of_house([ast.parse(source)])

    assert house == {"precision"}
    assert not Reader("layer.precision", house).findings
    assert Reader("layer.tactic", house).findings
    assert Reader("trt = None\nengine.device_memory_size", frozenset({"device_memory_size"})).findings


def test_the_list_is_a_list() -> None:
    for members in (API["everywhere"], *API["elsewhere"].values()):
        assert all(found == sorted(set(found)) for found in members.values())
    assert all(releases for found in MEMBERS.values() for releases in found.values())
    assert not ENUMS - set(MEMBERS)
    assert releases_of("11.0..11.1, rtx 1.7") == {"11.0", "11.1", "rtx 1.7"}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_list_against_what_is_installed(flavour: str) -> None:
    """An installed TensorRT, also one newer than the list, has what the list says is everywhere."""
    if not is_installed(flavour):
        pytest.skip(f"{flavour} is not installed")
    trt = quiet_import(flavour)
    lacking = {
        f"{owner}.{member}"
        for owner, found in API["everywhere"].items()
        for member in found
        if not hasattr(trt if owner == "module" else getattr(trt, owner), member)
    }
    assert lacking == set()

    release = ".".join(str(trt.__version__).split(".")[:2])
    release = f"rtx {release}" if flavour == "tensorrt_rtx" else release
    if release not in RELEASES:
        pytest.skip(f"{flavour} {release} is newer than the list")
    wrong = {
        f"{owner}.{member}"
        for owner, found in MEMBERS.items()
        if owner == "module" or hasattr(trt, owner)
        for member, releases in found.items()
        if hasattr(trt if owner == "module" else getattr(trt, owner), member) is not (release in releases)
    }
    assert wrong == set()
