"""Find the columns that give the label away without showing what traffic looks like.

A column is marked, in this order, if

address         at least 9 in 10 of its texts are IP or MAC addresses, or its name is that of one
identifier      its name is that of a flow's or a station's, or its texts are (nearly) all different
start time      its name is that of a time, it contains times, or its numbers are seconds (or
                milli-, micro- or nanoseconds) since 1970 between 2001 and 2033
running number  its name is that of one; its numbers never decrease and mostly increase; within
                classes, most are new and near the one before; or they number all rows
second label    its name is that of a label and it predicts the label better than chance; or it has
                a single value in each class, not the same in all; or it has few values, of which
                each occurs in a single class
port            its name is that of a source port, which a host draws anew for each connection; or
                each of its values occurs at one host of several, in 9 of 10 rows

The rules about a single value do not apply to the names of known properties of traffic (protocol,
service, state, flags, ports, lifetimes): these may predict the label, and are a reason to look at
the capture. Neither does a high score of a number with many values mark it: a person decides.
"""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from collabdm.data.flows.profile import MOST_VALUES, Profile

_SIDES = r"(src|dst|source|destination|orig|resp|client|server|dest|s|d)"

ADDRESS = re.compile(
    r"^((\d{1,3}\.){3}\d{1,3}(/\d{1,2}|:\d{1,5})?"
    r"|([0-9a-f]{2}[:-]){5}[0-9a-f]{2}"
    r"|(?=[0-9a-f:.%]*:[0-9a-f:.%]*:)[0-9a-f:.]+(%\w+)?)$",
    re.I,
)
ADDRESS_NAME = re.compile(
    rf"^{_SIDES}[ ._]?(ip|mac|addr|address|ip[ ._]?addr(ess)?|mac[ ._]?addr(ess)?|host|h)$"
    rf"|^(ip|mac|ipv[46])[ ._]{_SIDES}([ ._]addr(ess)?)?$|(^|[ ._])ip[ ._]?addr(ess)?$"
    r"|^id\.(orig|resp)_h$|^(ipv[46]|l3)_(src|dst)_addr$",
    re.I,
)
IDENTIFIER_NAME = re.compile(
    r"^(flow|session|connection|conn|community|event|record|packet|pkt)[ ._]?(id|key|hash)$|^uid$"
    r"|^uuid$|^(base)?[ ._]?station([ ._]?(id|name))?$"
    r"|^(site|cell|sensor|probe|node)[ ._]?(id|name)?$|^host[ ._]?name$|teid$|^[sd]vid$",
    re.I,
)
TIME_NAME = re.compile(
    r"^(ts|time|timestamp|date|datetime|epoch)$|time[ ._]?stamp|date[ ._]?time"
    r"|^(frame|flow|tcp)?[ ._]?time[ ._](relative|epoch)$|time_relative$"
    r"|^(flow|session|conn)?[ ._]?(start|end|first|last)[ ._]?(time|date|seen|switched|ts)$"
    r"|^(date|time)[ ._](first|last)[ ._]seen$|^[sl]time$|^(flow|event)[ ._]?(start|end)",
    re.I,
)
RUNNING_NAME = re.compile(
    r"^$|^(id|no|nr|num|seq|offset|row|index|rownum|#)\.?$|^unnamed|^row([ ._]|$)|^level_0$"
    r"|base$|tcpb$|^(tcp)[ ._]stream$|[ ._]stream$|_raw$|^frame[ ._]number$|^record[ ._]?number$",
    re.I,
)
LABEL_NAME = re.compile(
    r"^(label|labels|class|classes|category|sub[ ._]?category|target|type|verdict|malicious"
    r"|benign|y|outcome|threat|activity|scenario|traffic[ ._]?(type|category|class)"
    r"|is[ ._]?(attack|malicious|anomaly|bad|benign)|anomaly|intrusion)$"
    r"|attack|(^|[ ._-])label($|[ ._-])|malware|ground[ ._]?truth",
    re.I,
)
TRAFFIC_NAME = re.compile(
    r"proto|service|state|flag|port|ttl|tos|dscp|dsb|cause|history|version|method|agent"
    r"|[._ ]type|[._ ]code|^(ip|tcp|udp|gtp|eth|sctp|pfcp|nas|ngap)[._]|cipher|query|length|size"
    r"|bytes|pkts|packets|win|count|ct_|ftp|http|dns|ssl|tls|icmp|arp|mqtt",
    re.I,
)
PORT_NAME = re.compile(rf"^{_SIDES}[ ._]?port$|^id\.(orig|resp)_p$|^l4_(src|dst)_port$", re.I)
SOURCE_PORT = re.compile(r"^(src|source|orig|client|s)[ ._]?port$|^id\.orig_p$|^l4_src_port$", re.I)

SURE = 0.999  # the share of rows in a rule about single values
LEAST_OF_CLASS = 5  # rows of a class that such a rule needs
EPOCHS = tuple((1e9 * unit, 2e9 * unit) for unit in (1, 1e3, 1e6, 1e9))
ABOVE_CHANCE = 1.2
MOSTLY_NEW, NEAR = 0.8, 0.05  # the share of distinct values, the step in rank
LEAST_IN_ORDER = 50  # rows of a class
ONE_HOST = 0.9  # the share of rows of a port whose value occurs at one host


@dataclass(frozen=True)
class Evidence:
    """What is known about a column: its profile, codes, score, and the chance of that score."""

    profile: Profile
    codes: Int64[np.ndarray, " n"]
    score: float
    chance: float


