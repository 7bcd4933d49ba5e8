"""Write synthetic flows in the columns of 5G-NIDD, to try programs without real data.

The flows support no conclusions about real traffic. Every class has its own protocol, states and
ranges of duration, packets and packet size. Values are log-uniform in their ranges; the values that
argus derives (bytes, loads, rates) are derived from them. Rows come in sessions of one class, so
consecutive rows mostly have the same class, as in a capture.

Reference: S. Samarakoon et al., "5G-NIDD: a comprehensive network intrusion detection dataset
generated over 5G wireless network", 2022 (the columns).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.errors import DataError
from collabdm.seeds import Purpose, Stream

#: the number of flows of each label in the full table, 1,215,890 in all
PUBLISHED_COUNTS = {
    "Benign": 477_737,
    "UDPFlood": 457_340,
    "HTTPFlood": 140_812,
    "SlowrateDoS": 73_124,
    "TCPConnectScan": 20_052,
    "SYNScan": 20_043,
    "UDPScan": 15_906,
    "SYNFlood": 9_721,
    "ICMPFlood": 1_155,
}

SESSION_ROWS = 400  # approximate rows per session

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Profile:
    """The traffic of a class: protocol, states, and ranges (low, high).

    The ranges are of a flow's duration in seconds, its number of packets, the bytes of a packet,
    and the answers per packet.
    """

    proto: str
    states: tuple[str, ...]
    seconds: tuple[float, float]
    packets: tuple[float, float]
    size: tuple[float, float]
    answered: tuple[float, float]


PROFILES = {
    "Benign": Profile(
        "udp", ("CON", "INT", "REQ"), (1e-3, 5.0), (1.0, 400.0), (60.0, 1400.0), (0.2, 1.5)
    ),
    "UDPFlood": Profile("udp", ("REQ", "INT"), (1e-6, 5.0), (1.0, 4.0), (42.0, 44.0), (0.01, 0.02)),
    "HTTPFlood": Profile(
        "tcp", ("RST", "FIN", "CON"), (0.02, 5.0), (4.0, 20.0), (60.0, 700.0), (0.5, 1.2)
    ),
    "SlowrateDoS": Profile(
        "tcp", ("CON", "ACC", "REQ"), (1.0, 5.0), (2.0, 12.0), (60.0, 200.0), (0.3, 0.9)
    ),
    "TCPConnectScan": Profile("tcp", ("RST",), (1e-5, 1e-2), (2.0, 3.0), (54.0, 75.0), (0.4, 0.6)),
    "SYNScan": Profile("tcp", ("RST", "REQ"), (1e-5, 1e-2), (1.0, 2.0), (54.0, 60.0), (0.4, 0.6)),
    "UDPScan": Profile("udp", ("INT", "URP"), (1e-6, 1e-4), (1.0, 2.0), (42.0, 70.0), (0.01, 0.5)),
    "SYNFlood": Profile("tcp", ("REQ", "ACC"), (1e-4, 5.0), (1.0, 6.0), (54.0, 60.0), (0.1, 0.9)),
    "ICMPFlood": Profile("icmp", ("ECO",), (0.5, 5.0), (100.0, 900.0), (42.0, 98.0), (0.8, 1.0)),
}

NAMES = (
    *("", "Seq", "Dur", "RunTime", "Mean", "Sum", "Min", "Max", "Proto", "sTos", "dTos", "sDSb"),
    *("dDSb", "sTtl", "dTtl", "sHops", "dHops", "Cause", "TotPkts", "SrcPkts", "DstPkts"),
    *("TotBytes", "SrcBytes", "DstBytes", "Offset", "sMeanPktSz", "dMeanPktSz", "Load", "SrcLoad"),
    *("DstLoad", "Loss", "SrcLoss", "DstLoss", "pLoss", "SrcGap", "DstGap", "Rate", "SrcRate"),
    *("DstRate", "State", "SrcWin", "DstWin", "sVid", "dVid", "SrcTCPBase", "DstTCPBase"),
    *("TcpRtt", "SynAck", "AckDat", "Label", "Attack Type", "Attack Tool"),
)


def write_synthetic(path: Path, counts: Mapping[str, int], seed: int = 0) -> None:
    """Write a CSV table of synthetic flows. Equal arguments give equal bytes on the same machine.

    Args:
        path: The file to write.
        counts: The number of rows of each label.
        seed: The seed of all values.

    Raises:
        DataError: A label is unknown, or all counts are 0.
        OutputError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv as pc

    unknown = sorted(set(counts) - set(PROFILES))
    if unknown or not sum(counts.values()):
        raise DataError(
            f"`counts` should be among {', '.join(PROFILES)}, not all 0; "
            f"found {unknown or dict(counts)}"
        )

    columns = _columns(counts, seed)
    size = len(columns["Seq"])
    arrays = [
        pa.array(columns[name], from_pandas=True)
        if name in columns
        else pa.nulls(size, pa.string())
        for name in NAMES
    ]
    table = pa.table(arrays, NAMES)
    atomic_write_with(path, lambda file: pc.write_csv(table, file))


