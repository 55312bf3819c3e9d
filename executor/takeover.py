"""Whether a new attempt goes on where the one before was, or goes back to a checkpoint. Pure.

A server applies a step only when it knows that the one before is committed, and a step is committed only when every
server has applied it. So the versions of servers that have lost nothing are all s, or s and s + 1, and every step up to
s can be committed. The book's own server tells the replica of commits with the gradient of the step that follows, so
the bookmark there may be one commit behind: that one is made again. Versions are all there is to compare, since a
version has the same bits in every attempt.
"""

from collections.abc import Sequence

from proto.exchange_pb2 import Bookmark, Holding, Totals


def fits(bookmark: Bookmark | None, holdings: Sequence[Holding]) -> bool:
    """Whether the servers can go on with what they hold.

    Args:
        bookmark: what the first server knows of the book; None: nothing.
        holdings: of all servers, by index.
    """
    if bookmark is None or holdings[0].version != bookmark.step:
        return False
    if any((holding.index, holding.servers) != (index, len(holdings)) for index, holding in enumerate(holdings)):
        return False
    versions = [holding.version for holding in holdings]
    return bookmark.progress.step <= min(versions) and max(versions) - min(versions) <= 1


def hands_over(bookmark: Bookmark | None, holdings: Sequence[Holding]) -> bool:
    """Whether the former servers hold what another number of servers can go on with: all one version, committed.

    Args:
        bookmark: what the first server knows of the book; None: nothing.
        holdings: of all former servers, by their index.
    """
    if bookmark is None or not holdings:
        return False
    version = bookmark.progress.step
    places = [(holding.index, holding.servers, holding.version) for holding in holdings]
    return places == [(index, len(holdings), version) for index in range(len(holdings))]


def newest_totals(holdings: Sequence[Holding]) -> Totals | None:
    """The totals of the newest step that some servers have applied, and others may not; None if there are none."""
    step = max(holding.version for holding in holdings)
    return next((holding.totals for holding in holdings if step and holding.totals.step == step), None)
