"""No attack: what honest clients see of a mirror that has nothing else to do. The measure for the others."""

import time

from lib import KEY, Honest, Mirror, Sink, Verdict

verdict = Verdict()
with Sink() as sink, Mirror({KEY: [sink.dsn(), sink.dsn(2)]}) as mirror:
    honest = Honest(mirror)
    time.sleep(5)
    served = honest.stop()
    verdict.line(
        "quiet",
        served,
        mirror,
        none_refused=served.refused == 0,
        median_under_5_ms=served.p50_ms <= 5,
        p99_under_50_ms=served.p99_ms <= 50,
    )
verdict.end()
