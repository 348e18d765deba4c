"""What a log tells about people, machines and secrets, taken out before it is written or printed.

A placeholder has the shape of what it stands for, so that a redacted log says the same to a reader. What only might be
a name or an address stays: the four numbers of ``10.13.3.9`` are a version of TensorRT unless something beside them
says address, and a user called ``max`` is only looked for in paths.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_trtgray.findings import Finding
from pytest_trtgray.logs.records import Record

REDACTED = "REDACTED"
USER, HOST, MAIL, IPV4, IPV6, MAC = (
    "user",
    "host",
    "user@example.com",
    "192.0.2.1",  # RFC 5737: for documentation
    "2001:db8::1",  # RFC 3849
    "00:00:00:00:00:00",
)
_SHARED_NAMES = frozenset(("root", "user", "admin", "runner", "ubuntu", "nobody", "daemon", "build", "ci", "test"))
"""Accounts that say nothing of a person."""
_LARGEST_MAJOR_VERSION = 19
"""Of anything in a log that has versions of four numbers (TensorRT, cuBLAS, cuDNN); an address may begin with more."""

_Rule = tuple["str | re.Pattern[str]", re.Pattern[str], "str | Callable[[re.Match[str]], str]"]
"""A sign without which the pattern cannot match the text, sought in lower case and quicker to find; the pattern; and
what stands in the place of what it matches."""

_SECRET_NAME = r"(?<![A-Za-z0-9])(?:password|passwd|passphrase|pwd|secret|(?:api|access|secret|private)[_-]?key)"
_TOKEN_NAME = r"(?<![A-Za-z0-9])(?:token|credentials?)"
_ASSIGNED = r"[\"']?\s*[=:]\s*[\"']?"


# what an address has: both begin with a fixed character, which is found fast
_NUMBERS = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d")
_COLONS = re.compile(r":[0-9a-f]{1,4}:[0-9a-f]{1,4}:[0-9a-f]{1,4}:")


def _with_any(signs: str, pattern: re.Pattern[str], placeholder: str) -> tuple[_Rule, ...]:
    return tuple((sign, pattern, placeholder) for sign in signs.split())


_SECRETS: tuple[_Rule, ...] = (
    (
        "private key",
        re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END|\Z)", re.DOTALL),
        rf"\1{REDACTED}\2",
    ),
    *_with_any("akia asia aroa aida", re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b"), REDACTED),  # AWS
    ("aiza", re.compile(r"\bAIza[\w-]{35}(?![\w-])"), REDACTED),  # Google
    ("gh", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}"), REDACTED),
    ("github_pat_", re.compile(r"\bgithub_pat_\w{20,}"), REDACTED),
    ("glpat-", re.compile(r"\bglpat-[\w-]{20,}"), REDACTED),
    ("hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,}"), REDACTED),
    ("nvapi-", re.compile(r"\bnvapi-[\w-]{20,}"), REDACTED),
    ("xox", re.compile(r"\bxox[abeoprs]-[\w-]{10,}"), REDACTED),  # Slack
    ("sk-", re.compile(r"\bsk-[\w-]{20,}"), REDACTED),
    ("pypi-", re.compile(r"\bpypi-[\w-]{16,}"), REDACTED),
    ("eyj", re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), REDACTED),  # JSON Web Token
    ("earer", re.compile(r"\b([Bb]earer)\s+[\w.~+/-]{12,}=*"), rf"\1 {REDACTED}"),
    ("uthorization", re.compile(rf"\b([Aa]uthorization{_ASSIGNED}(?:\w+ )?)[^\s\"']{{6,}}"), rf"\1{REDACTED}"),
    ("://", re.compile(r"(://)[^/\s:@]*:[^/\s@]+@"), rf"\1{USER}:{REDACTED}@"),
    *_with_any(
        "pass pwd secret key",
        re.compile(rf"(?i)({_SECRET_NAME}{_ASSIGNED})[^\s\"',;&)\]}}]{{4,}}"),
        rf"\1{REDACTED}",
    ),
    # a tensor may well be called cls_token, and its shape or type follow: a secret has letters and digits
    *_with_any(
        "token credential",
        re.compile(rf"(?i)({_TOKEN_NAME}{_ASSIGNED})(?=[\w+/.-]*\d)(?=[\w+/.-]*[A-Za-z])[\w+/.-]{{16,}}=*"),
        rf"\1{REDACTED}",
    ),
)
_PEOPLE: tuple[_Rule, ...] = (
    (
        "@",
        re.compile(rf"(?<![\w.+-])(?!{REDACTED}@)[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{{2,}}\b"),
        MAIL,
    ),
    ("/home/", re.compile(r"(/home/)[^/\s:\"'`,;()\[\]]+"), rf"\1{USER}"),
    ("/users/", re.compile(r"(/Users/)[^/\s:\"'`,;()\[\]]+"), rf"\1{USER}"),
    ("users", re.compile(r"(\b[A-Za-z]:[\\/]+Users[\\/]+)[^\\/\n\"']+(?=[\\/])"), rf"\1{USER}"),
    ("pytest-of-", re.compile(r"(pytest-of-)[^/\s\"']+"), rf"\1{USER}"),
)
_SUFFIXES = r"local|localdomain|internal|corp|lan|intra|intranet|home\.arpa"
_MACHINES: tuple[_Rule, ...] = (
    ("ip-", re.compile(r"\bip-\d{1,3}(?:-\d{1,3}){3}\b(?:\.[\w.-]*internal)?"), HOST),  # Amazon's names
    (
        "://",
        re.compile(
            rf"(://(?:[^/\s@]*@)?)(?![^/\s@]*@|localhost\b|\[|\d+\.\d)(?:[\w-]+|[\w.-]+\.(?:{_SUFFIXES}))(?=[:/\s\"']|$)"
        ),
        rf"\1{HOST}",
    ),
    (_COLONS, re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:])"), MAC),
    (_NUMBERS, re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w)"), lambda match: _ipv4(match)),
    ("::", re.compile(r"(?<![\w:.])[0-9A-Fa-f:]+::?[0-9A-Fa-f:]+(?![\w:.])"), lambda match: _ipv6(match)),
    (_COLONS, re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:.])"), lambda match: _ipv6(match)),
)
_VERSION_BEFORE = re.compile(r"(?:version|driver)[\s:=(]*$", re.IGNORECASE)
_ADDRESS_BEFORE = re.compile(
    r"(?:connect\w*|listen\w*|bind\w*|bound|request|address|\baddr|host(?:name)?|server|peer|client|remote|endpoint"
    r"|gateway|proxy|\bip|inet\w*|ping|ssh)(?:\s+(?:to|from|on|at|for|is))?[\s:=(\"'\[]*$|://$|@$",
    re.IGNORECASE,
)
_ADDRESS_AFTER = re.compile(r":\d{2,5}\b|/\d{1,2}\b")
_PATH = re.compile(
    r"(?<![\w.\]-])/(?:data|dev/shm|export|fs|gpfs|lustre|media|mnt|nfs|opt|private|projects?|root|run|scratch|shared?"
    r"|srv|ssd|storage|tmp|usr|var|Volumes|work|workspace)/[^\s\"'<>|]+"
)


@dataclass(frozen=True)
class Redactor:
    """Takes private things out of texts.

    Always: home folders, mail addresses, IP and MAC addresses, tokens and ``key=value`` secrets. And what this names:

    Args:
        user: an account; replaced in paths and after words such as ``user``.
        home: its home folder.
        hosts: names of this machine; one that is a common word only where something says host.
        patterns: regular expressions; what they match becomes ``REDACTED``, of one with groups only the groups.
        enabled: ``False`` leaves everything as it is.
    """

    user: str = ""
    home: str = ""
    hosts: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    enabled: bool = True
    _by_text: tuple[Any, ...] = field(init=False, repr=False, compare=False)
    _by_pattern: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        own = (*(("", re.compile(pattern), _only_groups) for pattern in self.patterns), *self._names())
        rules = (*own, *_SECRETS, *_PEOPLE, *_MACHINES) if self.enabled else ()
        object.__setattr__(self, "_by_text", tuple(rule for rule in rules if isinstance(rule[0], str)))
        object.__setattr__(self, "_by_pattern", tuple(rule for rule in rules if not isinstance(rule[0], str)))

    def __call__(self, text: str) -> str:
        """The text without what is private."""
        lowered = text.lower()
        # most texts have none of the signs: these loops are what redaction costs
        for sign, pattern, placeholder in self._by_text:
            if sign in lowered:
                text = pattern.sub(placeholder, text)
        for sign, pattern, placeholder in self._by_pattern:
            if sign.search(lowered):
                text = pattern.sub(placeholder, text)
        return text

    def record(self, record: Record) -> Record:
        """A message without what is private."""
        message = self(record.message)
        if message == record.message and not record.prefix and not record.details:
            return record
        return replace(record, message=message, prefix=self(record.prefix), details=self.data(dict(record.details)))

    def finding(self, finding: Finding) -> Finding:
        """A finding without what is private."""
        return replace(
            finding,
            where=self(finding.where),
            what=self(finding.what),
            remedy=self(finding.remedy),
            evidence=self.data(dict(finding.evidence)),
        )

    def data(self, data: Any) -> Any:
        """The same with every text in it, as for JSON; keys are ours and stay."""
        if isinstance(data, str):
            return self(data)
        if isinstance(data, dict):
            return {key: self.data(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return type(data)(self.data(value) for value in data)
        return data

    def _names(self) -> Iterator[_Rule]:
        """Rules for the names of this machine and its user."""
        if self.home.count("/") > 1:
            yield self.home.lower(), re.compile(rf"{re.escape(self.home)}(?![\w.-])"), f"/home/{USER}"
        if len(self.user) > 1 and self.user not in _SHARED_NAMES:
            account = self.user.lower()
            name = re.compile(rf"(?<![A-Za-z0-9]){re.escape(self.user)}(?![A-Za-z0-9])")
            yield account, _PATH, lambda match: name.sub(USER, match[0])
            said = rf"(\b(?i:user(?:name)?|login|owner)[=:\s]\s*[\"']?){re.escape(self.user)}(?![\w-])"
            yield account, re.compile(said), rf"\1{USER}"
            yield f"{account}@", re.compile(rf"(?<![\w.-]){re.escape(self.user)}@"), f"{USER}@"
        for host in self.hosts:
            if len(host) < 2 or host.startswith("localhost"):
                continue
            # a machine called "gpu" or "node" is a word of the log as well
            is_common = not re.search(r"[\d.-]", host)
            before = r"(\b(?i:host(?:name)?|machine|server)[=:\s]\s*[\"']?|@|//)" if is_common else r"((?<![\w.-]))"
            yield host.lower(), re.compile(rf"{before}{re.escape(host)}(?:\.[\w-]+)*(?![\w-])"), rf"\1{HOST}"


def redactor_of_this_machine(patterns: tuple[str, ...] = ()) -> Redactor:
    """One that knows the user and the names of this machine, and replaces ``patterns`` besides."""
    names = _names_of_this_machine()
    return replace(names, patterns=patterns)


@functools.lru_cache(maxsize=1)
def _names_of_this_machine() -> Redactor:
    user = home = host = ""
    with contextlib.suppress(Exception):  # a container may run as a number that no account has
        user = getpass.getuser()
    with contextlib.suppress(Exception):
        home = os.path.expanduser("~")  # noqa: PTH111 - a text to look for, not a path
    with contextlib.suppress(OSError):
        host = socket.gethostname()
    short = host.partition(".")[0]
    return Redactor(user=user, home=home, hosts=tuple(dict.fromkeys(name for name in (host, short) if name)))


_in_use: list[Redactor] = []


def current() -> Redactor:
    """The redactor of this run; outside of one, that of this machine."""
    return _in_use[-1] if _in_use else redactor_of_this_machine()


@contextlib.contextmanager
def using(redactor: Redactor) -> Iterator[None]:
    """Make ``redactor`` the one of this run."""
    _in_use.append(redactor)
    try:
        yield
    finally:
        _in_use.remove(redactor)


def _only_groups(match: re.Match[str]) -> str:
    """``REDACTED`` in the place of a pattern's groups, or of all that it matches if it has none."""
    text, start = match[0], match.start()
    spans = sorted({match.span(group) for group in range(1, (match.re.groups or 0) + 1)} - {(-1, -1)}, reverse=True)
    if not match.re.groups:
        return REDACTED
    for first, last in spans:
        text = text[: first - start] + REDACTED + text[last - start :]
    return text


def _ipv4(match: re.Match[str]) -> str:
    numbers = [int(number) for number in match[0].split(".")]
    text, (start, end) = match.string, match.span()
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:  # a part beyond 255, or with a leading zero
        return match[0]
    if numbers[0] in (0, 127, 255):
        return match[0]
    before = text[max(0, start - 40) : start]
    if _ADDRESS_BEFORE.search(before) or _ADDRESS_AFTER.match(text, end):
        return IPV4
    if numbers[0] <= _LARGEST_MAJOR_VERSION:
        return match[0]
    is_version = _VERSION_BEFORE.search(before) and not address.is_private
    return match[0] if is_version else IPV4


def _ipv6(match: re.Match[str]) -> str:
    """C++'s ``a::b`` and a ratio may be hexadecimal digits; an address is longer, or local by its first group."""
    groups = [group for group in match[0].split(":") if group]
    if max(map(len, groups), default=0) < 3:
        return match[0]
    try:
        ipaddress.IPv6Address(match[0])
    except ValueError:
        return match[0]
    is_local = groups[:1] and groups[0].lower()[:2] in ("fe", "fd") and len(groups[0]) == 4
    return IPV6 if len(groups) >= 3 or is_local else match[0]