def _columns(counts: Mapping[str, int], seed: int) -> Columns:
    """Compute all rows, by column, with the sessions of all classes mixed."""
    order = sessions(list(counts.values()), Stream.of(seed, Purpose.DATA))
    labels = np.array(list(counts))[order]
    columns: dict[str, Any] = {}

    for name in counts:
        rows = np.flatnonzero(labels == name)
        stream = Stream.of(seed, Purpose.DATA, 1 + list(PROFILES).index(name))

        for column, values in rows_of(name, len(rows), stream).items():
            kind = object if values.dtype.kind in "UO" else np.float64
            columns.setdefault(column, np.empty(len(labels), dtype=kind))[rows] = values

    columns[""] = columns["Seq"] = np.arange(len(labels), dtype=np.int64)
    columns["Offset"] = np.cumsum(columns["TotBytes"])
    columns["Attack Type"] = labels.astype(object)
    return columns


def sessions(counts: list[int], stream: Stream) -> np.ndarray:
    """Draw the class number of each row, as shuffled sessions of one class each."""
    runs = [
        (y, size)
        for y, count in enumerate(counts)
        if count
        for size in _even_parts(count, max(1, round(count / SESSION_ROWS)))
    ]
    order = stream.permutation(len(runs)).tolist()
    return np.concatenate([np.full(runs[i][1], runs[i][0]) for i in order])


