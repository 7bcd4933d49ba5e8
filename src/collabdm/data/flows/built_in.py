"""The built-in schema, for tables like 5G-NIDD.

The bounds are wide enough for any capture of this kind; those of counters are the limits of argus,
the program that wrote the table. Durations are in seconds. Columns that count up during a capture
(the unnamed row number, Seq, Offset, the TCP base numbers) or identify its location (the VLAN
numbers) are leaking. 94 rows of 42 features fill 3,948 of the 64 x 64 = 4,096 pixels; each class
then has as many images as in the paper's Table 1, its number of rows divided by 94.

Reference: S. Samarakoon et al., "5G-NIDD: a comprehensive network intrusion detection dataset
generated over 5G wireless network", 2022.
"""

from collabdm.documents.flow_schema import Category, Column, FlowSchema, Number

_CODE_POINTS = (
    *("?", "cs0", "cs1", "cs2", "cs3", "cs4", "cs5", "cs6", "cs7", "ef", "va", "le", "4"),
    *(
        "af11",
        "af12",
        "af13",
        "af21",
        "af22",
        "af23",
        "af31",
        "af32",
        "af33",
        "af41",
        "af42",
        "af43",
    ),
)

_STATES = (
    *("REQ", "INT", "CON", "RST", "FIN", "ECO", "ACC", "URP", "ECR", "URH", "URN", "URO"),
    *("URF", "NRS", "RSP", "TST", "TXD", "PAR", "MAS", "CLO", "NNS", "RTA", "RTS"),
)

_PROTOCOLS = ("tcp", "udp", "icmp", "sctp", "lldp", "arp", "ipv6-icmp", "igmp", "llc", "gre")

LEAKING = ("", "Seq", "Offset", "sVid", "dVid", "SrcTCPBase", "DstTCPBase")

_RARE_ATTACKS = ("ICMPFlood", "SYNFlood", "SYNScan", "TCPConnectScan", "UDPScan")

_COUNT, _BYTES = 1e7, 1e10  # upper bounds


def _numbers(names: str, high: float, unit: float = 1.0) -> list[Column]:
    """Define numeric columns from 0 to `high`, on a logarithmic scale."""
    return [Number(name=name, low=0.0, high=high, unit=unit) for name in names.split()]


def _even(names: str, high: float) -> list[Column]:
    """Define numeric columns from 0 to `high`, on a linear scale."""
    return [Number(name=name, low=0.0, high=high, scale="linear") for name in names.split()]


FIVE_G_NIDD = FlowSchema(
    columns=(
        Number(name="", low=0.0, high=1e7),
        *_numbers("Seq", high=1e7),
        *_numbers("Dur RunTime Mean Sum Min Max", high=1e4, unit=1e-4),
        Category(name="Proto", values=_PROTOCOLS),
        *_even("sTos dTos", 255.0),
        *(Category(name=name, values=_CODE_POINTS) for name in ("sDSb", "dDSb")),
        *_even("sTtl dTtl", 255.0),
        *_even("sHops dHops", 64.0),
        Category(name="Cause", values=("Start", "Status", "Shutdown")),
        *_numbers("TotPkts SrcPkts DstPkts", high=_COUNT),
        *_numbers("TotBytes SrcBytes DstBytes Offset", high=_BYTES),
        *_numbers("sMeanPktSz dMeanPktSz", high=1e5),
        *_numbers("Load SrcLoad DstLoad", high=1e10, unit=0.1),
        *_numbers("Loss SrcLoss DstLoss", high=_COUNT),
        *_even("pLoss", 100.0),
        *_numbers("SrcGap DstGap", high=_BYTES),
        *_numbers("Rate SrcRate DstRate", high=1e7, unit=0.1),
        Category(name="State", values=_STATES),
        *_numbers("SrcWin DstWin", high=1e8),
        *_even("sVid dVid", 4096.0),
        *_numbers("SrcTCPBase DstTCPBase", high=2.0**32),
        *_numbers("TcpRtt SynAck AckDat", high=100.0, unit=1e-4),
    ),
    leaking=LEAKING,
    label="Attack Type",
    classes=("Benign", "HTTPFlood", "SlowrateDoS", "UDPFlood", "Anomalous"),
    merge=tuple((label, "Anomalous") for label in _RARE_ATTACKS),
    flows=94,
    side=64,
)


SCHEMAS: dict[str, FlowSchema] = {"5gnidd": FIVE_G_NIDD}
