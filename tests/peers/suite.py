"""The mirror beside real peers: see README.md."""

import sys

import balancers
import certificates
import proxies
from peers import Checks, Work

TOPICS = {"proxies": proxies.run, "certificates": certificates.run, "balancers": balancers.run}


def main() -> None:
    """Run the topics that are named, or all."""
    wanted = sys.argv[1:] or list(TOPICS)
    if unknown := set(wanted) - set(TOPICS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    checks, work = Checks(), Work()
    for name in wanted:
        TOPICS[name](checks, work)
    print(f"{checks.count} checks, {checks.failed} failed", flush=True)
    sys.exit(checks.failed > 0)


main()