def _even_parts(n: int, parts: int) -> list[int]:
    return [n // parts + (i < n % parts) for i in range(parts)]


def rows_of(label: str, n: int, stream: Stream) -> Columns:
    """Draw the synthetic rows of one class.

    Args:
        label: The label, a key of `PROFILES`.
        n: The number of rows.
        stream: The random stream.

    Returns:
        The values of the rows, by column.
    """
    profile = PROFILES[label]
    draws = stream.uniforms(7, n).double().numpy()

    seconds = _log_uniform(draws[0], profile.seconds)
    sent = np.rint(_log_uniform(draws[1], profile.packets))
    answered = np.rint(sent * _log_uniform(draws[2], profile.answered))
    size = np.rint(_log_uniform(draws[3], profile.size))

    packets = (sent, answered)
    volume = (sent * size, answered * np.rint(size * (0.5 + draws[4])))

    columns = dict.fromkeys(("Dur", "RunTime", "Mean", "Sum", "Min", "Max"), seconds)
    columns |= _volumes(packets, volume, size) | _rates(packets, volume, seconds)
    columns |= _route(answered) | _transport(profile.proto, answered, draws)

    state = (draws[4] * len(profile.states)).astype(int)
    columns["State"] = np.array(profile.states, dtype=object)[state]
    columns["Cause"] = np.where(draws[6] < 0.4, "Start", "Status").astype(object)
    columns["Label"] = _constant(n, "Benign" if label == "Benign" else "Malicious")
    return columns


def _volumes(
    packets: tuple[np.ndarray, np.ndarray], volume: tuple[np.ndarray, np.ndarray], size: np.ndarray
) -> Columns:
    """Compute packets and bytes in both directions; there are no losses."""
    (sent, answered), (sent_bytes, answered_bytes) = packets, volume
    none = np.zeros(len(sent))
    return {
        "TotPkts": sent + answered,
        "SrcPkts": sent,
        "DstPkts": answered,
        "TotBytes": sent_bytes + answered_bytes,
        "SrcBytes": sent_bytes,
        "DstBytes": answered_bytes,
        "sMeanPktSz": size,
        "dMeanPktSz": answered_bytes / np.maximum(answered, 1),
        **dict.fromkeys(("Loss", "SrcLoss", "DstLoss", "pLoss"), none),
    }


def _rates(
    packets: tuple[np.ndarray, np.ndarray],
    volume: tuple[np.ndarray, np.ndarray],
    seconds: np.ndarray,
) -> Columns:
    """Compute bits and packets per second, both ways; 0 for a single packet, as in argus."""
    (sent, answered), (sent_bytes, answered_bytes) = packets, volume
    per_second = np.where(sent + answered > 1, 1 / seconds, 0.0)
    return {
        "Load": 8 * (sent_bytes + answered_bytes) * per_second,
        "SrcLoad": 8 * sent_bytes * per_second,
        "DstLoad": 8 * answered_bytes * per_second,
        "Rate": (sent + answered) * per_second,
        "SrcRate": sent * per_second,
        "DstRate": answered * per_second,
    }


def _route(answered: np.ndarray) -> Columns:
    """Make hops and classes of service, with missing values for the answer if there is none."""
    n, has_answer = len(answered), answered > 0
    missing = np.full(n, np.nan)
    return {
        "sTtl": np.full(n, 63.0),
        "dTtl": np.where(has_answer, 59.0, np.nan),
        "sHops": np.ones(n),
        "dHops": np.where(has_answer, 5.0, np.nan),
        "sTos": np.zeros(n),
        "dTos": np.where(has_answer, 0.0, np.nan),
        "sDSb": _constant(n, "cs0"),
        "dDSb": np.where(has_answer, "cs0", "?").astype(object),
        "sVid": missing,
        "dVid": missing,
    }


def _transport(proto: str, answered: np.ndarray, draws: np.ndarray) -> Columns:
    """Make the protocol and the TCP values, which are missing or 0 for other protocols."""
    n = len(answered)
    columns: Columns = {"Proto": _constant(n, proto)}

    if proto != "tcp":
        missing = ("SrcGap", "DstGap", "SrcWin", "DstWin", "SrcTCPBase", "DstTCPBase")
        no_handshake = ("TcpRtt", "SynAck", "AckDat")
        return (
            columns
            | dict.fromkeys(missing, np.full(n, np.nan))
            | dict.fromkeys(no_handshake, np.zeros(n))
        )

    handshake = np.where(answered > 0, 1e-3 + 0.05 * draws[5], 0.0)
    return columns | {
        "TcpRtt": handshake,
        "SynAck": 0.6 * handshake,
        "AckDat": 0.4 * handshake,
        "SrcGap": np.zeros(n),
        "DstGap": np.zeros(n),
        "SrcWin": np.full(n, 64256.0),
        "DstWin": np.full(n, 65024.0),
        "SrcTCPBase": np.floor(draws[5] * 2**32),
        "DstTCPBase": np.floor(draws[6] * 2**32),
    }


def _constant(n: int, text: str) -> np.ndarray:
    return np.full(n, text, dtype=object)


def _log_uniform(shares: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Map uniform values in 0 .. 1 to log-uniform values in a range."""
    low, high = np.log(bounds)
    return np.exp(low + shares * (high - low))
