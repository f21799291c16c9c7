"""Each method by name as the keys that one would write instead, by hand, for tests of several
folders.
"""

from __future__ import annotations

from typing import Any

WRITTEN: dict[str, dict[str, Any]] = {
    "fedavg": {"algorithm": {"weights": "examples"}},
    "fedprox": {"algorithm": {"weights": "examples"}, "local": {"terms": {"fedprox": 0.01}}},
    "fedavgm": {"algorithm": {"weights": "examples", "server_settings": {"momentum": 0.9}}},
    "fedadam": {"algorithm": {"reduce": "fedit", "weights": "examples", "server": "adam"}},
    "fedyogi": {"algorithm": {"reduce": "fedit", "weights": "examples", "server": "yogi"}},
    "fednova": {"algorithm": {"weights": "fednova"}},
    "qffl": {"algorithm": {"weights": "q_ffl", "weights_settings": {"q": 1.0}}},
    "term": {"algorithm": {"weights": "term", "weights_settings": {"t": 1.0}}},
    "fedit": {"algorithm": {"reduce": "fedit", "weights": "examples"}},
    "ffa": {"algorithm": {"reduce": "ffa", "weights": "examples"}},
    "rolora": {"algorithm": {"reduce": "rolora", "weights": "examples"}},
    "flora": {"algorithm": {"reduce": "stack", "weights": "examples", "start": "fresh"}},
    "fedex": {"algorithm": {"weights": "examples", "start": "fedex"}},
    "flexlora": {"algorithm": {"weights": "examples", "start": "flexlora"}},
    "diloco": {
        "algorithm": {"weights": "uniform", "server": "nesterov"},
        "train": {"min_steps": 500, "max_steps": 500},
    },
    "fedbuff": {
        "algorithm": {"weights": "uniform"},
        "train": {"pace": "buffered", "buffer": 2, "round_seconds": 60.0},
    },
    "reptile": {"algorithm": {"weights": "uniform", "server": "reptile"}},
    "perfedavg": {"algorithm": {"weights": "uniform"}, "local": {"method": "fomaml"}},
    "ditto": {"algorithm": {"weights": "examples"}, "personal": {"ditto": [0.1, 1.0]}},
    "feddf": {"algorithm": {"weights": "examples"}, "distil": {"teachers": "participants"}},
    "rfa": {"algorithm": {"reduce": "geometric_median"}},
    "trimmed_mean": {"algorithm": {"reduce": "trimmed_mean"}},
    "centred_clipping": {"algorithm": {"reduce": "centred_clipping"}},
}