def reason_to_leave_out(found: Evidence, classes: Int64[np.ndarray, " n"]) -> str | None:
    """Return why a column gives the label away, by itself; None if no rule marks it."""
    column = found.profile

    if _is_address(column):
        return "addresses"
    if IDENTIFIER_NAME.search(column.name) or _all_differ(found):
        return "identifies a flow or a place"
    if _is_time(column):
        return "a time"
    if RUNNING_NAME.search(column.name) or _runs(found, classes):
        return "a running number"
    if LABEL_NAME.search(column.name) and found.score > ABOVE_CHANCE * found.chance:
        return "a second label, by its name"
    if (LABEL_NAME.search(column.name) or not TRAFFIC_NAME.search(column.name)) and (
        _is_of_class(found.codes, classes) or _determines(found, classes)
    ):
        return "a second label: its values belong to classes"
    if SOURCE_PORT.search(column.name):
        return "a port that a host draws for each connection"
    return None


def is_address(found: Evidence) -> bool:
    """Return whether a column contains addresses."""
    return _is_address(found.profile)


def identifies_a_host(
    port: Evidence, addresses: list[Evidence], classes: Int64[np.ndarray, " n"]
) -> bool:
    """Return whether each value of a port occurs at one host, in a table of several hosts."""
    if not PORT_NAME.search(port.profile.name):
        return False

    for host in addresses:
        if not _same_side(port.profile.name, host.profile.name):
            continue
        there = (port.codes >= 0) & (host.codes >= 0)
        values, hosts = port.codes[there], host.codes[there]
        several_ports = len(np.unique(values)) > 1
        if several_ports and len(np.unique(hosts)) > 1 and _purity(values, hosts) >= ONE_HOST:
            return True
    return False


def _same_side(port: str, host: str) -> bool:
    return port[:1].lower() == host[:1].lower() and ("orig" in port) == ("orig" in host)


def _purity(values: Int64[np.ndarray, " n"], targets: Int64[np.ndarray, " n"]) -> float:
    """Return the share of rows whose target is the most frequent one of their value."""
    if not len(values):
        return 0.0
    pairs, counts = np.unique(np.stack([values, targets]), axis=1, return_counts=True)
    most: dict[int, int] = {}
    for value, count in zip(pairs[0].tolist(), counts.tolist(), strict=True):
        most[value] = max(most.get(value, 0), count)
    return sum(most.values()) / len(values)


def _is_address(column: Profile) -> bool:
    values = [value for value in column.values if value.lower() not in ("-", "?", "0")]
    matches = sum(ADDRESS.match(value) is not None for value in values)
    by_value = not column.is_number and len(values) > 0 and matches >= 0.9 * len(values)
    return by_value or ADDRESS_NAME.search(column.name) is not None


def _all_differ(found: Evidence) -> bool:
    """Return whether a column of texts has a new one in nearly every row."""
    column, there = found.profile, found.codes[found.codes >= 0]
    many = len(there) > MOST_VALUES and not column.is_number and not column.is_time
    return many and len(np.unique(there)) >= 0.95 * len(there)


def _is_time(column: Profile) -> bool:
    if column.is_time or TIME_NAME.search(column.name):
        return True
    if column.is_number:
        spread = column.low < column.high
        return spread and any(low <= column.low and column.high <= high for low, high in EPOCHS)

    clocks = sum(re.search(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[ T]\d|\d:\d\d:\d\d", v) is not None
                 for v in column.values)  # fmt: skip
    return len(column.values) > 0 and clocks >= 0.9 * len(column.values)


def _runs(found: Evidence, classes: Int64[np.ndarray, " n"]) -> bool:
    """Return whether the numbers of a column count up."""
    column = found.profile
    if not column.is_number:
        return False

    values = column.numbers
    values = values[np.isfinite(values)]
    steps = np.diff(values)
    if len(steps) < 8:
        return False
    if (steps >= 0).all() and (steps > 0).mean() > 0.5:
        return True

    distinct = len(np.unique(values)) / len(values)
    numbers_rows = column.whole and column.high - column.low < 1.5 * column.rows
    if distinct >= SURE and numbers_rows and len(values) > MOST_VALUES:
        return True
    return distinct >= MOSTLY_NEW and _step(found.codes, classes) <= NEAR


def _step(codes: Int64[np.ndarray, " n"], classes: Int64[np.ndarray, " n"]) -> float:
    """Return the median step in rank between neighbouring rows of a class, as a share of its rows.

    It is 0.29 for values in no order.
    """
    total, rows = 0.0, 0
    for y in np.unique(classes[classes >= 0]):
        own = codes[(classes == y) & (codes >= 0)]
        if len(own) >= LEAST_IN_ORDER:
            ranks = np.unique(own, return_inverse=True)[1]
            total += float(np.median(np.abs(np.diff(ranks))))
            rows += len(own)
    return total / rows if rows else 1.0


def _is_of_class(codes: Int64[np.ndarray, " n"], classes: Int64[np.ndarray, " n"]) -> bool:
    """Return whether a column has one value in each class, but not the same in all classes."""
    most = []
    for y in np.unique(classes[classes >= 0]):
        values, counts = np.unique(codes[classes == y], return_counts=True)
        if counts.sum() < LEAST_OF_CLASS:
            continue
        if counts.max() < SURE * counts.sum():
            return False
        most.append(int(values[counts.argmax()]))
    return len(set(most)) > 1


def _determines(found: Evidence, classes: Int64[np.ndarray, " n"]) -> bool:
    """Return whether each of a column's few values occurs in one class only."""
    there = (found.codes >= 0) & (classes >= 0)
    codes, own = found.codes[there], classes[there]
    few = 1 < len(np.unique(codes)) <= min(MOST_VALUES, len(codes) // LEAST_OF_CLASS)
    if not few or len(codes) < 0.5 * len(found.codes) or len(np.unique(own)) < 2:
        return False
    return _purity(codes, own) >= SURE and found.score >= SURE * 0.98
