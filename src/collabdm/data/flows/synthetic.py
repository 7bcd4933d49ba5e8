"""Synthetic flows in the columns of 5G-NIDD's table, to try programs without data. Nothing is learned from them.

Every class has its own protocol, states and ranges of duration, packets and packet size; a value is log-uniform in
its range, and what argus derives (bytes, loads, rates) is derived from them. Rows come in sessions of one class,
so consecutive rows mostly agree, as in a capture.

Reference: S. Samarakoon et al., "5G-NIDD: a comprehensive network intrusion detection dataset generated over
5G wireless network", 2022 (the columns).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.errors import DataError
from collabdm.seeds import Purpose, Stream

#: flows of each label in the full table, 1,215,890 in all
PUBLISHED_COUNTS = {
    "Benign": 477_737, "UDPFlood": 457_340, "HTTPFlood": 140_812, "SlowrateDoS": 73_124, "TCPConnectScan": 20_052,
    "SYNScan": 20_043, "UDPScan": 15_906, "SYNFlood": 9_721, "ICMPFlood": 1_155,
}  # fmt: skip


SESSION_ROWS = 400  # about


@dataclass(frozen=True)
class Profile:
    """The traffic of a class: protocol, states, and (low, high) of seconds, packets, their bytes, answered share."""

    proto: str
    states: tuple[str, ...]
    seconds: tuple[float, float]
    packets: tuple[float, float]
    size: tuple[float, float]
    answered: tuple[float, float]


PROFILES = {
    "Benign": Profile("udp", ("CON", "INT", "REQ"), (1e-3, 5.0), (1.0, 400.0), (60.0, 1400.0), (0.2, 1.5)),
    "UDPFlood": Profile("udp", ("REQ", "INT"), (1e-6, 5.0), (1.0, 4.0), (42.0, 44.0), (0.01, 0.02)),
    "HTTPFlood": Profile("tcp", ("RST", "FIN", "CON"), (0.02, 5.0), (4.0, 20.0), (60.0, 700.0), (0.5, 1.2)),
    "SlowrateDoS": Profile("tcp", ("CON", "ACC", "REQ"), (1.0, 5.0), (2.0, 12.0), (60.0, 200.0), (0.3, 0.9)),
    "TCPConnectScan": Profile("tcp", ("RST",), (1e-5, 1e-2), (2.0, 3.0), (54.0, 75.0), (0.4, 0.6)),
    "SYNScan": Profile("tcp", ("RST", "REQ"), (1e-5, 1e-2), (1.0, 2.0), (54.0, 60.0), (0.4, 0.6)),
    "UDPScan": Profile("udp", ("INT", "URP"), (1e-6, 1e-4), (1.0, 2.0), (42.0, 70.0), (0.01, 0.5)),
    "SYNFlood": Profile("tcp", ("REQ", "ACC"), (1e-4, 5.0), (1.0, 6.0), (54.0, 60.0), (0.1, 0.9)),
    "ICMPFlood": Profile("icmp", ("ECO",), (0.5, 5.0), (100.0, 900.0), (42.0, 98.0), (0.8, 1.0)),
}


NAMES = (
    *("", "Seq", "Dur", "RunTime", "Mean", "Sum", "Min", "Max", "Proto", "sTos", "dTos", "sDSb", "dDSb"),
    *("sTtl", "dTtl", "sHops", "dHops", "Cause", "TotPkts", "SrcPkts", "DstPkts", "TotBytes", "SrcBytes"),
    *("DstBytes", "Offset", "sMeanPktSz", "dMeanPktSz", "Load", "SrcLoad", "DstLoad", "Loss", "SrcLoss"),
    *("DstLoss", "pLoss", "SrcGap", "DstGap", "Rate", "SrcRate", "DstRate", "State", "SrcWin", "DstWin"),
    *("sVid", "dVid", "SrcTCPBase", "DstTCPBase", "TcpRtt", "SynAck", "AckDat", "Label", "Attack Type"),
    "Attack Tool",
)


def write_synthetic(path: Path, counts: Mapping[str, int], seed: int = 0) -> None:
    """A CSV table with so many rows of each label. The same arguments give the same bytes on one machine."""
    import pyarrow as pa
    import pyarrow.csv as pc

    if unknown := sorted(set(counts) - set(PROFILES)) or not sum(counts.values()):
        raise DataError(f"`counts` should be of {', '.join(PROFILES)}, not all 0; found {unknown or dict(counts)}")
    labels = np.array(list(counts))[sessions(list(counts.values()), Stream.of(seed, Purpose.DATA))]
    values: dict[str, Any] = {}
    for name in counts:
        rows = np.flatnonzero(labels == name)
        for column, part in rows_of(
            name, len(rows), Stream.of(seed, Purpose.DATA, 1 + list(PROFILES).index(name))
        ).items():
            values.setdefault(column, np.empty(len(labels), dtype=object if part.dtype.kind in "UO" else np.float64))
            values[column][rows] = part
    values[""] = values["Seq"] = np.arange(len(labels), dtype=np.int64)
    values["Offset"] = np.cumsum(values["TotBytes"])
    values["Attack Type"] = labels.astype(object)
    missing = {name: pa.nulls(len(labels), pa.string()) for name in NAMES if name not in values}
    table = pa.table(
        [pa.array(values[name], from_pandas=True) if name in values else missing[name] for name in NAMES], NAMES
    )
    atomic_write_with(path, lambda file: pc.write_csv(table, file))


def sessions(counts: list[int], stream: Stream) -> np.ndarray:
    """Class numbers of rows in order: every class in runs, the runs of all classes mixed."""
    runs = [(y, part) for y, n in enumerate(counts) if n for part in _even_parts(n, max(1, round(n / SESSION_ROWS)))]
    order = stream.permutation(len(runs)).tolist()
    return np.concatenate([np.full(runs[i][1], runs[i][0]) for i in order])


def _even_parts(n: int, parts: int) -> list[int]:
    return [n // parts + (i < n % parts) for i in range(parts)]


def rows_of(label: str, n: int, stream: Stream) -> dict[str, np.ndarray]:
    """n rows of a class, by column."""
    profile = PROFILES[label]
    draws = stream.uniforms(7, n).double().numpy()
    seconds = _between(draws[0], profile.seconds)
    source = np.rint(_between(draws[1], profile.packets))
    answered = np.rint(source * _between(draws[2], profile.answered))
    size = np.rint(_between(draws[3], profile.size))
    sent, got = source * size, answered * np.rint(size * (0.5 + draws[4]))
    tcp = profile.proto == "tcp"
    handshake = np.where(answered > 0, 1e-3 + 0.05 * draws[5], 0.0) if tcp else np.zeros(n)
    per_second = np.where(source + answered > 1, 1 / seconds, 0.0)
    none = np.full(n, np.nan)
    values = dict.fromkeys(("Dur", "RunTime", "Mean", "Sum", "Min", "Max"), seconds)
    values |= {"TotPkts": source + answered, "SrcPkts": source, "DstPkts": answered}
    values |= {"TotBytes": sent + got, "SrcBytes": sent, "DstBytes": got, "sMeanPktSz": size}
    values |= {"dMeanPktSz": got / np.maximum(answered, 1), "sTtl": np.full(n, 63.0), "sHops": np.ones(n)}
    values |= {"dTtl": np.where(answered > 0, 59.0, np.nan), "dHops": np.where(answered > 0, 5.0, np.nan)}
    values |= {"sTos": np.zeros(n), "dTos": np.where(answered > 0, 0.0, np.nan), "sVid": none, "dVid": none}
    values |= {"Load": 8 * (sent + got) * per_second, "SrcLoad": 8 * sent * per_second, "DstLoad": 8 * got * per_second}
    values |= {
        "Rate": (source + answered) * per_second,
        "SrcRate": source * per_second,
        "DstRate": answered * per_second,
    }
    values |= {name: np.zeros(n) for name in ("Loss", "SrcLoss", "DstLoss", "pLoss")}
    values |= {name: np.zeros(n) if tcp else none for name in ("SrcGap", "DstGap")}
    values |= {"SrcWin": np.full(n, 64256.0) if tcp else none, "DstWin": np.full(n, 65024.0) if tcp else none}
    values |= {name: np.floor(draws[i] * 2**32) if tcp else none for i, name in ((5, "SrcTCPBase"), (6, "DstTCPBase"))}
    values |= {"TcpRtt": handshake, "SynAck": 0.6 * handshake, "AckDat": 0.4 * handshake}
    texts = {"Proto": profile.proto, "sDSb": "cs0", "Label": "Benign" if label == "Benign" else "Malicious"}
    values |= {name: np.full(n, text, dtype=object) for name, text in texts.items()}
    values["dDSb"] = np.where(answered > 0, "cs0", "?").astype(object)
    values["Cause"] = np.where(draws[6] < 0.4, "Start", "Status").astype(object)
    values["State"] = np.array(profile.states, dtype=object)[(draws[4] * len(profile.states)).astype(int)]
    return values


def _between(shares: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Log-uniform values."""
    low, high = np.log(bounds)
    return np.exp(low + shares * (high - low))
